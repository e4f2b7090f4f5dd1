"""Knowledge distillation: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.settings.schema import DistillationConfig, Fraction, Temperature

if TYPE_CHECKING:
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


class KnowledgeDistillation(Method[Config]):
    """alpha * T^2 * KL(teacher || student at T) + (1 - alpha) * CE(student, labels)."""

    needs = Needs(teacher="logits")

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`."""
        config = self.config
        teacher = run.teacher(batch)
        student = run.student(batch.inputs)
        rows, kl, ce = kernels.kd_loss(
            student.logits,
            teacher.logits,
            batch.labels,
            temperature=config.temperature,
            alpha=config.alpha,
            scale_by_t2=config.scale_by_t2,
            reduction="none",
        )
        smoothing = run.config.label_smoothing
        if smoothing > 0:
            smoothed = smoothing * _label_margin(student.logits, batch.labels)
            rows = rows + (1 - config.alpha) * smoothed
            ce = ce + smoothed.detach()
        return Loss(rows, student, {"kl": kl, "ce": ce})


def _label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns per row by how much the label's logit exceeds the mean logit.

    Smoothing by e moves the share e of the target from the label to the mean over the classes.
    The normaliser cancels: mean_k(-log r_k) - (-log r_y) = s_y - mean_k s_k, so that smoothed
    cross entropy is cross entropy plus e times this.
    """
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1) - logits.mean(dim=1)
