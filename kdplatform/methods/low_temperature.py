"""Low temperature distillation (LTD) without its attack: Chen and Lee 2021 (arXiv 2111.02331).

    ce_weight * CE + kd_weight * KL(softmax(z_t / T) || softmax(z_s))

A low T softens the teacher's labels, and the student has temperature 1 in training, as in use. Its
logits are then not inflated, and its gradients are not masked. We could not read the text of the
paper, so this is our reading. The paper writes the cross entropy with soft labels, which has the
same gradient, and trains on attacked images. The divergence is that of `ttm`, with other defaults.

Defaults are ours: soft labels alone, at T = 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The teacher's temperature, and the weights of soft and hard labels."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["low_temperature"] = Field("low_temperature", description="method")
    ce_weight: float = Field(0.0, ge=0, description="weight of the cross entropy with labels")
    temperature: Temperature = Field(
        2.0, description="softmax temperature T of the teacher alone; low, such as 1 to 5"
    )
    kd_weight: float = Field(1.0, ge=0, description="weight of the distillation term")


class LowTemperatureDistillation(LogitMethod[Config]):
    """The divergence from the teacher at a low T to the student at 1."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; its part is `kl`."""
        rows, kl, _ = kernels.kd_loss(
            student,
            teacher,
            student_temperature=1.0,
            teacher_temperature=self.config.temperature,
            kl_weight=self.config.kd_weight,
            scale_by_t2=False,
            reduction="none",
        )
        return rows, {"kl": kl}
