"""Knowledge distillation: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._terms import kd_rows
from kdplatform.settings.schema import DistillationConfig, Fraction, Temperature


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
        rows, kl, ce = kd_rows(
            run,
            student.logits,
            teacher.logits,
            batch.labels,
            temperature=config.temperature,
            alpha=config.alpha,
            scale_by_t2=config.scale_by_t2,
        )
        return Loss(rows, student, {"kl": kl, "ce": ce})
