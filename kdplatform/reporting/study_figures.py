"""Figures 1 to 5 of the paper in a study's own numbers.

Temperatures stand at equal distances, since 20, 30 and 40 would press 1 to 10 together.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from kdplatform.analysis.disagreement import disagreement_matrix
from kdplatform.analysis.intervals import Interval, mean_over_seeds
from kdplatform.predictions import FloatArray
from kdplatform.reporting.drawing import figure_names, own_style
from kdplatform.reporting.figures import COLORS, SIGNIFICANT
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.metrics import ACCURACY, REFERENCES, WORST_CLASS_ACCURACY
from kdplatform.study.study import Arm, Study

DS = Role.DISTILLED.label
# How the constant line of a reference is drawn.
_LINES: dict[Role, Literal["--", ":"]] = {Role.STUDENT: "--", Role.TEACHER: ":"}

_CURVE: dict[str, Any] = {
    "color": COLORS[DS], "marker": "o", "markersize": 4, "linewidth": 1.2
}  # fmt: skip
_MOST_CLASSES = 20
_COLUMNS = 4
# Methods are told apart by the colours of matplotlib's cycle, and further ones by their markers.
_METHOD_COLORS, _METHOD_MARKERS = 10, "osD^"
_LEGEND_COLUMNS = 5
_FAIRNESS = {
    "eod": "EOD, %",
    "dpd": "DPD, %",
    "worst_group_accuracy": "worst-group accuracy, %",
}


@own_style()
def class_figure(study: Study, classes: ClassWise) -> Figure:
    """Figure 1: accuracy of every class over T, with the temperatures where it differs marked."""
    chosen = _most_moving(study, classes)
    columns = min(_COLUMNS, len(chosen))
    lines = -(-len(chosen) // columns)
    figure = Figure(figsize=(2.6 * columns + 0.4, 2.0 * lines + 0.9), layout="constrained")
    panels = figure.subplots(lines, columns, sharex=True, squeeze=False).ravel()
    names = figure_names(study.class_names, "class")
    for axes, row in zip(panels, chosen, strict=False):
        _class_panel(axes, study, classes, row)
        axes.set_title(names[row], fontsize=9)
    for axes in panels[len(chosen) :]:
        axes.axis("off")
    for position, axes in enumerate(panels[: len(chosen)]):
        if position + columns >= len(chosen):
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(_axis_name(study))
    handles = [
        Line2D([], [], color=COLORS[DS], marker="o", markersize=4, label="DS, mean ± sd"),
        *_reference_lines(),
        Line2D([], [], label="differs from NDS (p < .05)", **_ring("o", 8)),
        Line2D([], [], label="differs from Teacher (p < .05)", **_ring("s", 8)),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    left_out = len(study.class_names) - len(chosen)
    more = f" ({left_out} classes that move less are not shown)" if left_out else ""
    figure.suptitle(f"Test accuracy of every class, %{more}", fontsize=11)
    return figure


def _class_panel(axes: Axes, study: Study, classes: ClassWise, row: int) -> None:
    accuracies = [100 * classes.accuracies[arm].accuracy[:, row] for arm in study.distilled]
    _points(axes, study, accuracies)
    for role, style in _LINES.items():
        if Arm(role) in study.arms:
            level = 100 * float(classes.accuracies[Arm(role)].accuracy[:, row].mean())
            axes.axhline(level, color=COLORS[role.label], linestyle=style, linewidth=1.2)
    for role, marker, size in ((Role.STUDENT, "o", 8), (Role.TEACHER, "s", 11)):
        marked = [
            i
            for i, arm in enumerate(study.distilled)
            if (arm, role) in classes.tests
            and bool(classes.tests[arm, role].table["significant"].iloc[row])
        ]
        heights = [float(accuracies[i].mean()) for i in marked]
        axes.plot(marked, heights, **_ring(marker, size))
    bottom, top = axes.get_ylim()
    # No further than an accuracy can be, but for a little room that keeps the marks whole.
    axes.set_ylim(max(bottom, -3), min(top, 103))
    _name_temperatures(axes, study)
    axes.grid(axis="y", alpha=0.3)


def _ring(marker: str, size: float) -> dict[str, Any]:
    return {
        "linestyle": "none",
        "marker": marker,
        "markersize": size,
        "markerfacecolor": "none",
        "color": SIGNIFICANT,
    }


def _reference_lines() -> list[Line2D]:
    """Returns what a legend shows of the references."""
    return [
        Line2D([], [], color=COLORS[role.label], linestyle=style, label=role.label)
        for role, style in _LINES.items()
    ]


def _by_method(study: Study) -> list[list[int]]:
    """The positions of the arms of every method: a line joins those of one method alone."""
    positions: dict[str | None, list[int]] = {}
    for position, arm in enumerate(study.distilled):
        positions.setdefault(arm.method, []).append(position)
    return list(positions.values())


def _points(axes: Axes, study: Study, values: Sequence[np.ndarray]) -> None:
    """Draws mean ± standard deviation over seeds, of percentages, of every arm."""
    means = np.array([float(own.mean()) for own in values])
    spread = np.array([float(own.std(ddof=1)) if len(own) > 1 else 0.0 for own in values])
    bars = np.minimum(spread, [means, 100 - means])
    for own in _by_method(study):
        label = DS if own[0] == 0 else None
        axes.errorbar(own, means[own], bars[:, own], label=label, **_CURVE)


def _name_temperatures(axes: Axes, study: Study) -> None:
    names = [study.short_names[arm] for arm in study.distilled]
    rotation = 90 if study.has_several_methods else 0
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=rotation)
    axes.tick_params(axis="y", labelsize=8)


def _axis_name(study: Study) -> str:
    return "" if study.has_several_methods else "temperature"


def _most_moving(study: Study, classes: ClassWise) -> list[int]:
    """The classes to draw: all, or those whose accuracy changes most between the arms."""
    n = next(iter(classes.accuracies.values())).n
    present = np.flatnonzero(n > 0)
    if len(present) <= _MOST_CLASSES:
        return [int(row) for row in present]
    means = np.stack([classes.accuracies[arm].accuracy.mean(axis=0) for arm in study.arms])
    moves = np.ptp(means[:, present], axis=0)
    return sorted(int(row) for row in present[np.argsort(-moves, kind="stable")[:_MOST_CLASSES]])


def shown_disagreement(study: Study) -> Arm:
    """The arm whose disagreement is drawn: the highest temperature up to 10, else the lowest."""
    usual = [arm for arm in study.distilled if (arm.temperature or 0) <= 10]
    return usual[-1] if usual else study.distilled[0]


def disagreement_matrices(study: Study, arm: Arm) -> dict[str, pd.DataFrame]:
    """For Figure 2: mean number of examples by what a reference and what DS predicts, by role."""
    matrices: dict[str, pd.DataFrame] = {}
    for role in REFERENCES:
        counts = [
            disagreement_matrix(reference, own, len(study.class_names))
            for reference, own in study.pairs_with(role, arm)
        ]
        if counts:
            matrices[role.label] = sum(counts[1:], counts[0]) / len(counts)
    return matrices


@own_style()
def count_figure(study: Study, classes: ClassWise) -> Figure:
    """Figure 3: test accuracy, #SC and #TC against T."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    _points(left, study, [100 * study.values(arm, ACCURACY) for arm in study.distilled])
    for role, style in _LINES.items():
        values = 100 * study.values(Arm(role), ACCURACY)
        if len(values):
            level, color = float(values.mean()), COLORS[role.label]
            left.axhline(level, color=color, linestyle=style, label=role.label)
    left.set_title("test accuracy, % (DS: mean ± sd)", fontsize=10)
    for role, name, marker in (
        (Role.STUDENT, "#SC, from NDS", "o"),
        (Role.TEACHER, "#TC, from Teacher", "s"),
    ):
        heights = {
            position: classes.tests[arm, role].counts.significant
            for position, arm in enumerate(study.distilled)
            if (arm, role) in classes.tests
        }
        for own in _by_method(study):
            known = [position for position in own if position in heights]
            label = name if known and known[0] == min(heights) else None
            color, shown = COLORS[role.label], [heights[position] for position in known]
            right.plot(known, shown, color=color, marker=marker, label=label)
    chance = [test.counts.expected_by_chance for test in classes.tests.values()]
    if chance:
        right.axhline(max(chance), color="grey", linestyle="--", label="expected by chance")
    right.set_ylim(bottom=0)
    right.yaxis.set_major_locator(MaxNLocator(integer=True))
    right.set_title("classes that differ (p < .05, uncorrected)", fontsize=10)
    for axes in (left, right):
        _name_temperatures(axes, study)
        axes.set_xlabel(_axis_name(study))
        axes.grid(axis="y", alpha=0.3)
        # below the axes, where no curve runs, unless long names stand there
        below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 3}
        place = {} if study.has_several_methods else below
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8, **place)
    return figure


