"""Methods that learn from the teacher's logits, and from labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from pydantic import Field

from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._terms import cross_entropy
from kdplatform.settings.schema import DistillationConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

ConfigT = TypeVar("ConfigT", bound=DistillationConfig)


class LogitConfig(DistillationConfig):
    """The field that most of these methods have in common."""

    ce_weight: float = Field(1.0, ge=0, description="weight of the cross entropy with labels")


class LogitMethod(Method[ConfigT]):
    """ce_weight * CE(student, labels) + a distillation term of two tables of logits.

    A subclass defines the distillation term as a function of logits. `logit_standardization` can
    therefore pass other logits to it.
    """

    needs = Needs(teacher="logits")

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the weighted distillation term [B], and its parts in the form of `Loss.parts`.

        Args:
            student: logits [B, C], with gradients.
            teacher: logits [B, C].
        """
        raise NotImplementedError

    def label_weight(self, teacher: Tensor, batch: Batch) -> float | Tensor:
        """Returns the weight of the cross entropy: one for all rows, or [B]."""
        weight: float = self.config.ce_weight  # type: ignore[attr-defined]
        return weight

    def views(self, batch: Batch, run: Run) -> Sequence[Batch]:
        """Returns the batches whose losses a step adds up row by row, first the batch itself."""
        return [batch]

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `ce` and those of the distillation term."""
        first, *others = (self._loss(view, run) for view in self.views(batch, run))
        rows = sum((other.rows for other in others), first.rows)
        return Loss(rows, first.student, first.parts)

    def _loss(self, batch: Batch, run: Run) -> Loss:
        teacher = run.teacher(batch).logits
        student = run.student(batch.inputs)
        ce = cross_entropy(run, student.logits, batch.labels)
        distilled, parts = self.distillation(student.logits, teacher, batch, run)
        rows = self.label_weight(teacher, batch) * ce + distilled
        return Loss(rows, student, {"ce": ce.detach(), **parts})
