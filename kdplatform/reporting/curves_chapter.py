"""Curves over temperatures or methods, and methods side by side."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from kdplatform.analysis.intervals import UNKNOWN, Interval, mean_over_seeds
from kdplatform.analysis.significance import Counts
from kdplatform.reporting.charts import Crosses, Curves, Dots, Level, Look, Panel, Points
from kdplatform.reporting.report_table import file_stem
from kdplatform.roles import Role
from kdplatform.study.claims import Claim
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.methods import Compared
from kdplatform.study.metrics import ACCURACY, WORST_CLASS_ACCURACY, fairness_metric
from kdplatform.study.study import Arm, Study
from kdplatform.study.verdicts import Verdict

_REFERENCES = {Role.STUDENT: Look.NDS, Role.TEACHER: Look.TEACHER}
_FAIRNESS = {"eod": "EOD", "dpd": "DPD", "worst_group_accuracy": "worst-group accuracy"}


def accuracy_curves(study: Study) -> Curves:
    """Accuracy and worst-class accuracy of every distilled arm, beside Teacher and NDS."""
    panels = [
        _panel(study, title, _over_seeds(study, metric))
        for metric, title in ((ACCURACY, "test accuracy"), (WORST_CLASS_ACCURACY, "worst class"))
    ]
    return _curves(
        study,
        "figure3_accuracy",
        "Test accuracy and worst-class accuracy",
        "Means over seeds with 95% intervals, which treat only the seeds as a sample.",
        panels,
    )


def count_curves(study: Study, classes: ClassWise) -> Curves:
    """#SC and #TC of every arm, with the numbers by chance."""
    counts = {pair: test.counts for pair, test in classes.tests.items()}
    return _count_curves(
        study,
        counts,
        {Role.STUDENT: "#SC, from the NDS", Role.TEACHER: "#TC, from the teacher"},
        "figure3_counts",
        "Classes that differ: #SC and #TC",
    )


def group_count_curves(study: Study, groups: GroupWise) -> Curves:
    """How many groups of each arm changed against NDS and teacher, with the numbers by chance."""
    counts = {pair: test.counts for pair, test in groups.tests.items()}
    return _count_curves(
        study,
        counts,
        {Role.STUDENT: "against the NDS", Role.TEACHER: "against the teacher"},
        "group_counts",
        "Groups that changed",
    )


def _count_curves(
    study: Study,
    counts: Mapping[tuple[Arm, Role], Counts],
    titles: Mapping[Role, str],
    key: str,
    caption: str,
) -> Curves:
    panels = []
    for role, title in titles.items():
        own = [counts.get((arm, role)) for arm in study.distilled]
        unknown = [np.nan] * len(own)
        found = [float(each.significant) if each else np.nan for each in own]
        after = [float(each.significant_holm) if each else np.nan for each in own]
        chance = [each.expected_by_chance for each in own if each]
        series = [
            Points("p < .05", Look.OTHER, found, unknown, unknown),
            Points("after Holm", Look.UNSURE, after, unknown, unknown),
        ]
        levels = [Level("by chance", Look.REFERENCE, max(chance))] if chance else []
        panels.append(Panel(title, series, levels))
    return _curves(
        study,
        key,
        caption,
        ("Counts near the line can be explained by chance."),
        panels,
        percent=False,
    )


def fairness_curves(study: Study, fairness: GroupFairness, key: str) -> Curves:
    """EOD, DPD and worst-group accuracy of one attribute, with the parity level."""
    panels = []
    for metric, title in _FAIRNESS.items():
        panel = _panel(study, title, partial(fairness.interval, metric=metric))
        if metric in ("eod", "dpd"):
            null = [fairness.parity(arm, metric).mean for arm in study.distilled]
            unknown = [np.nan] * len(null)
            chance = Points("DS if groups did not matter", Look.UNSURE, null, unknown, unknown)
            panel = Panel(title, [*panel.series, chance], panel.levels)
        panels.append(panel)
    return _curves(
        study,
        f"{key}_{file_stem(fairness.name)}",
        f"Group fairness by {fairness.name}",
        "Lower EOD and DPD are fairer only if groups are not worse off. Look at the worst group "
        "beside them.",
        panels,
    )


