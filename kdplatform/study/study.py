"""A study: the models of its arms by seed, on the same test examples, and one frame of metrics.

Everything here is computed from predictions. The caller decides where they come from.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdplatform.analysis.group_cells import Cells, cells_of
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.tables import Attribute
from kdplatform.predictions import FloatArray, Predictions, Table
from kdplatform.roles import Role
from kdplatform.study.metrics import (
    REFERENCES,
    Similarity,
    class_shift,
    compared_metrics,
    individual_metrics,
    pair_metrics,
    score_metrics,
)
from kdplatform.study.ranking import Ranked, ranking_metrics
from kdplatform.text import visible


@dataclass(frozen=True)
class Arm:
    """A role; for distilled students also the method, and its settings that the study varies.

    Attributes:
        method: None for Teacher and NDS.
        settings: name and value of the settings that the study varies, such as the temperature.
    """

    role: Role
    method: str | None = None
    settings: tuple[tuple[str, object], ...] = ()

    @property
    def temperature(self) -> float | None:
        """The temperature, if the study varies it."""
        value = dict(self.settings).get("temperature")
        return None if value is None else float(str(value))

    def title(self, *, with_method: bool = False) -> str:
        """The arm in words, such as `DS T=4` or `DS kd T=4`."""
        method = [self.method] if with_method and self.method else []
        if member := dict(self.settings).get(MEMBER):
            return f"{self.role.label} {member}"
        settings = [f"{_SHORT.get(name, name)}={_word(value)}" for name, value in self.settings]
        return " ".join([self.role.label, *method, *settings])


# The setting that distinguishes several teachers of one student.
MEMBER = "teacher"
TEACHER, NDS = Arm(Role.TEACHER), Arm(Role.STUDENT)
_SHORT = {"temperature": "T"}


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def distilled_arm(temperature: float, method: str = "kd") -> Arm:
    """Returns the arm of the students distilled at a temperature."""
    return Arm(Role.DISTILLED, method, (("temperature", float(temperature)),))


def temperature_of(arm: Arm) -> float:
    """Returns the temperature of an arm that is known to have one."""
    assert arm.temperature is not None
    return arm.temperature


@dataclass(frozen=True)
class Model:
    """One trained model of a study.

    Attributes:
        run_id: the run with its predictions.
        test: predictions of the test split, without the logits.
        scores: metrics that were measured on its logits, by name; empty without logits.
    """

    run_id: str
    test: Predictions
    scores: Mapping[str, float] = field(default_factory=dict)


def scored_model(
    run_id: str,
    test: Table,
    calibrating: float = float("nan"),
    similar: Similarity | None = None,
    ranked: Ranked | None = None,
) -> Model:
    """Measures all metrics that need a model's logits, and drops the logits.

    Args:
        calibrating: the temperature that calibrates the model on validation; NaN if it is not
            known.
        similar: the pairs of individual fairness; None if they are not known.
        ranked: the strata and groups of rankings of many classes; None: no ranking is measured.

    Raises:
        ValueError: the predictions are invalid.
    """
    checked = Predictions.of(test)
    scores = score_metrics(checked, calibrating) | individual_metrics(checked, similar, calibrating)
    scores |= ranking_metrics(checked, ranked or Ranked())
    return Model(run_id, replace(checked, logits=None), scores)


@dataclass(frozen=True)
class Study:
    """All models of a study, on the same test examples.

    Attributes:
        arms: by arm (Teacher, NDS, then DS in the order of the study) and seed.
        attributes: columns whose groups are compared, and intersections as tuples of columns.
        min_group_size: examples that a group needs to be measured.
        shared_teacher: the seed of the one teacher of all students; None if each has its own.
        missing: expected models that are missing, in words.
        left_out: runs that could not be used, with the reasons.
        settings: the training settings that a reader must know, by name.
        scale_by_t2: whether the distillation term was multiplied by T².
        space: feature space of I(f) in words; empty if there is none.
        pairs: number of pairs that I(f) was measured on.
    """

    name: str
    class_names: tuple[str, ...]
    arms: Mapping[Arm, Mapping[int, Model]]
    attributes: tuple[Attribute, ...] = ()
    min_group_size: int = MIN_GROUP_SIZE
    shared_teacher: int | None = None
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    scale_by_t2: bool = True
    space: str = ""
    pairs: int = 0

    def __post_init__(self) -> None:
        # Names are cleaned here, so that no sentence or table has one that breaks lines or steers a
        # terminal.
        object.__setattr__(self, "class_names", tuple(map(visible, self.class_names)))

    @cached_property
    def distilled(self) -> tuple[Arm, ...]:
        """The arms of the distilled students."""
        return tuple(arm for arm in self.arms if arm.role is Role.DISTILLED)

    @cached_property
    def has_several_methods(self) -> bool:
        """Whether there are students of several methods."""
        return len({arm.method for arm in self.distilled}) > 1

    @cached_property
    def names(self) -> Mapping[Arm, str]:
        """The arms in words, with their method if the study has several."""
        return {arm: arm.title(with_method=self.has_several_methods) for arm in self.arms}

    @cached_property
    def short_names(self) -> Mapping[Arm, str]:
        """The names of distilled arms on an axis: temperatures, if these distinguish the arms."""
        by_temperature = {arm: f"{arm.temperature:g}" for arm in self.distilled if arm.temperature}
        if not self.has_several_methods and len(set(by_temperature.values())) == len(
            self.distilled
        ):
            return by_temperature
        return {arm: self.names[arm].removeprefix("DS ") for arm in self.distilled}

    def seeds(self, arm: Arm) -> tuple[int, ...]:
        """The seeds of an arm."""
        return tuple(sorted(self.arms.get(arm, {})))

    @cached_property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the students."""
        return tuple(sorted({s for arm in (NDS, *self.distilled) for s in self.seeds(arm)}))

    def tables(self, arm: Arm, seeds: Iterable[int] | None = None) -> list[Predictions]:
        """The predictions of an arm: in order of the seeds, or of the given seeds.

        One teacher shared by all students is one table, whatever the seeds.
        """
        if seeds is None or (arm == TEACHER and self.shared_teacher is not None):
            seeds = self.seeds(arm)
        return [self.arms[arm][seed].test for seed in seeds]

    def reference(self, role: Role, seed: int) -> Model | None:
        """The teacher of the students of a seed, or the NDS of the seed, if it exists."""
        if role is Role.TEACHER and self.shared_teacher is not None:
            seed = self.shared_teacher
        return self.arms.get(Arm(role), {}).get(seed)

    def pairs_with(self, role: Role, arm: Arm) -> Iterator[tuple[Predictions, Predictions]]:
        """The predictions of a reference and of an arm, for every seed that both have."""
        for seed in self.seeds(arm):
            reference = self.reference(role, seed)
            if reference is not None:
                yield reference.test, self.arms[arm][seed].test

    @cached_property
    def any_table(self) -> Predictions:
        """Any table of the study, for the common ids, labels and attributes."""
        return next(iter(next(iter(self.arms.values())).values())).test

    @cached_property
    def cells(self) -> Cells | None:
        """The groups of the test examples that models are compared in; None without attributes."""
        return cells_of(self.any_table, self.attributes) if self.attributes else None

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per model: its arm and seed, and its metrics under the names that runs have."""
        rows = [
            {
                "arm": self.names[arm],
                "role": arm.role.value,
                "method": arm.method,
                "temperature": np.nan,
                **dict(arm.settings),
                "seed": seed,
                "run_id": model.run_id,
                **compared_metrics(model.test, self.attributes, self.min_group_size),
                **model.scores,
                **self._against_references(arm, seed, model),
            }
            for arm, models in self.arms.items()
            for seed, model in sorted(models.items())
        ]
        return pd.DataFrame(rows)

    def values(self, arm: Arm, metric: str) -> FloatArray:
        """A metric of one arm, one value per seed; empty if no model has it."""
        if metric not in self.metrics:
            return np.empty(0)
        chosen = self.metrics.loc[self.metrics["arm"] == self.names.get(arm), metric]
        return np.asarray(chosen.dropna(), dtype=float)

    def _against_references(self, arm: Arm, seed: int, model: Model) -> dict[str, float]:
        if arm.role is not Role.DISTILLED:
            return {}
        found: dict[str, float] = {}
        for role, name in REFERENCES.items():
            reference = self.reference(role, seed)
            if reference is not None:
                found |= pair_metrics(
                    role,
                    reference.test,
                    model.test,
                    len(self.class_names),
                    () if self.cells is None else self.cells,
                    self.min_group_size,
                )
                found[f"classwise/shift_{name}"] = class_shift(reference.test, model.test)
        return found


class Grid(NamedTuple):
    """Temperatures and seeds of which every combination exists."""

    temperatures: tuple[float, ...]
    seeds: tuple[int, ...]


def complete_grid(cells: Mapping[float, Iterable[int]]) -> Grid:
    """The gapless part of a study that is best for testing a trend.

    Args:
        cells: the seeds of every temperature.
    """
    seeds = {temperature: frozenset(own) for temperature, own in cells.items()}
    best = Grid((), ())
    for chosen in _intersections(seeds.values()):
        temperatures = tuple(sorted(t for t, own in seeds.items() if chosen <= own))
        best = max(best, Grid(temperatures, tuple(sorted(chosen))), key=_worth)
    return best


def _worth(grid: Grid) -> tuple[bool, int, int]:
    """Prefers grids on which a trend can be tested, then many runs, then many temperatures."""
    temperatures, seeds = len(grid.temperatures), len(grid.seeds)
    return temperatures >= 3 and seeds >= 2, temperatures * seeds, temperatures


def _intersections(sets: Iterable[frozenset[int]]) -> Iterator[frozenset[int]]:
    """All intersections of some of the sets; they are few, as most sets are equal."""
    found: set[frozenset[int]] = set()
    for each in sorted(set(sets), key=sorted):
        found |= {each, *(each & other for other in found)}
    return iter(sorted((each for each in found if each), key=lambda s: (-len(s), sorted(s))))
