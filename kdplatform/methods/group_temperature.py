"""Distillation with a separate temperature for each group.

    alpha * T_g^2 * KL(teacher || student at T_g) + (1 - alpha) * CE
    T_g = temperature * (mean size of the groups / size of group g)^power

A group smaller than the mean gets a higher temperature if power is positive, and a lower one if it
is negative. Power 0, or groups of equal size, is `kd`. `group_temperatures` sets the temperature of
single groups (`red=2,blue=8`). Rows in no group have `temperature`. The idea is that temperature
changes the fairness between groups (Mohammadshahi and Ioannou, TMLR 2025). Formula and defaults are
ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from kdplatform.errors import UserError, unknown_name
from kdplatform.lazy import functional
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._groups import GroupedConfig, check_groups, groups_of
from kdplatform.methods._rows import DistilledRows
from kdplatform.methods._terms import usual_loss
from kdplatform.settings.schema import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE, Names

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.data import Dataset, Split


class Config(DistilledRows, GroupedConfig):
    """How the temperature depends on the group."""

    method: Literal["group_temperature"] = Field("group_temperature", description="method")
    power: float = Field(
        0.5,
        ge=-2,
        le=2,
        description="0: one temperature; above 0, small groups have a higher temperature; "
        "below 0, a lower one",
    )
    group_temperatures: Names = Field(
        (), description="temperatures of groups, such as red=2,blue=8, in place of power"
    )

    @field_validator("group_temperatures")
    @classmethod
    def _each_is_a_temperature(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for part in value:
            try:
                number = float(part.rpartition("=")[2])
            except ValueError:
                number = 0.0
            if "=" not in part or not LOWEST_TEMPERATURE <= number <= HIGHEST_TEMPERATURE:
                raise ValueError(f"{part!r} is no group=temperature, from 0.000001 to 1000000")
        return value


class GroupTemperature(Method[Config]):
    """Plain distillation at the temperature of each row's group."""

    needs = Needs(teacher="logits")
    rebuilt = frozenset({"groups"})

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups, and temperatures of unknown groups."""
        check_groups(self.config, dataset)
        self._temperatures(dataset.train)

    def begin(self, run: Run) -> None:
        """Finds the temperature of every group."""
        self.groups = groups_of(run.split, self.config.attribute).of(run.split)
        # The last one is for group -1: rows in no group.
        self.per_group = functional.pad(
            self._temperatures(run.split), (0, 1), value=self.config.temperature
        )

    def _temperatures(self, train: Split) -> Tensor:
        config, groups = self.config, groups_of(train, self.config.attribute)
        sizes = groups.sizes.double()
        own: Tensor = config.temperature * (sizes.mean() / sizes) ** config.power
        for part in config.group_temperatures:
            name, _, number = part.rpartition("=")
            if name not in groups.names:
                raise unknown_name("distillation.group_temperatures", name, groups.names)
            own[groups.names.index(name)] = float(number)
        allowed = (own >= LOWEST_TEMPERATURE) & (own <= HIGHEST_TEMPERATURE)
        if not bool(allowed.all()):
            worst = int((~allowed).nonzero()[0])
            raise UserError(
                f"distillation.power={config.power:g} gives group {groups.names[worst]!r} the "
                f"temperature {own[worst]:g}; allowed: 0.000001 to 1000000"
            )
        return own

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`."""
        return usual_loss(
            batch,
            run,
            temperature=self.per_group[self.groups[batch.rows]],
            alpha=self.config.alpha,
        )
