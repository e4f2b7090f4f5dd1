"""Robust distillation for the worst class: our reading of Wang et al., UAI 2023.

    w_y * (alpha * T^2 * KL + (1 - alpha) * CE),    w_c = 1 - robustness + robustness * v_c / pi_c
    v_c <- v_c * exp(step_size * L_c), scaled to sum 1, after every epoch

L_c is the student's mean cross entropy of class c on the validation split, and pi_c the share of
the class in training. The second part of the weight turns the mean over rows into the sum over c of
v_c times the mean of class c. robustness 0 is `kd`. The paper trades the average against the worst
class in this way, by weights of classes that follow the validation loss. The cross entropy with
labels in L_c, the defaults, and weights of whole rows are ours.

The weights depend on the validation split, so the student's validation numbers are not independent
of training.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._groups import class_counts
from kdplatform.methods._rows import DistilledRows, RowMethod, weighted
from kdplatform.settings.schema import Fraction


class Config(DistilledRows):
    """How much the worst classes count beside the average, and how fast the weights change."""

    method: Literal["worst_class"] = Field("worst_class", description="method")
    robustness: Fraction = Field(
        0.5,
        description="0: the mean over examples; 1: the weighted sum over classes; between: "
        "a mixture",
    )
    step_size: float = Field(
        0.1, ge=0, description="step size of the classes' weights, once per epoch"
    )


class WorstClass(RowMethod[Config]):
    """Gives the classes with the highest validation losses the most weight."""

    def begin(self, run: Run) -> None:
        """Gives all classes the same weight."""
        counts = class_counts(run.split).double()
        self.shares = counts / counts.sum()
        self.log_weights = torch.zeros_like(counts).log_softmax(0)

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`."""
        robustness = self.config.robustness
        classes = 1 - robustness + robustness * self.log_weights.exp() / self.shares
        return weighted(self.usual(batch, run), classes[batch.labels])

    def after_step(self, run: Run) -> None:
        """Updates the weights of the classes at the end of an epoch."""
        if run.step % run.steps_per_epoch:
            return
        assert run.validation is not None
        labels = run.validation.labels.to(run.device)
        rows = functional.cross_entropy(run.student_logits("val"), labels, reduction="none")
        zeros = torch.zeros_like(self.shares)
        # A class without validation examples has the loss 0.
        counts = zeros.index_add(0, labels, torch.ones_like(rows).double()).clamp(min=1)
        means = zeros.index_add(0, labels, rows.double()) / counts
        self.log_weights = (self.log_weights + self.config.step_size * means).log_softmax(0)
