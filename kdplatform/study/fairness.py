"""Group fairness of a whole study: intervals, differences between arms, what parity would give."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdplatform.analysis.bootstrap import FairnessBootstrap, bootstrap_fairness
from kdplatform.analysis.group_fairness import FairnessMetrics, fairness_metrics
from kdplatform.analysis.intervals import UNKNOWN, Interval
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.tables import Attribute, attribute_name
from kdplatform.predictions import FloatArray, Predictions
from kdplatform.study.study import TEACHER, Arm, Study

HIGHER_IS_FAIRER = frozenset({"worst_group_accuracy"})


@dataclass(frozen=True)
class Effort:
    """How much is drawn at random.

    Attributes:
        draws: bootstrap draws.
        permutations: permutations of the groups.
    """

    draws: int = 10_000
    permutations: int = 1_000

    def for_attribute(self, attribute: Attribute) -> "Effort":
        """Intersections have many small groups and cost more; they get a tenth."""
        if isinstance(attribute, str):
            return self
        return Effort(max(2, self.draws // 10), max(1, self.permutations // 10))


@dataclass(frozen=True)
class Change:
    """A fairness metric of one arm, or of several averaged, against a reference.

    A metric that is a largest difference has a chance level that falls with a model's error rate,
    so that a more accurate model looks fairer: a verdict needs the interval to exclude 0 both as it
    is and without the difference of the chance levels.

    Attributes:
        chance: by how much the chance level of the metric differs; 0 where it has none.
        levelling_down: the metric improves while every group's accuracy falls.
        seeds: the seeds both have, where they are known.
    """

    interval: Interval
    chance: float
    levelling_down: bool
    seeds: tuple[int, ...] = ()


class Parity(NamedTuple):
    """The permutation null: mean of the metric, and the p-value of the observed one."""

    mean: float
    p_value: float


class GroupFairness:
    """The arms of a study compared for one attribute.

    Arms are bootstrapped with all their seeds for their own intervals, and with the seeds they
    share for their differences, so that seed i is always held against seed i.
    """

    def __init__(self, study: Study, attribute: Attribute, effort: Effort) -> None:
        self.study = study
        self.attribute = attribute
        self._size = study.min_group_size
        self.name = attribute_name(attribute)
        self.effort = effort.for_attribute(attribute)
        truth = replace(study.any_table, predictions=study.any_table.labels)
        self.labels: FairnessMetrics = fairness_metrics(truth, attribute, min_group_size=self._size)
        self._by_seeds: dict[tuple[int, ...], FairnessBootstrap] = {}
        self.null = parity_null(
            {study.names[arm]: study.tables(arm) for arm in study.arms},
            attribute,
            permutations=self.effort.permutations,
            min_group_size=self._size,
        )

    def interval(self, arm: Arm, metric: str) -> Interval:
        """A metric of an arm with its interval over examples and seeds."""
        return self._bootstrap(self.study.seeds(arm)).interval(self.study.names[arm], metric)

    def change(self, arms: Sequence[Arm], reference: Arm, metric: str) -> Change:
        """The mean of a metric over arms minus that of the reference, on the seeds all share."""
        seeds = self._shared_seeds([*arms, reference])
        if not seeds:
            return Change(UNKNOWN, np.nan, False)
        names = [self.study.names[arm] for arm in arms]
        found = change_between(
            self._bootstrap(seeds), self.null, names, self.study.names[reference], metric
        )
        if len(seeds) == 1:
            found = replace(found, interval=found.interval._replace(low=np.nan, high=np.nan))
        return replace(found, seeds=seeds)

    def parity(self, arm: Arm, metric: str) -> Parity:
        """What a metric of an arm would be if groups did not matter."""
        return _parity(self.null, self.study.names[arm], metric)

    def _shared_seeds(self, arms: Sequence[Arm]) -> tuple[int, ...]:
        own = [
            set(self.study.seeds(arm))
            for arm in arms
            if arm != TEACHER or self.study.shared_teacher is None
        ]
        return tuple(sorted(set.intersection(*own))) if own else ()

    def _bootstrap(self, seeds: tuple[int, ...]) -> FairnessBootstrap:
        """All arms that have these seeds, resampled together."""
        if seeds not in self._by_seeds:
            self._by_seeds[seeds] = bootstrap_fairness(
                self._arms_with(seeds),
                self.attribute,
                draws=self.effort.draws,
                min_group_size=self._size,
            )
        return self._by_seeds[seeds]

    def _arms_with(self, seeds: tuple[int, ...]) -> Mapping[str, list[Predictions]]:
        study, found = self.study, dict[str, list[Predictions]]()
        for arm in study.arms:
            alone = arm == TEACHER and study.shared_teacher is not None
            if alone or set(seeds) <= set(study.seeds(arm)):
                found[study.names[arm]] = study.tables(arm, seeds)
        return found


def change_between(
    bootstrap: FairnessBootstrap,
    null: pd.DataFrame,
    arms: Sequence[str],
    reference: str,
    metric: str,
) -> Change:
    """The mean of a metric over arms minus that of a reference, with its paired interval.

    Args:
        null: `parity.parity_null` of the same arms and attribute.
    """
    weights = {arm: 1 / len(arms) for arm in arms}
    weights[reference] = weights.get(reference, 0.0) - 1.0
    interval = bootstrap.contrast(weights, metric)
    chance = 0.0
    if metric not in HIGHER_IS_FAIRER:
        chance = float(np.mean([_parity(null, arm, metric).mean for arm in arms]))
        chance -= _parity(null, reference, metric).mean
    improves = interval.estimate > 0 if metric in HIGHER_IS_FAIRER else interval.estimate < 0
    return Change(interval, chance, improves and _all_fall(bootstrap, arms, reference))


def _parity(null: pd.DataFrame, arm: str, metric: str) -> Parity:
    chosen = null[(null["arm"] == arm) & (null["metric"] == metric)]
    return Parity(float(chosen["null_mean"].iloc[0]), float(chosen["p_value"].iloc[0]))


def _all_fall(bootstrap: FairnessBootstrap, arms: Sequence[str], reference: str) -> bool:
    """Whether the accuracy of every group that is measured is lower than the reference's."""
    accuracy: FloatArray = np.mean([bootstrap.group_accuracy[arm] for arm in arms], axis=0)
    held_against = bootstrap.group_accuracy[reference]
    return bool(np.all(accuracy[np.isfinite(accuracy)] < held_against[np.isfinite(accuracy)]))
