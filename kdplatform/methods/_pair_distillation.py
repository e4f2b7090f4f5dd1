"""Distillation of a teacher's ranking of classes by pairs, for `unkd` and `rank_distillation`.

    softplus(z_negative - z_label) + kd_weight * mean over pairs (i, j) of softplus(z_j - z_i)

Within each stratum of classes the teacher ranks a row's candidates, and the best `candidates` are
kept. A pair consists of two of them. The student learns to rank the better one, i, before j. Pairs
never cross strata, so an effect that lifts all classes of a stratum is not learnt.

On data of users and items the pairs are drawn for each user at the beginning of an epoch. All of
the user's examples share them. Items that the user took in training are not candidates. On other
data pairs are drawn for each row in each step, and the row's label is not a candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from kdplatform.errors import UserError
from kdplatform.lazy import torch
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._groups import class_counts
from kdplatform.methods._pairs import (
    Negatives,
    Ranking,
    draw_pairs,
    order_rows,
    out_of_pairs,
    ranking,
)
from kdplatform.settings.schema import DistillationConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdplatform.data import Dataset

ConfigT = TypeVar("ConfigT", bound="PairConfig")


class PairConfig(DistillationConfig):
    """How many pairs are drawn, and from which ranks of the teacher."""

    kd_weight: float = Field(1.0, ge=0, description="weight of the pairs' term")
    pairs: int = Field(
        30, ge=1, le=10_000, description="number of pairs per user and epoch, or per row"
    )
    rank_scale: float = Field(
        20.0,
        gt=0,
        description="a class at rank r is drawn with probability proportional to exp(-r / "
        "rank_scale)",
    )
    candidates: int = Field(
        1000,
        ge=2,
        description="number of classes of each stratum, the teacher's highest, from which "
        "pairs are drawn",
    )
    negatives: int = Field(
        1, ge=1, le=1000, description="number of other classes that each label is compared with"
    )


class PairMethod(Method[ConfigT]):
    """Ranks the label before others, and pairs as the teacher does; parts: `bpr`, `pairs`."""

    needs = Needs(teacher="logits")

    def strata(self, counts: Sequence[int]) -> list[list[int]]:
        """Returns the classes of each stratum, by the training examples of each class."""
        raise NotImplementedError

    def shares(self, counts: Sequence[int], strata: Sequence[Sequence[int]]) -> list[float]:
        """Returns the share of the pairs that each stratum gets; their sum is 1."""
        return [1 / len(strata)] * len(strata)

    def check(self, dataset: Dataset) -> None:
        """Refuses data of two classes, which have no pair beside the label."""
        if len(dataset.class_names) < 3:
            raise UserError(
                f"method={self.config.method!r} learns from pairs of classes beside the label, and "
                f"the dataset has {len(dataset.class_names)} classes; allowed: at least 3"
            )

    def begin(self, run: Run) -> None:
        """Ranks, by the teacher, the items that each user has not taken."""
        counts = class_counts(run.split).tolist()
        self._strata = self.strata(counts)
        shares = self.shares(counts, self._strata)
        self._numbers = apportioned(self.config.pairs, shares)
        self._negatives = Negatives(run.split)
        self._ranked = self._of_users(run)
        self._epoch = -1

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row."""
        config = self.config
        student = run.student(batch.inputs)
        classes = student.logits.shape[1]
        bpr, pairs = order_rows(
            student.logits,
            self._negatives.against_labels(batch, run, classes, config.negatives),
            self._pairs(batch, run, classes),
            smoothing=run.config.label_smoothing,
        )
        parts = {"bpr": bpr.detach(), "pairs": pairs.detach()}
        return Loss(bpr + config.kd_weight * pairs, student, parts)

    def _pairs(self, batch: Batch, run: Run, classes: int) -> tuple[Tensor, Tensor]:
        """Returns the pairs of each row, int64 [B, n] on the CPU: the better-ranked, the other."""
        config = self.config
        if self._ranked is None:
            teacher = run.teacher(batch).logits
            out = out_of_pairs(batch, run, classes)
            ranked = ranking(teacher, out, self._strata, config.candidates)
            return draw_pairs(ranked, self._numbers, config.rank_scale, run.generator)
        if self._epoch != run.epoch:
            drawn = draw_pairs(self._ranked, self._numbers, config.rank_scale, run.generator)
            self._epoch, self._drawn = run.epoch, drawn
        assert run.split.seen is not None
        users = run.split.seen.users[batch.rows.cpu()]
        first, second = self._drawn
        return first[users], second[users]

    def _of_users(self, run: Run) -> Ranking | None:
        """Returns the ranking for each user; None if the split has no users."""
        split = run.split
        if split.seen is None:
            return None
        # All examples of a user have the same input for the teacher.
        rows = torch.zeros(len(split.seen.table), dtype=torch.int64)
        rows[split.seen.users] = torch.arange(len(split))
        ids = torch.from_numpy(split.ids)[rows]
        assert isinstance(split.inputs, torch.Tensor)
        of_rows = (split.inputs[rows], split.labels[rows], ids, rows)
        inputs, labels, ids, rows_there = (own.to(run.device) for own in of_rows)
        examples = Batch(inputs, labels, ids, rows_there)
        teacher = run.teacher(examples.as_made()).logits
        return ranking(teacher, split.seen.of(rows), self._strata, self.config.candidates)


def apportioned(count: int, shares: Sequence[float]) -> list[int]:
    """Returns whole numbers that are near the shares of a count and add up to it.

    The largest remainders are rounded up, the first of equal ones first.

    >>> apportioned(10, [0.5, 0.25, 0.25])
    [5, 3, 2]
    """
    exact = [count * share for share in shares]
    found = [int(number) for number in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: found[place] - exact[place])
    for place in by_remainder[: count - sum(found)]:
        found[place] += 1
    return found
