"""The metrics that a gate may have rules on: their names, what they are, and their values."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import stats

from kdplatform.analysis.bootstrap import FairnessBootstrap, bootstrap_fairness
from kdplatform.analysis.group_fairness import METRICS
from kdplatform.analysis.intervals import (
    LEVEL,
    UNKNOWN,
    Interval,
    mean_of_examples,
    mean_of_seeds_and_examples,
    mean_over_seeds,
)
from kdplatform.analysis.significance import Counts
from kdplatform.analysis.tables import Attribute, attribute_name
from kdplatform.errors import UserError, unknown_name
from kdplatform.predictions import FloatArray, Predictions
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import (
    ACCURACY,
    CONSISTENCY,
    ECE,
    INDIVIDUAL,
    INDIVIDUAL_LABELS,
    REFERENCES,
    WORST_CLASS_ACCURACY,
    count_metrics,
    fairness_metric,
    in_metric_name,
)
from kdplatform.study.study import TEACHER, Arm, Study

_DRAWS = 2000
# Prefixes that a rule may omit before the name of a metric.
_SHORT = ("test/", "classwise/", "groupwise/", "fairness/")
WORST_GROUP_DROP = "worst_group_drop"
# A column of the classes themselves, so that the worst class can be measured as the worst group.
_CLASSES = "label, as a group"


@dataclass(frozen=True)
class GateMetric:
    """Properties of a metric that rules depend on.

    Attributes:
        is_fraction: its values are between 0 and 1, so a bound outside is a mistake.
        has_interval: it can be judged by an interval.
        has_change: it is a value of one model, which can fall or rise against a reference.
        attribute: the attribute whose groups it measures; None if it measures no groups.
    """

    name: str
    is_fraction: bool = True
    has_interval: bool = True
    has_change: bool = True
    attribute: Attribute | None = None

    @property
    def spelled(self) -> str:
        """The name as a person writes it: with the attribute's own letters."""
        if self.attribute is None:
            return self.name
        family, *_, metric = self.name.split("/")
        return f"{family}/{attribute_name(self.attribute)}/{metric}"


class Measured(NamedTuple):
    """A metric of an arm, and its change against the reference, each with its 95% interval."""

    value: Interval
    change: Interval


def gate_metrics(attributes: Iterable[Attribute], roles: Iterable[Role]) -> dict[str, GateMetric]:
    """Returns the metrics that rules may name, by name.

    Args:
        attributes: columns whose groups are compared, and intersections of them.
        roles: the models' references; `n_tc` needs a teacher, `n_sc` an NDS.
    """
    known = [
        *(GateMetric(name) for name in (ACCURACY, WORST_CLASS_ACCURACY, ECE, INDIVIDUAL_LABELS)),
        GateMetric(CONSISTENCY),
        *(GateMetric(name, is_fraction=False) for name in ("test/brier", "test/nll", INDIVIDUAL)),
    ]
    attributes = list(attributes)
    for role in roles:
        counts = [*_counts(role), *(_groups(role) if attributes else ())]
        known += [_of_a_pair(name, fraction=False) for name in counts]
        known.append(_of_a_pair(f"disagreement/{role.value}", fraction=True))
    if attributes:
        known.append(GateMetric(WORST_GROUP_DROP, has_change=False))
    for attribute in attributes:
        known += [GateMetric(fairness_metric(attribute, m), attribute=attribute) for m in METRICS]
    return {metric.name: metric for metric in known}


def check_names(attributes: Iterable[Attribute]) -> None:
    """Refuses a column with the name of an intersection, because a rule could mean either.

    Raises:
        UserError: there is such a column.
    """
    known = list(attributes)
    for attribute in known:
        name = attribute_name(attribute)
        if not isinstance(attribute, str) and name in known:
            raise UserError(
                f"attributes: a column is called {name!r}, as the intersection of two others; "
                "allowed with a gate: another name for it"
            )


def _counts(role: Role) -> list[str]:
    name = f"classwise/n_{REFERENCES[role]}"
    return [name, f"{name}_bh", f"{name}_holm", f"{name}_permutation_p"]


def _groups(role: Role) -> list[str]:
    """The names of the counts of groups that changed, `n_sg` or `n_tg`."""
    name = f"groupwise/n_{REFERENCES[role][0]}g"
    return [name, f"{name}_bh", f"{name}_holm"]


