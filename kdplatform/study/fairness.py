"""Group fairness of a whole study: intervals, differences between arms, and parity levels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from kdplatform.analysis.bootstrap import FairnessBootstrap, bootstrap_fairness
from kdplatform.analysis.group_fairness import FairnessMetrics, fairness_metrics
from kdplatform.analysis.intervals import UNKNOWN, Interval
from kdplatform.analysis.parity import null_row, parity_null
from kdplatform.analysis.tables import Attribute, attribute_name
from kdplatform.analysis.verdict import HIGHER_IS_FAIRER as HIGHER_IS_FAIRER
from kdplatform.analysis.verdict import Change as Change
from kdplatform.predictions import Predictions
from kdplatform.study.study import TEACHER, Arm, Study


@dataclass(frozen=True)
class Effort:
    """The numbers of random draws.

    Attributes:
        draws: bootstrap draws.
        permutations: permutations of the groups.
    """

    draws: int = 10_000
    permutations: int = 1_000

    def for_attribute(self, attribute: Attribute) -> "Effort":
        """Intersections get a tenth of the draws, because their many small groups cost more."""
        if isinstance(attribute, str):
            return self
        return Effort(max(2, self.draws // 10), max(1, self.permutations // 10))


class Parity(NamedTuple):
    """The permutation null: mean of the metric, and the p-value of the observed one."""

    mean: float
    p_value: float


class GroupFairness:
    """The arms of a study compared for one attribute.

    Arms are bootstrapped with all their seeds for their own intervals, and with the seeds they
    share for their differences, so that seed i is always compared with seed i.
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
        """The mean of a metric over arms minus that of the reference, on their common seeds."""
        seeds = self._shared_seeds([*arms, reference])
        if not seeds:
            return Change(UNKNOWN, np.nan, False)
        names = [self.study.names[arm] for arm in arms]
        reference_name = self.study.names[reference]
        found = self._bootstrap(seeds).change(names, reference_name, metric, self.null)
        if len(seeds) == 1:
            found = replace(found, interval=found.interval._replace(low=np.nan, high=np.nan))
        return replace(found, seeds=seeds)

    def parity(self, arm: Arm, metric: str) -> Parity:
        """The value of a metric of an arm if groups did not matter."""
        row = null_row(self.null, self.study.names[arm], metric)
        return Parity(float(row["null_mean"]), float(row["p_value"]))

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
