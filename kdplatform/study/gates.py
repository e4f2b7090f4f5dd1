"""A gate: whether the arms of a study keep the rules of a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, cached_property

import numpy as np

from kdplatform.analysis.intervals import Interval
from kdplatform.analysis.tables import Attribute
from kdplatform.errors import UserError
from kdplatform.roles import Role
from kdplatform.settings.gates import GateFile, Rule
from kdplatform.study.classes import ClassWise
from kdplatform.study.gate_metrics import (
    GateMeasures,
    GateMetric,
    check_names,
    gate_metrics,
    known_metric,
)
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.study import Arm, Study


class Outcome(StrEnum):
    """The outcome of a rule, an arm or a gate."""

    PASSED = "passed"
    FAILED = "failed"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class JudgedRule:
    """One bound of a rule, judged for one arm.

    Attributes:
        bound: `min`, `max`, `max_drop` or `max_rise`.
        limit: what the bound allows.
        spelled: the metric's name as a person writes it.
        measured: the metric, or the size of its fall or rise, with a 95% interval.
        counts_as: passed or failed, also if the outcome is *cannot tell*.
        reason: why the metric cannot be judged; empty if it can.
    """

    arm: str
    metric: str
    bound: str
    limit: float
    by: str
    measured: Interval
    outcome: Outcome
    counts_as: Outcome
    reason: str = ""
    spelled: str = ""

    @property
    def rule(self) -> str:
        """The rule in words, such as `test/accuracy max_drop 0.02`."""
        return f"{self.spelled or self.metric} {self.bound} {self.limit:g}"

    @property
    def sentence(self) -> str:
        """What was found, in one line."""
        found = self.reason or _found(self.bound, self.measured)
        counted = f" (counts as {self.counts_as})" if self.outcome is Outcome.CANNOT_TELL else ""
        by = " by its interval" if self.by == "interval" else ""
        return f"{self.outcome}{counted}: {self.arm}: {self.rule}{by}: {found}"


_WORDS = {"min": "it is", "max": "it is", "max_drop": "it fell by", "max_rise": "it rose by"}
_OPPOSITE = {"max_drop": "max_rise", "max_rise": "max_drop"}


def _found(bound: str, measured: Interval) -> str:
    """Says what was measured; a fall below 0 is a rise."""
    if bound in _OPPOSITE and measured.estimate < 0:
        bound = _OPPOSITE[bound]
        measured = Interval(-measured.estimate, -measured.high, -measured.low)
    return f"{_WORDS[bound]} {_shown(measured)}"


def _shown(interval: Interval) -> str:
    if not np.isfinite([interval.low, interval.high]).all():
        return f"{interval.estimate:.4g}"
    return f"{interval.estimate:.4g} (95% interval {interval.low:.4g} to {interval.high:.4g})"


@dataclass(frozen=True)
class JudgedGate:
    """A gate with all outcomes.

    Attributes:
        rules: in the order of the arms, then of the file.
        arms: outcome by arm; passed or failed.
        reference: what changes are measured from, in words.
    """

    file: GateFile
    rules: Sequence[JudgedRule]
    reference: str

    @cached_property
    def arms(self) -> Mapping[str, Outcome]:
        """Passed or failed, by arm."""
        found: dict[str, Outcome] = {}
        for rule in self.rules:
            if found.get(rule.arm) is not Outcome.FAILED:
                found[rule.arm] = rule.counts_as
        return found

    @property
    def outcome(self) -> Outcome:
        """Passed or failed."""
        passed = [outcome is Outcome.PASSED for outcome in self.arms.values()]
        enough = any(passed) if self.file.gates.arms == "any" else all(passed)
        return Outcome.PASSED if enough else Outcome.FAILED

    @property
    def broken(self) -> list[JudgedRule]:
        """The rules that count as failed."""
        return [rule for rule in self.rules if rule.counts_as is Outcome.FAILED]

    @property
    def sentence(self) -> str:
        """The outcome in one line."""
        date = self.file.gates.date
        dated = f"thresholds of {date.isoformat()}" if date else "thresholds without a date"
        arms = ""
        if len(self.arms) > 1:
            passed = sum(outcome is Outcome.PASSED for outcome in self.arms.values())
            arms = f", {passed} of {len(self.arms)} arms passed, {self.file.gates.arms} must"
        return (
            f"gate {self.outcome}: {len(self.broken)} of {len(self.rules)} rules broken{arms} "
            f"({self.file.path.name}, {dated})"
        )

    def lines(self) -> list[str]:
        """The outcome, then one line per rule that is broken or whose outcome is *cannot tell*."""
        told = [rule.sentence for rule in self.rules if rule.outcome is not Outcome.PASSED]
        return [self.sentence, *told]


def checked_rules(file: GateFile, known: Mapping[str, GateMetric]) -> dict[str, GateMetric]:
    """Returns the metric of each rule of a file, by the rule's name.

    Raises:
        UserError: a metric does not exist or is named twice, or a bound does not fit it.
    """
    parameter = f"gate={str(file.path)!r}: rule"
    found: dict[str, GateMetric] = {}
    for name, rule in file.gates.rules.items():
        metric = known_metric(parameter, name, known)
        twin = next((other for other, own in found.items() if own == metric), None)
        if twin is not None:
            raise UserError(f"{parameter} {name!r} and {twin!r} are of one metric; allowed: one")
        if problem := _misfit(metric, rule):
            raise UserError(f"{parameter} {name!r}: {problem}")
        found[name] = metric
    return found


def check_gate_of_comparison(file: GateFile, attributes: Sequence[Attribute]) -> None:
    """Checks the rules of a file for two sides, before they are compared.

    Raises:
        UserError: as `checked_rules`.
    """
    check_names(attributes)
    checked_rules(file, comparison_metrics(attributes))


def comparison_metrics(attributes: Sequence[Attribute]) -> dict[str, GateMetric]:
    """Returns the metrics of two sides. Side A, the reference, has the role of the NDS."""
    return gate_metrics(attributes, [Role.STUDENT])


def _misfit(metric: GateMetric, rule: Rule) -> str:
    """Returns why this metric cannot have the rule; empty if it can."""
    if not metric.has_change and (rule.max_drop is not None or rule.max_rise is not None):
        return "it is a number of a pair of models already; allowed: min, max"
    if not metric.has_interval and rule.by == "interval":
        return "it has no interval; allowed: by: estimate"
    if metric.is_fraction:
        for bound, limit in rule.bounds.items():
            if abs(limit) > 1:
                return (
                    f"{bound} {limit:g} is beyond any value, because the metric is a fraction; "
                    "allowed: at most 1, such as 0.02 for two points"
                )
    return ""


def judge_gate(
    file: GateFile,
    study: Study,
    classes: ClassWise,
    known: Mapping[str, GateMetric],
    reference: Arm | None = None,
    titles: Mapping[Arm, str] | None = None,
) -> JudgedGate:
    """Judges every distilled arm of a study by the rules of a file.

    Args:
        known: the metrics that rules may name.
        reference: what changes are measured from; None: the role that the file says.
        titles: the names of arms; None: those of the study.

    Raises:
        UserError: as `checked_rules`.
    """
    metrics = checked_rules(file, known)
    against = reference or Arm(Role(file.gates.against))
    names = {against: against.title(), **study.names, **(titles or {})}
    groups = cache(lambda: GroupWise(study))
    judged = []
    for arm in study.distilled:
        measures = GateMeasures(study, classes, groups, arm, against)
        for name, rule in file.gates.rules.items():
            found = measures.measured(metrics[name], with_interval=rule.by == "interval")
            for bound, limit in rule.bounds.items():
                value = {
                    "max_drop": _negative(found.change),
                    "max_rise": found.change,
                }.get(bound, found.value)
                outcome, reason = _outcome(bound, limit, rule, value)
                counts_as = _counted(file, outcome)
                judged.append(
                    JudgedRule(
                        names[arm],
                        metrics[name].name,
                        bound,
                        limit,
                        rule.by,
                        value,
                        outcome,
                        counts_as,
                        reason,
                        metrics[name].spelled,
                    )
                )
    return JudgedGate(file, judged, names[against])


def _negative(interval: Interval) -> Interval:
    return Interval(-interval.estimate, -interval.high, -interval.low)


def _outcome(bound: str, limit: float, rule: Rule, value: Interval) -> tuple[Outcome, str]:
    """Judges a bound; gives the reason if it cannot be judged as requested."""
    if not np.isfinite(value.estimate):
        return Outcome.FAILED, "it is not measured here (NaN), which counts as failed"
    sign = -1 if bound == "min" else 1

    def beyond(number: float) -> bool:
        return sign * number > sign * limit

    if rule.by == "estimate":
        return (Outcome.FAILED if beyond(value.estimate) else Outcome.PASSED), ""
    if not np.isfinite([value.low, value.high]).all():
        return Outcome.CANNOT_TELL, f"{_WORDS[bound]} {value.estimate:.4g}, without an interval"
    better, worse = (value.low, value.high) if sign > 0 else (value.high, value.low)
    if not beyond(worse):
        return Outcome.PASSED, ""
    return (Outcome.FAILED if beyond(better) else Outcome.CANNOT_TELL), ""


def _counted(file: GateFile, outcome: Outcome) -> Outcome:
    if outcome is not Outcome.CANNOT_TELL:
        return outcome
    return Outcome(file.gates.cannot_tell or "failed")
