"""Figures 1 and 2 of the paper with a study's numbers; the page draws the others as curves.

Temperatures have equal distances, because 20, 30 and 40 would compress 1 to 10.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdplatform.analysis.disagreement import disagreement_matrix
from kdplatform.reporting.drawing import figure_names, own_style
from kdplatform.reporting.figures import COLORS, SIGNIFICANT
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Arm, Study

DS = Role.DISTILLED.label
# Style of the constant line of a reference.
_LINES: dict[Role, Literal["--", ":"]] = {Role.STUDENT: "--", Role.TEACHER: ":"}

_CURVE: dict[str, Any] = {
    "color": COLORS[DS], "marker": "o", "markersize": 4, "linewidth": 1.2
}  # fmt: skip
_MOST_CLASSES = 20
_COLUMNS = 4


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
    # Limits of an accuracy, with a little room so that no mark is cut.
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
    """Returns the legend entries of the references."""
    return [
        Line2D([], [], color=COLORS[role.label], linestyle=style, label=role.label)
        for role, style in _LINES.items()
    ]


def _by_method(study: Study) -> list[list[int]]:
    """The positions of the arms of every method; a line joins only those of one method."""
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
