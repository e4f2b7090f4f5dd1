"""Training rows drawn so that all groups come equally often (Idrissi et al. 2022, SUBG and RWG).

An epoch draws as many rows as there are, with replacement. Each draw chooses a group and then a row
of this group, all equally likely. The loss of a row is the usual one: alpha * T^2 * KL + (1 -
alpha) * CE, or CE without a teacher. The default groups are those of class and attribute together,
as in RWG of arXiv 2110.14503 ("Simple data balancing achieves competitive worst-group-accuracy";
our reading). A row in no group is drawn as often as a row of a group of mean size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._groups import (
    BY_CLASS_AUTO,
    GroupedConfig,
    check_groups,
    group_shares,
    groups_of,
)
from kdplatform.methods._rows import DistilledRows, RowMethod

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.data import Dataset


class WithoutTeacher(GroupedConfig):
    """The groups that are drawn equally often."""

    method: Literal["group_balanced"] = Field("group_balanced", description="method")
    attribute: str = Field(
        BY_CLASS_AUTO,
        description="groups of this attribute; label*A: of class and A together; "
        "A auto: the project's first attribute; label: the classes",
    )


class Config(WithoutTeacher, DistilledRows):
    """The fields of `WithoutTeacher` and of plain distillation."""


class GroupBalanced(RowMethod[WithoutTeacher]):
    """Draws rows so that all groups are seen equally often."""

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups."""
        check_groups(self.config, dataset)

    def row_shares(self, run: Run) -> Tensor:
        """Returns each training row's share of the draws: float64 [N]."""
        return group_shares(groups_of(run.split, self.config.attribute).of(run.split))

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the usual loss of each row; parts are `kl` and `ce`, or none."""
        return self.usual(batch, run)
