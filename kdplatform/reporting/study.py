"""A study as a report sees it: prediction tables by arm and seed, and what follows for each model.

An arm is a role at one temperature: Teacher, NDS, DS at T. Everything here is made from prediction
tables; where they come from is the caller's business.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdplatform.analysis.calibration import calibration
from kdplatform.analysis.classwise import class_table, worst_class
from kdplatform.analysis.disagreement import disagreement
from kdplatform.analysis.group_fairness import METRICS, fairness_metrics
from kdplatform.analysis.individual_fairness import (
    Neighbours,
    Pairs,
    consistency,
    individual_unfairness,
)
from kdplatform.analysis.significance import mcnemar_by_class
from kdplatform.analysis.tables import (
    Attribute,
    FloatArray,
    attribute_name,
    quotient,
)

TEACHER, NDS, DS = "Teacher", "NDS", "DS"
REFERENCES = {TEACHER: "tc", NDS: "sc"}


@dataclass(frozen=True, order=True)
class Arm:
    """A role, at one temperature when it is DS."""

    role: str
    temperature: float | None = None

    @property
    def name(self) -> str:
        """The arm in words, such as `DS T=4`."""
        return self.role if self.temperature is None else f"{self.role} T={self.temperature:g}"


@dataclass(frozen=True)
class Model:
    """One trained model of a study.

    Attributes:
        run: where its predictions come from.
        table: prediction table of the test split; logits are not needed any more.
        scores: what was measured on its logits, by name; empty when there are none.
    """

    run: str
    table: pd.DataFrame
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Study:
    """All models of a study, on the same test examples.

    Attributes:
        arms: by arm (Teacher, NDS, then DS by rising temperature) and seed.
        attributes: columns whose groups are compared, and intersections as tuples of columns.
        shared_teacher: the seed of the one teacher of all students, None when each has its own.
        missing: expected models that are not there, in words.
        left_out: runs that could not be used, with the reason.
        settings: what the study's reader must know of how models were trained, by name.
        scale_by_t2: whether the distillation term was multiplied by T².
        space: feature space of I(f) in words, empty when there is none.
        pairs: number of pairs I(f) was measured on.
    """

    name: str
    class_names: tuple[str, ...]
    arms: Mapping[Arm, Mapping[int, Model]]
    attributes: tuple[Attribute, ...] = ()
    shared_teacher: int | None = None
    missing: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    scale_by_t2: bool = True
    space: str = ""
    pairs: int = 0

    @property
    def teacher(self) -> Arm:
        """The teachers' arm."""
        return Arm(TEACHER)

    @property
    def nds(self) -> Arm:
        """The arm of the students without a teacher."""
        return Arm(NDS)

    @cached_property
    def distilled(self) -> tuple[Arm, ...]:
        """The arms of the distilled students, by rising temperature."""
        return tuple(arm for arm in self.arms if arm.role == DS)

    def seeds(self, arm: Arm) -> tuple[int, ...]:
        """The seeds an arm has."""
        return tuple(sorted(self.arms.get(arm, {})))

    @cached_property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds of the students."""
        return tuple(sorted({s for arm in (self.nds, *self.distilled) for s in self.seeds(arm)}))

    def tables(self, arm: Arm, seeds: Iterable[int] | None = None) -> list[pd.DataFrame]:
        """The prediction tables of an arm, by rising seed or of the seeds given.

        One teacher shared by all students is one table, whatever the seeds.
        """
        if seeds is None or (arm == self.teacher and self.shared_teacher is not None):
            seeds = self.seeds(arm)
        return [self.arms[arm][seed].table for seed in seeds]

    def reference(self, role: str, seed: int) -> Model | None:
        """The teacher of the students of a seed, or the NDS of the seed, if it is there."""
        if role == TEACHER and self.shared_teacher is not None:
            seed = self.shared_teacher
        return self.arms.get(Arm(role), {}).get(seed)

    @cached_property
    def any_table(self) -> pd.DataFrame:
        """A table of the study, for what all of them share: ids, labels, attributes."""
        return next(iter(next(iter(self.arms.values())).values())).table

    @cached_property
    def examples(self) -> int:
        """Number of test examples."""
        return len(self.any_table)

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per model: its arm and seed, and every number derived from it alone."""
        rows = [
            {
                "arm": arm.name,
                "role": arm.role,
                "temperature": np.nan if arm.temperature is None else arm.temperature,
                "seed": seed,
                "run": model.run,
                **_own_metrics(model, self.attributes),
                **self._against_references(arm, seed, model),
            }
            for arm, models in self.arms.items()
            for seed, model in sorted(models.items())
        ]
        return pd.DataFrame(rows)

    def values(self, arm: Arm, column: str) -> FloatArray:
        """A column of `runs` for one arm, one value per seed; empty when nothing has it."""
        if column not in self.runs:
            return np.empty(0)
        chosen = self.runs.loc[self.runs["arm"] == arm.name, column]
        return np.asarray(chosen.dropna(), dtype=float)

    def _against_references(self, arm: Arm, seed: int, model: Model) -> dict[str, float]:
        if arm.role != DS:
            return {}
        found: dict[str, float] = {}
        for role, name in REFERENCES.items():
            reference = self.reference(role, seed)
            if reference is None:
                continue
            classes = len(self.class_names)
            pair = mcnemar_by_class(reference.table, model.table, n_classes=classes)
            found |= {
                f"n_{name}_mcnemar": float(pair["significant"].sum()),
                f"class_shift_{name}": class_shift(reference.table, model.table),
                f"disagreement_{name}": disagreement(reference.table, model.table),
            }
        return found


