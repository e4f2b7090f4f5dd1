"""Distributionally robust distillation by groups: GroupDistil (2023, arXiv 2311.00476).

    sum_g u_g * L_g,    u_g <- u_g * exp(step_size * L_g), scaled to sum 1, at every step

L_g is the mean loss of the group's rows in the batch, each alpha * T^2 * KL + (1 - alpha) * CE.
Without a teacher the loss of a row is CE. The update is that of Sagawa et al., ICLR 2020, arXiv
1911.08731. A group that is not in the batch has L_g = 0. step_size 0 gives all groups the same
weight. With a large step_size only the worst group counts. Rows in no group keep weight 1. The
weights of the rows in groups sum to the number of these rows.

The idea is from the abstract of GroupDistil. The formula is our reading, and alpha = 1 is nearest
to the abstract. The default of step_size is Sagawa's.
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
    """The groups, and how fast the weight moves to the worst of them."""

    method: Literal["group_dro"] = Field("group_dro", description="method")
    step_size: float = Field(0.01, ge=0, description="step size of the groups' weights")


class Config(WithoutTeacher, DistilledRows):
    """The fields of `WithoutTeacher` and of plain distillation."""


class GroupDRO(RowMethod[WithoutTeacher]):
    """Gives the groups with the highest losses the most weight."""

    rebuilt = frozenset({"groups"})

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups."""
        check_groups(self.config, dataset)

    def begin(self, run: Run) -> None:
        """Gives all groups the same weight."""
        groups = groups_of(run.split, self.config.attribute)
        self.groups = groups.of(run.split)
        # Logarithms are kept, because the exponential of many steps' losses would overflow.
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
        """Stores the weights that the step used."""
        self.log_weights = self.updated
