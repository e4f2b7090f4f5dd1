"""Consistently informative soft-label temperature (CIST): Luong et al. 2026 (arXiv 2605.20357).

    ce_weight * CE + kd_weight * T_s * T_t * KL(softmax(z_t / T_t) || softmax(z_s / T_s))

Each row has a temperature for the teacher and one for the student, T = max_k z_k / ratio. The
largest logit divided by T is then the same for all rows, and soft labels are about equally
informative whatever the size of the logits. This is our reading of the abstract: logits are centred
at their mean, which makes T positive and independent of a shift. No gradient flows through the
temperatures. The product T_s * T_t replaces T^2; this weight rises with a row's confidence.

The weights are those that CIFAR-100 studies use for plain distillation; the ratio is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import LOWEST_TEMPERATURE, Positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The ratio that sets each row's temperatures, and the weights."""

    method: Literal["cist"] = Field("cist", description="method")
    ce_weight: float = Field(0.1, ge=0, description="weight of the cross entropy with labels")
    kd_weight: float = Field(0.9, ge=0, description="weight of the distillation term")
    ratio: Positive = Field(
        3.0,
        description="ratio of a row's largest centred logit to its temperature, equal for all rows",
    )


class InformativeTemperature(LogitMethod[Config]):
    """Cross entropy, and KL with separate temperatures of each row for teacher and student."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `kl` and the teacher's `temperature`."""
        own, its = self._temperatures(student.detach()), self._temperatures(teacher)
        rows, kl, _ = kernels.kd_loss(
            student,
            teacher,
            student_temperature=own,
            teacher_temperature=its,
            kl_weight=self.config.kd_weight,
            reduction="none",
        )
        return rows, {"kl": kl, "temperature": its}

    def _temperatures(self, logits: Tensor) -> Tensor:
        largest = logits.amax(dim=1) - logits.mean(dim=1)
        # If all logits of a row are equal, the largest centred one is 0, and any temperature gives
        # equal probabilities.
        return (largest / self.config.ratio).clamp(min=LOWEST_TEMPERATURE)
