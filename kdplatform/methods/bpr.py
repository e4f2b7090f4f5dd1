"""Bayesian personalised ranking (Rendle et al. 2009, arXiv 1205.2618).

    mean over negatives j of softplus(z_j - z_label)

A negative is a class that the row's user has not taken. All negatives are equally likely. On data
without users a negative is any class except the label. The authors' L2 term is the optimiser's
weight decay here. `label_smoothing` smooths the choice between the label and a negative, which is
our addition.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdplatform.methods import Batch, Loss, Method, Run
from kdplatform.methods._pairs import Negatives, order_rows
from kdplatform.settings.schema import MethodConfig


class Config(MethodConfig):
    """The number of negatives to compare each example with."""

    method: Literal["bpr"] = Field("bpr", description="method")
    negatives: int = Field(
        1, ge=1, le=1000, description="number of other classes that each label is compared with"
    )


class BayesianPersonalisedRanking(Method[Config]):
    """Ranks the label before classes that the user has not taken."""

    def begin(self, run: Run) -> None:
        """Lists the items that each user has not taken."""
        self._negatives = Negatives(run.split)

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row."""
        student = run.student(batch.inputs)
        classes = student.logits.shape[1]
        pairs = self._negatives.against_labels(batch, run, classes, self.config.negatives)
        [rows] = order_rows(student.logits, pairs, smoothing=run.config.label_smoothing)
        return Loss(rows, student, {})
