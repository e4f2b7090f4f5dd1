"""The evidence of one side compared with another: overall, by group, by class."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kdplatform.analysis.comparison import ClassComparison
from kdplatform.analysis.intervals import (
    Interval,
    mean_of_examples,
    mean_of_seeds_and_examples,
)
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import HIGHER_IS_FAIRER, Change, GroupFairness
from kdplatform.study.groups import BETTER, NOT_MEASURED, UNDECIDED, WORSE, GroupComparison
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Arm
from kdplatform.study.verdicts import Verdict, by_interval
from kdplatform.study.warnings import arms_at_chance

# The metrics of group fairness that findings report.
FAIRNESS = {"eod": "EOD", "dpd": "DPD", "worst_group_accuracy": "worst-group accuracy"}


@dataclass(frozen=True)
class MetricChange:
    """A metric of side B compared with that of side A.

    Attributes:
        what: the metric in words, such as `EOD by sex`.
        a: its value on side A, a fraction.
        interval: B minus A.
        verdict: "worse", "better" or "undecided".
        better: 1 if a higher value is better, -1 if a lower one is.
        remark: a caution for the reader.
    """

    what: str
    a: float
    b: float
    interval: Interval
    verdict: str
    better: int = 1
    remark: str = ""


@dataclass(frozen=True)
class Evidence:
    """Side B compared with side A, the reference.

    Attributes:
        between: both in words, such as `DS T=4 against NDS`; empty if there is one comparison.
        names: of side A and side B.
        seeds: numbers of models of A and B.
        metrics: accuracy, and fairness if it has been judged.
        groups: the comparison of groups; None without attributes.
        classes: the comparison of classes; None if they cannot be tested.
    """

    between: str
    names: tuple[str, str]
    seeds: tuple[int, int]
    metrics: Sequence[MetricChange]
    groups: GroupComparison | None
    classes: ClassComparison | None
    class_names: Sequence[str]


def judged(better: int, interval: Interval, chance: float = 0.0) -> str:
    """Returns whether a metric's change is worse, better, undecided or not measured.

    Args:
        better: 1 if a higher value is better, -1 if a lower one is.
        chance: as in `verdicts.by_interval`.
    """
    if np.isnan(interval.estimate):
        return NOT_MEASURED
    words = {Verdict.SUPPORTED: BETTER, Verdict.CONTRADICTED: WORSE}
    return words.get(by_interval(better, interval, chance), UNDECIDED)


def fairness_change(
    what: str, metric: str, a: float, b: float, change: Change, *, b_at_chance: bool = False
) -> MetricChange:
    """Returns the change of a fairness metric, judged with its chance level.

    Args:
        what: the metric in words.
        metric: one of `FAIRNESS`.
        b_at_chance: whether a model of side B is not better than chance. Such a side is never
            called better, since it treats all groups alike.
    """
    better = 1 if metric in HIGHER_IS_FAIRER else -1
    verdict = judged(better, change.interval, change.chance)
    if b_at_chance and verdict == BETTER:
        verdict = UNDECIDED
    remark = "levelling down: every group's accuracy falls" if change.levelling_down else ""
    return MetricChange(what, a, b, change.interval, verdict, better, remark)


def accuracy_change(a: Sequence[Predictions], b: Sequence[Predictions]) -> MetricChange:
    """Returns the change of accuracy, with its interval over examples, and over seeds if several.

    The weights of the tables are used, if there are any.

    Args:
        a: one table per seed of side A; equally many on both sides are pairs in their order, and
            one model of A is paired with every seed of B.
    """
    first, second = (np.array([table.correct for table in side], dtype=float) for side in (a, b))
    weights = a[0].weights
    before, after = (float(np.average(s.mean(axis=0), weights=weights)) for s in (first, second))
    if len(first) == len(second) == 1:
        interval = mean_of_examples((second - first)[0], weights)
    elif len(first) == len(second) or 1 in (len(first), len(second)):
        interval = mean_of_seeds_and_examples(second - first, weights)
    else:
        interval = Interval(after - before, np.nan, np.nan)
    interval = interval.within(-1, 1)
    return MetricChange("accuracy", before, after, interval, judged(1, interval))


def study_evidence(
    classes: ClassWise, groups: GroupWise, fairness: Sequence[GroupFairness] = ()
) -> list[Evidence]:
    """Returns the evidence of every distilled arm against its teacher and its NDS.

    Args:
        fairness: the attributes for which EOD, DPD and the worst group were bootstrapped.
    """
    study, found = classes.study, []
    at_chance = arms_at_chance(study)
    for arm in study.distilled:
        for role in REFERENCES:
            pairs = list(study.pairs_with(role, arm))
            if not pairs:
                continue
            references, own = zip(*pairs, strict=True)
            shared = role is Role.TEACHER and study.shared_teacher is not None
            metrics = [accuracy_change(references[:1] if shared else references, own)]
            for each in fairness:
                metrics += _fairness_changes(each, arm, Arm(role), arm in at_chance)
            found.append(
                Evidence(
                    f"{study.names[arm]} against {role.label}",
                    (role.label, "DS"),
                    (1 if shared else len(pairs), len(pairs)),
                    metrics,
                    groups.tests.get((arm, role)),
                    classes.tests.get((arm, role)),
                    study.class_names,
                )
            )
    return found


def _fairness_changes(
    fairness: GroupFairness, arm: Arm, reference: Arm, at_chance: bool
) -> Iterator[MetricChange]:
    for metric, name in FAIRNESS.items():
        change = fairness.change([arm], reference, metric)
        a, b = (fairness.interval(each, metric).estimate for each in (reference, arm))
        what = f"{name} by {fairness.name}"
        yield fairness_change(what, metric, a, b, change, b_at_chance=at_chance)
