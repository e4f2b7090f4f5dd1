"""Just train twice (JTT): examples that a first model gets wrong count more in the second training.

Liu et al., ICML 2021, arXiv 2107.09044. A first model is trained by cross entropy for
`first_epochs`, in a step of its own. Training rows that it gets wrong count `upweight` times in the
cross entropy of the second model. The weights are divided by their mean, so that the learning rate
keeps its meaning. The paper repeats the rows instead. No attribute is used. The paper chooses both
numbers on validation data with groups. Our defaults are not the paper's.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdplatform.lazy import torch
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._rows import weighted
from kdplatform.methods._terms import cross_entropy
from kdplatform.progress import say
from kdplatform.settings.schema import Count, MethodConfig, TrainingConfig


class Config(MethodConfig):
    """How long the first model is trained, and how much its errors count."""

    method: Literal["jtt"] = Field("jtt", description="method")
    first_epochs: Count = Field(5, description="epochs of the first model")
    upweight: float = Field(
        5.0, ge=1, description="how many times a row counts that the first model gets wrong"
    )

    def first_training(self, training: TrainingConfig) -> TrainingConfig:
        """Returns the training of the first model: shorter than this one, with cross entropy."""
        update = {"method": MethodConfig(), "epochs": self.first_epochs}
        return training.model_copy(update=update)


class JustTrainTwice(Method[Config]):
    """Cross entropy in which the errors of a first model count more."""

    needs = Needs(teacher="live", teacher_statistics=True)
    rebuilt = frozenset({"weights"})

    def begin(self, run: Run) -> None:
        """Finds the examples that the first model gets wrong."""
        said = run.teacher_logits("train").argmax(1).cpu()
        wrong = said != run.split.labels
        say(f"jtt: the first model gets {int(wrong.sum()):,} of {len(wrong):,} training rows wrong")
        weights = torch.where(wrong, self.config.upweight, 1.0)
        self.weights = weights / weights.mean()

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; there are no parts."""
        student = run.student(batch.inputs)
        rows = cross_entropy(run, student.logits, batch.labels)
        return weighted(Loss(rows, student, {}), self.weights[batch.rows])
