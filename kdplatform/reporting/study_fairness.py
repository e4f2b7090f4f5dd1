"""Group fairness of a whole study: intervals, differences between arms, what parity would give."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdplatform.analysis.bootstrap import FairnessBootstrap, Interval, bootstrap_fairness
from kdplatform.analysis.group_fairness import FairnessMetrics, fairness_metrics
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.tables import Attribute, FloatArray, attribute_name
from kdplatform.reporting.study import Arm, Study


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

    Attributes:
        chance: by how much the chance level of the metric differs, which falls as errors get rarer.
        levelling_down: the metric improves while every group's accuracy falls.
        seeds: the seeds both have.
    """

    interval: Interval
    chance: float
    levelling_down: bool
    seeds: tuple[int, ...]


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
        self.name = attribute_name(attribute)
        self.effort = effort.for_attribute(attribute)
        self.labels: FairnessMetrics = fairness_metrics(
            study.any_table.assign(prediction=study.any_table["label"]), attribute
        )
        self._by_seeds: dict[tuple[int, ...], FairnessBootstrap] = {}
        self.null = parity_null(
            {arm.name: study.tables(arm) for arm in study.arms},
            attribute,
            permutations=self.effort.permutations,
        )

    def interval(self, arm: Arm, metric: str) -> Interval:
        """A metric of an arm with its interval over examples and seeds."""
        return self._bootstrap(self.study.seeds(arm)).interval(arm.name, metric)

    def change(self, arms: Sequence[Arm], reference: Arm, metric: str) -> Change:
        """The mean of a metric over arms minus that of the reference, on the seeds all share."""
        seeds = self._shared_seeds([*arms, reference])
        if not seeds:
            return Change(Interval(np.nan, np.nan, np.nan), np.nan, False, ())
        bootstrap = self._bootstrap(seeds)
        weights = {arm.name: 1 / len(arms) for arm in arms}
        weights[reference.name] = weights.get(reference.name, 0.0) - 1.0
        interval = bootstrap.contrast(weights, metric)
        if len(seeds) == 1:
            interval = interval._replace(low=np.nan, high=np.nan)
        chance = float(np.mean([self.parity(arm, metric).mean for arm in arms]))
        chance -= self.parity(reference, metric).mean
        falls = interval.estimate < 0 and _all_fall(bootstrap, arms, reference)
        return Change(interval, chance, falls, seeds)

    def parity(self, arm: Arm, metric: str) -> Parity:
        """What a metric of an arm would be if groups did not matter."""
        chosen = self.null[(self.null["arm"] == arm.name) & (self.null["metric"] == metric)]
        return Parity(float(chosen["null_mean"].iloc[0]), float(chosen["p_value"].iloc[0]))

    def _shared_seeds(self, arms: Sequence[Arm]) -> tuple[int, ...]:
        own = [
            set(self.study.seeds(arm))
            for arm in arms
            if arm != self.study.teacher or self.study.shared_teacher is None
        ]
        return tuple(sorted(set.intersection(*own))) if own else ()

    def _bootstrap(self, seeds: tuple[int, ...]) -> FairnessBootstrap:
        """All arms that have these seeds, resampled together."""
        if seeds not in self._by_seeds:
            self._by_seeds[seeds] = bootstrap_fairness(
                self._arms_with(seeds), self.attribute, draws=self.effort.draws
            )
        return self._by_seeds[seeds]

    def _arms_with(self, seeds: tuple[int, ...]) -> Mapping[str, list[pd.DataFrame]]:
        study, found = self.study, defaultdict[str, list[pd.DataFrame]](list)
        for arm in study.arms:
            alone = arm == study.teacher and study.shared_teacher is not None
            if alone or set(seeds) <= set(study.seeds(arm)):
                found[arm.name] = study.tables(arm, seeds)
        return found


def _all_fall(bootstrap: FairnessBootstrap, arms: Sequence[Arm], reference: Arm) -> bool:
    """Whether every group's accuracy is lower than the reference's."""
    accuracy: FloatArray = np.mean([bootstrap.group_accuracy[arm.name] for arm in arms], axis=0)
    return bool(np.all(accuracy < bootstrap.group_accuracy[reference.name]))