def _of_a_pair(name: str, *, fraction: bool) -> GateMetric:
    return GateMetric(name, is_fraction=fraction, has_interval=False, has_change=False)


def known_metric(parameter: str, given: str, known: Mapping[str, GateMetric]) -> GateMetric:
    """Returns the metric of a name, which may be short: `n_sc_holm`, `fairness/race & sex/eod`.

    Raises:
        UserError: no metric has this name; the message gives the nearest ones.
    """
    spellings = [given, *(f"{prefix}{given}" for prefix in _SHORT)]
    for spelling in spellings:
        first, _, rest = spelling.partition("/")
        attribute, _, metric = rest.rpartition("/")
        encoded = f"{first}/{in_metric_name(attribute)}/{metric}" if attribute else spelling
        for name in (spelling, encoded):
            if name in known:
                return known[name]
    of_attributes = [name for name in known if name.endswith(f"/{given}")]
    if of_attributes:
        raise UserError(
            f"{parameter} {given!r} does not say which; allowed: "
            f"{' | '.join(known[name].spelled for name in of_attributes)}"
        )
    spelled = {metric.spelled for metric in known.values()}
    short = {name.removeprefix(prefix) for name in spelled for prefix in _SHORT}
    nearest = spelled if "/" in given else {*spelled, *(name for name in short if "/" not in name)}
    raise unknown_name(parameter, given, nearest)


