"""Distillation within strata of classes: the idea of UnKD (WSDM 2023, arXiv 2211.14729) as KL.

    ce_weight * CE + kd_weight * T^2 * (X + mean over strata g of KL(p^g || q^g))

p^g and q^g are the softmaxes of teacher and student at T over the classes of stratum g alone. The
frequencies of classes shift the teacher's probabilities of whole strata. The softmax within a
stratum is free of this shift, and distinguishes classes of similar frequency. `cross_term` chooses
the divergence X between the strata's probabilities p_G and q_G:

- dropped: X = 0, as UnKD does with the pairs it draws.
- recalibrated: X = KL(r || q_G) with r_g = p_G(g) / pi_g scaled to sum 1, pi_g the stratum's share
  of training: no stratum gains by its size. Our reading of LTKD (arXiv 2506.18496).
- kept: X = KL(p_G || q_G).

By the chain rule plain KL is KL(p_G || q_G) + sum_g p_G(g) * KL(p^g || q^g). One stratum is plain
distillation.

The classes, from the most frequent down, are cut into strata with about equally many training
examples, as UnKD cuts items. A stratum is full once it has its share. A last stratum with less than
half a share joins the one before. `given` names the strata instead. UnKD learns from pairs. The
divergence is our reading, and the weights are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from kdplatform import kernels
from kdplatform.errors import UserError
from kdplatform.lazy import torch
from kdplatform.methods import Batch, Run
from kdplatform.methods._groups import class_counts
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.progress import say
from kdplatform.settings.schema import Temperature, parse_integers
from kdplatform.strata import strata_by_frequency

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kdplatform.data import Dataset


class Config(LogitConfig):
    """The strata of classes, and the form of the divergence between strata."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["group_stratified"] = Field("group_stratified", description="method")
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student"
    )
    kd_weight: float = Field(1.0, ge=0, description="weight of the distillation term")
    strata: int = Field(2, ge=1, description="strata of classes by their frequency in training")
    given: str = Field(
        "none",
        description="strata as numbers of their classes, such as 0-4/5,7/6,8,9, in place of"
        " strata by frequency",
    )
    cross_term: Literal["dropped", "recalibrated", "kept"] = Field(
        "dropped", description="what is done with the divergence between strata"
    )

    @field_validator("given")
    @classmethod
    def _lists_classes(cls, value: str) -> str:
        for part in value.split("/"):
            if value != "none" and not parse_integers(part):
                raise ValueError("a stratum is empty")
        return value


class GroupStratified(LogitMethod[Config]):
    """Cross entropy, and the divergence within strata of classes."""

    def check(self, dataset: Dataset) -> None:
        """Refuses strata that do not hold every class exactly once; prints the strata."""
        counts = class_counts(dataset.train).tolist()
        strata = self._strata(counts)
        if sorted(number for classes in strata for number in classes) != list(range(len(counts))):
            raise UserError(
                f"distillation.given={self.config.given!r} is not allowed; allowed: every class "
                f"once, numbers 0 to {len(counts) - 1}"
            )
        sizes = [f"{len(s)} with {sum(counts[c] for c in s):,} examples" for s in strata]
        say(f"strata of classes in training: {'; '.join(sizes)}")

    def _strata(self, counts: Sequence[int]) -> list[list[int]]:
        if self.config.given != "none":
            return [parse_integers(part) for part in self.config.given.split("/")]
        return strata_by_frequency(counts, self.config.strata)

    def begin(self, run: Run) -> None:
        """Divides the classes into strata."""
        counts = class_counts(run.split)
        strata = self._strata(counts.tolist())
        self.masks = torch.zeros(len(strata), len(counts), dtype=torch.bool)
        for mask, classes in zip(self.masks, strata, strict=True):
            mask[classes] = True
        sizes = (self.masks * counts).sum(1).double()
        self.log_shares = (sizes / sizes.sum()).log()

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `within` and, unless it is dropped, `cross`."""
        config = self.config
        terms = [
            kernels.kd_loss(
                student,
                teacher,
                temperature=config.temperature,
                kl_weight=config.kd_weight / len(self.masks),
                class_mask=mask,
                reduction="none",
            )
            for mask in self.masks
        ]
        rows = torch.stack([term.loss for term in terms]).sum(0)
        parts = {"within": torch.stack([term.kl for term in terms]).mean(0)}
        if config.cross_term != "dropped" and len(self.masks) > 1:
            own, its = (self._strata_logits(logits) for logits in (student, teacher))
            if config.cross_term == "recalibrated":
                its = its - self.log_shares.to(its.dtype)
            weight = config.kd_weight * config.temperature**2
            cross = kernels.kd_loss(own, its, temperature=1.0, kl_weight=weight, reduction="none")
            rows, parts["cross"] = rows + cross.loss, cross.kl
        return rows, parts

    def _strata_logits(self, logits: Tensor) -> Tensor:
        """Returns logits whose softmax is the strata's probabilities at T: [B, G]."""
        scaled = (logits / self.config.temperature).unsqueeze(1)
        return scaled.masked_fill(~self.masks, float("-inf")).logsumexp(2)
