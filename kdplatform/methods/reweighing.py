"""Reweighing: Kamiran and Calders, Knowledge and Information Systems 33 (2012).

    w_i * (alpha * T^2 * KL + (1 - alpha) * CE),    or w_i * CE without a teacher
    w_i = P(a_i) * P(y_i) / P(a_i, y_i)

a is the group and y the class of an example. The probabilities are shares of the training examples
that are in a group. Under these weights group and class are independent. The mean weight is 1 if
every group has every class. An example in no group has weight 1.

The weight is the authors'. Its use with distillation is our reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform.columns import is_label
from kdplatform.errors import UserError
from kdplatform.lazy import functional
from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._groups import CLASSES, GroupedConfig, check_groups, groups_of
from kdplatform.methods._rows import DistilledRows, RowMethod, weighted

if TYPE_CHECKING:
    from kdplatform.data import Dataset


class WithoutTeacher(GroupedConfig):
    """The groups that are made independent of the class."""

    method: Literal["reweighing"] = Field("reweighing", description="method")


class Config(WithoutTeacher, DistilledRows):
    """The fields of `WithoutTeacher` and of plain distillation."""


class Reweighing(RowMethod[WithoutTeacher]):
    """Weights rows as if group and class were independent."""

    rebuilt = frozenset({"groups"})

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups, and groups that are the classes."""
        check_groups(self.config, dataset)
        attribute, train = self.config.attribute, dataset.train
        if attribute == CLASSES or is_label(train.columns[attribute], train.labels.numpy()):
            raise UserError(
                f"attribute={attribute!r} is the class in the training split, and "
                "method='reweighing' makes groups independent of it; allowed: attributes whose "
                "groups hold several classes"
            )

    def begin(self, run: Run) -> None:
        """Counts the classes of every group."""
        groups = groups_of(run.split, self.config.attribute)
        self.groups = groups.of(run.split)
        inside = self.groups >= 0
        classes = int(run.split.labels.max()) + 1
        cells = (self.groups * classes + run.split.labels)[inside].bincount(
            minlength=len(groups.names) * classes
        )
        counts = cells.view(len(groups.names), classes).double()
        weights = counts.sum(1, keepdim=True) * counts.sum(0) / (counts.sum() * counts.clamp(min=1))
        # The last row is for group -1: examples in no group.
        self.cell_weights = functional.pad(weights, (0, 0, 0, 1), value=1.0)

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`, or none."""
        weights = self.cell_weights[self.groups[batch.rows], batch.labels]
        return weighted(self.usual(batch, run), weights)
