"""Knowledge distillation: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._logits import LogitMethod
from kdplatform.methods._terms import usual_loss
from kdplatform.settings.schema import DistillationConfig, Fraction, Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(DistillationConfig):
    """How the student of plain distillation learns from its teacher."""

    temperature_field: ClassVar[str] = "temperature"
    alpha_field: ClassVar[str] = "alpha"

    method: Literal["kd"] = Field("kd", description="method")
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student"
    )
    alpha: Fraction = Field(0.8, description="weight of the distillation term")
    scale_by_t2: bool = Field(True, description="multiply the distillation term by T^2")


class KnowledgeDistillation(LogitMethod[Config]):
    """alpha * T^2 * KL(teacher || student at T) + (1 - alpha) * CE(student, labels)."""

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`."""
        config = self.config
        return usual_loss(
            batch,
            run,
            temperature=config.temperature,
            alpha=config.alpha,
            scale_by_t2=config.scale_by_t2,
        )

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term by itself; its part is `kl`."""
        config = self.config
        rows, kl, _ = kernels.kd_loss(
            student,
            teacher,
            temperature=config.temperature,
            kl_weight=config.alpha,
            scale_by_t2=config.scale_by_t2,
            reduction="none",
        )
        return rows, {"kl": kl}