def methods_points(
    study: Study,
    key: str,
    title: str,
    across: Callable[[Arm], Interval],
    across_title: str,
    caption: str,
) -> Crosses:
    """Accuracy against another metric: a point for every arm, a series for every method."""
    by_method: dict[str, list[Arm]] = {}
    for arm in study.arms:
        by_method.setdefault(arm.method or arm.role.label, []).append(arm)
    series, up = [], []
    for name, arms in by_method.items():
        words = ["" if a.temperature is None else f"{a.temperature:g}" for a in arms]
        series.append(_points(name, Look.OTHER, [across(arm) for arm in arms], words))
        accuracy = [mean_over_seeds(study.values(arm, ACCURACY)) for arm in arms]
        up.append(_points(name, Look.OTHER, accuracy, ()))
    return Crosses(
        key,
        title,
        caption,
        [],
        [Panel("", series)],
        up=up,
        across_title=f"{across_title}, %",
        up_title="test accuracy, %",
    )


def method_changes(
    study: Study, fairness: Sequence[GroupFairness], compared: Sequence[Compared]
) -> Dots:
    """What every arm changes against plain distillation at the same T, a panel for each metric."""
    arms = [each for each in compared if each.reference is not None]
    columns = {ACCURACY: "accuracy", WORST_CLASS_ACCURACY: "worst-class accuracy"}
    columns |= {fairness_metric(each.attribute, "eod"): f"EOD ({each.name})" for each in fairness}
    return Dots(
        "methods_changes",
        "Each method minus plain distillation at the same temperature",
        "95% intervals of the paired difference. Better and worse are as in the table, after "
        "Holm's correction over the methods. Lower EOD is fairer.",
        [study.short_names[each.arm] for each in arms],
        [
            _change_panel(f"{title}, points", [each.claims.get(column) for each in arms])
            for column, title in columns.items()
        ],
        zero=True,
    )


_LOOKS = {
    Verdict.SUPPORTED: ("better", Look.BETTER),
    Verdict.CONTRADICTED: ("worse", Look.WORSE),
    Verdict.UNDECIDED: ("undecided", Look.UNSURE),
}


def _change_panel(title: str, claims: Sequence[Claim | None]) -> Panel:
    series = []
    for verdict, (name, look) in _LOOKS.items():
        own = [c.interval if c is not None and c.verdict is verdict else UNKNOWN for c in claims]
        series.append(_points(name, look, own))
    return Panel(title, series)


def worst_class_interval(study: Study) -> Callable[[Arm], Interval]:
    """Worst-class accuracy of an arm, with its interval over seeds."""
    return _over_seeds(study, WORST_CLASS_ACCURACY)


def _over_seeds(study: Study, metric: str) -> Callable[[Arm], Interval]:
    return lambda arm: mean_over_seeds(study.values(arm, metric)).within(0, 1)


def _points(
    name: str, look: Look, intervals: Sequence[Interval], words: Sequence[str] = ()
) -> Points:
    values, low, high = ([float(i[end]) for i in intervals] for end in range(3))
    return Points(name, look, values, low, high, words)


def _panel(study: Study, title: str, interval: Callable[[Arm], Interval]) -> Panel:
    levels = []
    for role, look in _REFERENCES.items():
        if Arm(role) in study.arms:
            levels.append(Level(role.label, look, *interval(Arm(role))))
    own = _points(Role.DISTILLED.label, Look.OTHER, [interval(arm) for arm in study.distilled])
    return Panel(title, [own], levels)


def _curves(
    study: Study,
    key: str,
    title: str,
    caption: str,
    panels: Sequence[Panel],
    *,
    percent: bool = True,
) -> Curves:
    lines: dict[str | None, list[int]] = {}
    for position, arm in enumerate(study.distilled):
        lines.setdefault(arm.method, []).append(position)
    names = [study.short_names[arm] for arm in study.distilled]
    axis = "" if study.has_several_methods else "temperature T"
    return Curves(
        key, title, caption, names, panels, percent=percent, axis=axis, lines=list(lines.values())
    )