class GateMeasures:
    """Measures the metrics of rules, for one arm of a study and its reference.

    Intervals are over examples, and also over seeds if there are several. With one model on either
    side they are conditional on these models.

    Args:
        groups: returns the comparisons of groups; it is called only if a rule needs them.
    """

    def __init__(
        self,
        study: Study,
        classes: ClassWise,
        groups: Callable[[], GroupWise],
        arm: Arm,
        reference: Arm,
    ) -> None:
        self._study = study
        self._classes = classes
        self._groups = groups
        self._arm = arm
        self._reference = reference
        self._bootstraps: dict[str, FairnessBootstrap] = {}

    def measured(self, metric: GateMetric, *, with_interval: bool) -> Measured:
        """Returns the value of a metric and its change; NaN if it cannot be measured."""
        if metric.name == WORST_GROUP_DROP:
            return Measured(self._worst_group_drop(), UNKNOWN)
        if not metric.has_change:
            return Measured(Interval(self._of_pairs(metric.name), np.nan, np.nan), UNKNOWN)
        if metric.name == ACCURACY:
            return self._accuracy()
        estimates = self._estimates(metric.name)
        if not with_interval or not np.isfinite(estimates.value.estimate):
            return estimates
        if metric.name == WORST_CLASS_ACCURACY:
            return self._bootstrapped(estimates, _CLASSES, "worst_group_accuracy")
        if metric.attribute is not None:
            name = metric.name.rpartition("/")[2]
            return self._bootstrapped(estimates, metric.attribute, name)
        return estimates

    def _of_pairs(self, name: str) -> float:
        """A count of classes, or a mean over the pairs of an arm and a reference."""
        study, arm = self._study, self._arm
        for role in REFERENCES:
            if name not in _counts(role):
                continue
            test = self._classes.tests.get((arm, role))
            if test is None:
                return np.nan
            if name.endswith("_permutation_p"):
                return np.nan if test.permutation is None else test.permutation.p_count
            return float(count_metrics(role, test.counts)[name])
        for role in REFERENCES:
            if name in _groups(role):
                groups = self._groups().tests.get((arm, role))
                return np.nan if groups is None else _count(name, groups.counts)
        values = study.values(arm, name)
        return float(values.mean()) if len(values) else np.nan

    def _worst_group_drop(self) -> Interval:
        """The largest fall of the accuracy of a group of one attribute, as a positive number.

        The upper limit is the highest upper limit of the groups' own 95% intervals. It covers the
        group that truly lost most at least as often as that group's own limit. The lower limit is
        the highest lower limit of the intervals at Bonferroni's level, because the group was chosen
        for its loss.
        """
        found = self._groups().tests.get((self._arm, self._reference.role))
        if found is None:
            return UNKNOWN
        known = found.groups[["difference", "low", "high"]].dropna()
        if known.empty:
            return UNKNOWN
        drop, low, high = (-known[name].to_numpy() for name in ("difference", "high", "low"))
        wider = stats.norm.isf(LEVEL / 2 / len(known)) / stats.norm.isf(LEVEL / 2)
        return Interval(
            float(drop.max()), float((drop - wider * (drop - low)).max()), float(high.max())
        )

    def _estimates(self, name: str) -> Measured:
        """Means over seeds, with their intervals if there are several seeds."""
        own = self._by_seed(self._arm, name)
        reference = self._by_seed(self._reference, name)
        if not own:
            return Measured(UNKNOWN, UNKNOWN)
        value = mean_over_seeds(list(own.values()))
        if not reference:
            return Measured(value, UNKNOWN)
        if not self._is_paired or (own.keys() != reference.keys() and not self._is_shared):
            change = value.estimate - float(np.mean(list(reference.values())))
            return Measured(value, Interval(change, np.nan, np.nan))
        if self._is_shared:
            reference = dict.fromkeys(own, next(iter(reference.values())))
        return Measured(value, mean_over_seeds([own[seed] - reference[seed] for seed in own]))

    def _by_seed(self, arm: Arm, name: str) -> dict[int, float]:
        frame = self._study.metrics
        if name not in frame:
            return {}
        rows = frame.loc[frame["arm"] == self._study.names.get(arm), ["seed", name]].dropna()
        return {int(seed): float(value) for seed, value in rows.itertuples(index=False)}

    @property
    def _is_paired(self) -> bool:
        """Whether models are paired with references; one model alone has no spread of its own."""
        study = self._study
        return self._is_shared or study.seeds(self._arm) == study.seeds(self._reference)

    @property
    def _is_shared(self) -> bool:
        return self._reference == TEACHER and self._study.shared_teacher is not None

    def _accuracy(self) -> Measured:
        own, weights = self._correct(self._arm), self._study.any_table.weights
        if self._reference not in self._study.arms:
            return Measured(_mean(own, weights), UNKNOWN)
        reference = self._correct(self._reference)
        if self._is_paired:
            change = _mean(own - reference, weights)
        else:
            means = [float(np.average(v.mean(axis=0), weights=weights)) for v in (own, reference)]
            change = Interval(means[0] - means[1], np.nan, np.nan)
        return Measured(_mean(own, weights), change.within(-1.0, 1.0))

    def _correct(self, arm: Arm) -> FloatArray:
        """Whether each example is right under each model. [seeds, examples]."""
        first = self._study.any_table
        tables = (table.aligned(first) for table in self._study.tables(arm))
        return np.stack([table.correct.astype(float) for table in tables])

    @cached_property
    def _tables(self) -> dict[str, list[Predictions]]:
        """The tables of both sides; only the arm's if there is no reference."""
        study = self._study
        found = {"arm": study.tables(self._arm)}
        if self._reference in study.arms:
            found["reference"] = study.tables(self._reference)
        return found

    def _bootstrapped(self, estimates: Measured, attribute: Attribute, metric: str) -> Measured:
        name = attribute_name(attribute)
        if name not in self._bootstraps:
            tables, size = self._tables, self._study.min_group_size
            if attribute == _CLASSES:
                tables = {side: [_with_classes(t) for t in own] for side, own in tables.items()}
                size = 1
            self._bootstraps[name] = bootstrap_fairness(
                tables, attribute, draws=_DRAWS, min_group_size=size
            )
        found = self._bootstraps[name]
        change = estimates.change
        if len(self._tables) == 2 and self._is_paired:
            change = found.difference("arm", "reference", metric)
        return Measured(found.interval("arm", metric), change)


def _count(name: str, counts: Counts) -> float:
    corrected = {"_bh": counts.significant_bh, "_holm": counts.significant_holm}
    return float(
        next((n for end, n in corrected.items() if name.endswith(end)), counts.significant)
    )


def _mean(values: FloatArray, weights: FloatArray | None) -> Interval:
    """Mean over examples, and over seeds if there are several. [seeds, examples]."""
    if len(values) == 1:
        return mean_of_examples(values[0], weights)
    return mean_of_seeds_and_examples(values, weights)


def _with_classes(table: Predictions) -> Predictions:
    columns = table.columns.assign(**{_CLASSES: table.labels.astype(str)})
    return replace(table, columns=columns)
