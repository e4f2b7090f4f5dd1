"""Distributionally robust distillation by groups: GroupDistil (2023, arXiv 2311.00476).

    sum_g u_g * L_g,    u_g <- u_g * exp(step_size * L_g), scaled to sum 1, at every step

L_g is the mean of the group's rows in the batch, each alpha * T^2 * KL + (1 - alpha) * CE. Without
a teacher a row is CE (Sagawa et al., ICLR 2020, arXiv 1911.08731, whose update this is). A group
that is not in the batch has L_g = 0. step_size 0 gives all groups the same weight; with a large one
only the worst group counts. Rows in no group keep weight 1, and those in groups share the weight of
as many rows.

The idea is the abstract's of GroupDistil; the formula is our reading, with alpha = 1 nearest to it.
The default of step_size is Sagawa's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform.lazy import torch
from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._groups import GroupedConfig, check_groups, groups_of
from kdplatform.methods._rows import DistilledRows, RowMethod, weighted

if TYPE_CHECKING:
    from kdplatform.data import Dataset


class WithoutTeacher(GroupedConfig):
    """Whose groups count, and how fast the weight moves to the worst of them."""

    method: Literal["group_dro"] = Field("group_dro", description="method")
    step_size: float = Field(0.01, ge=0, description="step size of the groups' weights")


class Config(WithoutTeacher, DistilledRows):
    """The same with the fields of distillation."""


class GroupDRO(RowMethod[WithoutTeacher]):
    """The groups that are worst off count most."""

    rebuilt = frozenset({"groups"})

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups."""
        check_groups(self.config, dataset)

    def begin(self, run: Run) -> None:
        """Weighs all groups alike."""
        groups = groups_of(run.split, self.config.attribute)
        self.groups = groups.of(run.split)
        # As logarithms: an exponential of many steps' losses would overflow.
        self.log_weights = torch.zeros(len(groups.names), dtype=torch.float64).log_softmax(0)
        self.updated = self.log_weights

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`, or none."""
        loss = self.usual(batch, run)
        own = self.groups[batch.rows]
        inside = own >= 0
        groups = own.clamp(min=0)
        zeros = torch.zeros_like(self.log_weights)
        counts = zeros.index_add(0, groups, inside.double()).clamp(min=1)
        rows = torch.where(inside, loss.rows.detach().double(), 0.0)
        means = zeros.index_add(0, groups, rows) / counts
        self.updated = (self.log_weights + self.config.step_size * means).log_softmax(0)
        shares = self.updated.exp()[groups] * inside.sum() / counts[groups]
        return weighted(loss, torch.where(inside, shares, 1.0))

    def after_step(self, run: Run) -> None:
        """Keeps the weights that the step was made with."""
        self.log_weights = self.updated
