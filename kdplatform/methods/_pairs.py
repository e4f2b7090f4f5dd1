"""Pairs of classes, the first of which should rank before the second, and how they are drawn.

If a split has users, the candidates of a row are the items that its user has not taken in training.
On other data they are all classes except the row's label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdplatform.lazy import functional, torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdplatform.data import Split
    from kdplatform.methods import Batch, Run

# A rank is drawn again while it equals that of the pair's other item. With two candidates that
# happens half of the time, so after this many draws one pair in 10^15 is still equal.
_MOST_DRAWS = 50


def out_of_pairs(batch: Batch, run: Run, classes: int) -> Tensor:
    """Returns which classes are not candidates of a batch's rows: bool [B, C], on the CPU."""
    seen = run.split.seen
    if seen is not None and batch.labelled:
        return seen.of(batch.rows.cpu())
    return functional.one_hot(batch.labels.cpu().clamp(min=0), classes).bool()


def order_rows(
    logits: Tensor, *pairs: tuple[Tensor, Tensor], smoothing: float = 0.0
) -> list[Tensor]:
    """Returns softplus(z_second - z_first), the mean over the pairs of each row: [B] for each kind.

    This is the cross entropy of a choice between the two. A row without pairs has 0.

    Args:
        logits: [B, C].
        pairs: for each kind two tensors int64 [B, n]: the classes that should rank first, and the
            others; -1 in both for no pair.
        smoothing: label smoothing of the first kind of pairs: the share that is divided between
            both classes.
    """
    # One look-up serves all pairs, because the gradient of each look-up is as large as the logits.
    columns = [classes.to(logits.device) for pair in pairs for classes in pair]
    found = logits.gather(1, torch.cat(columns, dim=1).clamp(min=0))
    parts = torch.split(found, [classes.shape[1] for classes in columns], dim=1)
    losses = []
    for place in range(len(pairs)):
        there, margin = columns[2 * place] >= 0, parts[2 * place] - parts[2 * place + 1]
        own = functional.softplus(-margin)
        if place == 0:
            own = own + smoothing / 2 * margin
        losses.append((own * there).sum(1) / there.sum(1).clamp(min=1))
    return losses


class Negatives:
    """Draws classes that a row's user has not taken, all of them equally likely.

    Args:
        split: the training split.
    """

    def __init__(self, split: Split) -> None:
        self._seen = split.seen
        if self._seen is not None:
            table = self._seen.table
            # The items that were not taken come first. The r-th candidate is then one look-up, and
            # no draw fails.
            self._candidates = table.byte().argsort(dim=1, stable=True).int()
            self._counts = (~table).sum(1)

    def against_labels(
        self, batch: Batch, run: Run, classes: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Returns each row's label beside classes drawn for it, int64 [B, count] both.

        Both are -1 if a row has no candidate.
        """
        drawn = self.draw(batch, classes, count, run.generator).to(batch.labels.device)
        return torch.where(drawn >= 0, batch.labels.unsqueeze(1), -1), drawn

    def draw(self, batch: Batch, classes: int, count: int, generator: torch.Generator) -> Tensor:
        """Returns classes int64 [B, count] on the CPU; -1 where a row has no candidate."""
        share = torch.rand(len(batch.labels), count, generator=generator, dtype=torch.float64)
        if self._seen is None or not batch.labelled:
            labels = batch.labels.cpu().unsqueeze(1)
            drawn = (share * (classes - 1)).long()
            return drawn + (drawn >= labels).long()
        users = self._seen.users[batch.rows.cpu()]
        counts = self._counts[users].unsqueeze(1)
        places = (share * counts).long().clamp(max=classes - 1)
        return torch.where(counts > 0, self._candidates[users].gather(1, places).long(), -1)


@dataclass(frozen=True)
class Ranking:
    """The candidates of R rows in the order of a teacher's logits, within strata of classes.

    Attributes:
        classes: int32 [G, R, K], the best first.
        counts: int64 [G, R], how many of them are candidates.
    """

    classes: Tensor
    counts: Tensor

    def at(self, rows: Tensor) -> Ranking:
        """Returns the ranking of these rows."""
        return Ranking(self.classes[:, rows], self.counts[:, rows])


def ranking(logits: Tensor, out: Tensor, strata: Sequence[Sequence[int]], most: int) -> Ranking:
    """Ranks the candidates within each stratum; equal logits in the order of the classes.

    Args:
        logits: the teacher's [R, C].
        out: bool [R, C], the classes that are not candidates.
        strata: the classes of each.
        most: how many of the best of each stratum are kept.
    """
    width = min(most, max(map(len, strata)))
    masked = logits.float().cpu().masked_fill(out, float("-inf"))
    classes = torch.zeros(len(strata), len(logits), width, dtype=torch.int32)
    counts = torch.zeros(len(strata), len(logits), dtype=torch.int64)
    for place, own in enumerate(strata):
        members = torch.tensor(own).sort().values
        order = masked[:, members].argsort(dim=1, descending=True, stable=True)[:, :width]
        classes[place, :, : order.shape[1]] = members[order].int()
        counts[place] = (~out[:, members]).sum(1).clamp(max=width)
    return Ranking(classes, counts)


def draw_pairs(
    ranked: Ranking, numbers: Sequence[int], scale: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws pairs within strata: the better-ranked and the other, int64 [R, n] each.

    Both ranks come from P(r) proportional to exp(-(r + 1) / scale), r from 0 to the number of
    candidates less one; two equal ranks are both drawn again. Both are -1 if a stratum has fewer
    than two candidates.

    Args:
        numbers: pairs of each stratum; n is their sum.
    """
    pairs = []
    for classes, counts, number in zip(ranked.classes, ranked.counts, numbers, strict=True):
        ranks = draw_ranks(counts.unsqueeze(1).expand(-1, number), scale, generator)
        first, second = ranks.min(0).values, ranks.max(0).values
        there = first < second
        pairs.append(
            [torch.where(there, classes.gather(1, own).long(), -1) for own in (first, second)]
        )
    first, second = (torch.cat(own, dim=1) for own in zip(*pairs, strict=True))
    return first, second


def draw_ranks(counts: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Draws two different ranks for each number of candidates: int64 [2, *counts.shape].

    Two zeros if there are fewer than two candidates.
    """
    ranks = _truncated(counts.expand(2, *counts.shape), scale, generator)
    for _ in range(_MOST_DRAWS):
        tied = (ranks[0] == ranks[1]) & (counts > 1)
        if not tied.any():
            break
        again = counts[tied]
        ranks[:, tied] = _truncated(again.expand(2, len(again)), scale, generator)
    return ranks


def _truncated(counts: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Draws r from 0 to counts - 1 with P(r) proportional to exp(-r / scale), by its inverse."""
    share = torch.rand(counts.shape, generator=generator, dtype=torch.float64)
    mass = -torch.expm1(-counts.double() / scale)
    ranks = (-scale * torch.log1p(-share * mass)).floor().long()
    return ranks.minimum(counts - 1).clamp(min=0)
