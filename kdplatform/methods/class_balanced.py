"""Rows weighted by the effective number of their class: Cui et al., CVPR 2019 (arXiv 1901.05555).

    w_y * (alpha * T^2 * KL + (1 - alpha) * CE),    or w_y * CE without a teacher
    w_c = (1 - beta) / (1 - beta^n_c), scaled so that the weights of all C classes sum to C

n_c is the number of training examples of class c. beta = 0 gives all classes the same weight. With
beta near 1 the weights are near 1 / n_c. The formula and the default of beta are the authors'. The
use with distillation is our reading.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._groups import class_counts, effective_weights
from kdplatform.methods._rows import DistilledRows, RowMethod, weighted
from kdplatform.settings.schema import MethodConfig


class WithoutTeacher(MethodConfig):
    """How strongly rare classes count."""

    method: Literal["class_balanced"] = Field("class_balanced", description="method")
    beta: float = Field(
        0.9999,
        ge=0,
        lt=1,
        description="0 weighs all classes equally; near 1, by 1 / examples of the class",
    )


class Config(WithoutTeacher, DistilledRows):
    """The fields of `WithoutTeacher` and of plain distillation."""


class ClassBalanced(RowMethod[WithoutTeacher]):
    """The rows of rare classes count more."""

    def begin(self, run: Run) -> None:
        """Computes the weights of the classes from their training examples."""
        weights = effective_weights(class_counts(run.split), self.config.beta)
        self.class_weights = weights * len(weights) / weights.sum()

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`, or none."""
        return weighted(self.usual(batch, run), self.class_weights[batch.labels])