@own_style()
def fairness_figure(study: Study, attributes: Sequence[GroupFairness]) -> Figure:
    """Figures 4 and 5: EOD, DPD and worst-group accuracy against T, one row per attribute."""
    figure = Figure(figsize=(11, 0.7 + 2.9 * len(attributes)), layout="constrained")
    grid = figure.subplots(len(attributes), len(_FAIRNESS), squeeze=False)
    names = figure_names([fairness.name for fairness in attributes], "attribute")
    for panels, fairness, name in zip(grid, attributes, names, strict=True):
        for axes, (metric, label) in zip(panels, _FAIRNESS.items(), strict=True):
            _fairness_panel(axes, study, fairness, metric)
            axes.set_title(f"{name}: {label}", fontsize=10)
            axes.set_xlabel(_axis_name(study))
    handles = [
        Line2D([], [], color=COLORS[DS], marker="o", markersize=4, label="DS, 95% interval"),
        *_reference_lines(),
        Line2D([], [], color="grey", linestyle="-.", label="DS if groups did not matter"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def _fairness_panel(axes: Axes, study: Study, fairness: GroupFairness, metric: str) -> None:
    intervals = [fairness.interval(arm, metric) for arm in study.distilled]
    estimates, low, high = 100 * np.array(intervals).T
    limits = np.nan_to_num([estimates - low, high - estimates])
    for own in _by_method(study):
        axes.errorbar(own, estimates[own], limits[:, own], **_CURVE)
    for role, style in _LINES.items():
        if Arm(role) in study.arms:
            level = fairness.interval(Arm(role), metric)
            color = COLORS[role.label]
            axes.axhline(100 * level.estimate, color=color, linestyle=style, linewidth=1.2)
            if np.isfinite([level.low, level.high]).all():
                axes.axhspan(100 * level.low, 100 * level.high, color=color, alpha=0.08)
    if metric in ("eod", "dpd"):
        null = 100 * np.array([fairness.parity(arm, metric).mean for arm in study.distilled])
        for own in _by_method(study):
            axes.plot(own, null[own], color="grey", linestyle="-.", linewidth=1)
        axes.set_ylim(bottom=0)
    _name_temperatures(axes, study)
    axes.grid(axis="y", alpha=0.3)


class Points(NamedTuple):
    """What stands on the x axis of a figure of methods: its name, and a value of every arm."""

    label: str
    values: Mapping[Arm, Interval]


def worst_class_points(study: Study) -> Points:
    """Worst-class accuracy of every arm, with its interval over seeds."""
    values = {arm: mean_over_seeds(study.values(arm, WORST_CLASS_ACCURACY)) for arm in study.arms}
    return Points("worst-class accuracy, %", values)


def eod_points(study: Study, fairness: GroupFairness) -> Points:
    """EOD of every arm, with its interval over seeds and examples."""
    [name] = figure_names([fairness.name], "attribute")
    return Points(f"EOD ({name}), %", {arm: fairness.interval(arm, "eod") for arm in study.arms})


@own_style()
def methods_figure(study: Study, points: Points) -> Figure:
    """Accuracy against another metric: a point with the cross of its intervals for every arm."""
    methods = list(dict.fromkeys(arm.method for arm in study.distilled))
    figure = Figure(figsize=(8, 5 + 0.2 * (len(methods) // _LEGEND_COLUMNS)), layout="constrained")
    axes = figure.subplots()
    named = set[str]()
    for arm, across in points.values.items():
        up = mean_over_seeds(study.values(arm, ACCURACY))
        x, y = 100 * across.estimate, 100 * up.estimate
        name = arm.method or arm.role.label
        axes.errorbar(
            [x],
            [y],
            _reach(up),
            _reach(across),
            linewidth=0.8,
            label=None if name in named else name,
            **_look(arm, methods),
        )
        named.add(name)
        if arm.temperature is not None and np.isfinite([x, y]).all():
            words, place = f"{arm.temperature:g}", "offset points"
            axes.annotate(words, (x, y), xytext=(4, 3), textcoords=place, fontsize=7)
    axes.set_xlabel(points.label)
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=_LEGEND_COLUMNS, frameon=False, fontsize=8)
    return figure


def _reach(interval: Interval) -> FloatArray:
    """How far an interval goes down and up, in per cent; 0 where it is not known."""
    down, up = interval.estimate - interval.low, interval.high - interval.estimate
    return 100 * np.nan_to_num([[down], [up]])


def _look(arm: Arm, methods: Sequence[str | None]) -> dict[str, Any]:
    if arm.method is None:
        return {"color": COLORS[arm.role.label], "marker": "*", "markersize": 10}
    round_, color = divmod(methods.index(arm.method), _METHOD_COLORS)
    marker = _METHOD_MARKERS[round_ % len(_METHOD_MARKERS)]
    return {"color": f"C{color}", "marker": marker, "markersize": 5}
