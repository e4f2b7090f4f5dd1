"""Weighted soft labels (WSLD): Zhou et al., ICLR 2021 (arXiv 2102.00650).

    ce_weight * CE_s + kd_weight * w * T^2 * KL(p || q),    w = 1 - exp(-CE_s / CE_t)

CE_s and CE_t are the cross entropies of student and teacher with the hard label at temperature 1.
The distillation of a row counts little if the student knows the label better than the teacher does.
No gradient flows through w.

Defaults (kd_weight is the authors' alpha) are those of their code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

# Least loss of a teacher, so that nothing is divided by 0; rows with this loss have weight 1.
_LEAST = 1e-7


class Config(LogitConfig):
    """The weight of the distillation term before that of each row."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["wsld"] = Field("wsld", description="method")
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student"
    )
    kd_weight: float = Field(2.25, ge=0, description="weight of the distillation term")


class WeightedSoftLabels(LogitMethod[Config]):
    """Distillation with rows weighted by how much the student can still learn from the teacher."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; its part is `kl`."""
        own, its = (
            functional.cross_entropy(logits.detach(), batch.labels, reduction="none")
            for logits in (student, teacher)
        )
        weight = -torch.expm1(-own / its.clamp(min=_LEAST))
        rows, kl, _ = kernels.kd_loss(
            student,
            teacher,
            temperature=self.config.temperature,
            kl_weight=self.config.kd_weight * weight,
            reduction="none",
        )
        return rows, {"kl": kl}