def class_shift(reference: pd.DataFrame, table: pd.DataFrame) -> float:
    """How far the class accuracies of two models lie apart, beyond their overall accuracy.

    Mean over classes of |acc_c(f) / acc(f) - acc_c(g) / acc(g)|: the difference whose being 0 the
    paper's test of every class asks about. NaN when a model is never right.
    """
    relative = []
    for each in (reference, table):
        by_class = class_table(each)
        present = by_class["n"] > 0
        accuracy = float((each["label"].to_numpy() == each["prediction"].to_numpy()).mean())
        relative.append(quotient(by_class["accuracy"][present].to_numpy(), accuracy))
    return float(np.mean(np.abs(relative[1] - relative[0])))


def _own_metrics(model: Model, attributes: Sequence[Attribute]) -> dict[str, float]:
    table = model.table
    right = table["label"].to_numpy() == table["prediction"].to_numpy()
    metrics = {
        "accuracy": float(right.mean()),
        "worst_class_accuracy": worst_class(table).accuracy,
        **model.scores,
    }
    for attribute in attributes:
        measured = fairness_metrics(table, attribute)
        name = attribute_name(attribute)
        metrics |= {f"{name}/{metric}": getattr(measured, metric) for metric in METRICS}
    return metrics


def build_model(
    run: str,
    table: pd.DataFrame,
    calibrating: float = float("nan"),
    measured_on: tuple[Pairs, Neighbours] | None = None,
) -> Model:
    """Measures what needs a model's logits, and lets go of them.

    Args:
        run: where the predictions come from.
        table: prediction table of the test split, with or without logits.
        calibrating: the temperature that calibrates the model on validation; NaN when not known.
        measured_on: pairs and neighbours of the feature space of individual fairness.

    Raises:
        ValueError: the table is invalid, or its logits are.
    """
    scores: dict[str, float] = {}
    calibrated = np.isfinite(calibrating)
    if "logits" in table.columns:
        plain = calibration(table)
        scores |= {"ece": plain.ece, "brier": plain.brier, "nll": plain.nll}
        if calibrated:
            scores["calibrating_temperature"] = calibrating
            scores["ece_calibrated"] = calibration(table, temperature=calibrating).ece
    if measured_on is not None:
        pairs, neighbours = measured_on
        scores["unfairness_labels"] = individual_unfairness(
            table, pairs, output="labels"
        ).unfairness
        scores["consistency"] = consistency(table, neighbours)
        if "logits" in table.columns:
            scores["unfairness"] = individual_unfairness(table, pairs).unfairness
            if calibrated:
                scores["unfairness_calibrated"] = individual_unfairness(
                    table, pairs, temperature=calibrating
                ).unfairness
    return Model(run, table.drop(columns="logits", errors="ignore"), scores)


class Grid(NamedTuple):
    """Temperatures and seeds of which every combination is there."""

    temperatures: tuple[float, ...]
    seeds: tuple[int, ...]


def complete_grid(cells: Mapping[float, Iterable[int]]) -> Grid:
    """The part of a study without gaps that is best to test a trend on.

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
    """Prefers what a trend can be tested on, then many runs, then many temperatures."""
    temperatures, seeds = len(grid.temperatures), len(grid.seeds)
    return temperatures >= 3 and seeds >= 2, temperatures * seeds, temperatures


def _intersections(sets: Iterable[frozenset[int]]) -> Iterator[frozenset[int]]:
    """All sets that arise by intersecting some of them; they are few, as most are equal."""
    found: set[frozenset[int]] = set()
    for each in sorted(set(sets), key=sorted):
        found |= {each, *(each & other for other in found)}
    return iter(sorted((each for each in found if each), key=lambda s: (-len(s), sorted(s))))
