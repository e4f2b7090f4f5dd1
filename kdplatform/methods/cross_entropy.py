"""Learning from hard labels alone: the default of teachers and of plain students (NDS)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdplatform.methods import Batch, Loss, Method, Run
from kdplatform.methods._terms import cross_entropy
from kdplatform.settings.schema import MethodConfig


class Config(MethodConfig):
    """Cross entropy has no fields of its own; `label_smoothing` belongs to every training."""

    method: Literal["cross_entropy"] = Field("cross_entropy", description="method")


class CrossEntropy(Method[Config]):
    """Cross entropy with labels; `label_smoothing` spreads a share of them over all classes."""

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the cross entropy of each row."""
        student = run.student(batch.inputs)
        rows = cross_entropy(run, student.logits, batch.labels)
        return Loss(rows, student, {})
