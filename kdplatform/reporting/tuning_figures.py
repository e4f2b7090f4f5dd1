"""Figures of a search: the trade-off that it found, and how fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kdplatform.reporting.drawing import figure_text, own_style
from kdplatform.reporting.figures import COLORS, MARKERS, SIGNIFICANT

_DOMINATED = "#9A9A9A"
_GRID = "#56B4E9"
# Share of the points' range that stays free around them.
_MARGIN = 0.08
# A reference that is farther away than this many times the points' range is named at the edge.
_FAR = 1.5


@dataclass(frozen=True)
class Axis:
    """The quantity of an axis.

    Attributes:
        is_share: whether values are fractions, shown in per cent.
    """

    label: str
    is_share: bool


@own_style()
def pareto_figure(
    trials: pd.DataFrame,
    references: Mapping[str, tuple[float, float]],
    marked: Mapping[str, tuple[float, float]],
    unfairness: Axis,
    title: str,
) -> Figure:
    """Draws accuracy against unfairness: better is up and to the left.

    Args:
        trials: one row per point: `accuracy`, `unfairness`, `front`, `grid`, `feasible` (bool), and
            `method`, which distinguishes points if there are several.
        references: (unfairness, accuracy) of Teacher and NDS.
        marked: (unfairness, accuracy) of the search's named points, such as the knee.
    """
    figure = Figure(figsize=(7.5, 5.6), layout="constrained")
    axes = figure.subplots()
    feasible = trials[trials["feasible"]]
    plain = feasible[~feasible["front"]]
    looks = _looks(trials["method"])
    # With one method a square marks points of the first trials. With several methods it surrounds
    # the point.
    small = plain if len(looks) > 1 else plain[~plain["grid"]]
    for method, look in looks.items():
        own, label = small[small["method"] == method], f"{look.prefix}dominated"
        _points(axes, own, look.marker, look.dominated, label, filled=True)
    _points(axes, trials[~trials["feasible"]], "x", _DOMINATED, "violates a constraint")
    front = feasible[feasible["front"]].sort_values("unfairness")
    axes.plot(
        front["unfairness"],
        front["accuracy"],
        drawstyle="steps-post",
        color=COLORS["DS"],
        linewidth=1.2,
        zorder=2,
    )
    for method, look in looks.items():
        own, label = front[front["method"] == method], f"{look.prefix}Pareto front"
        _points(axes, own, look.marker, look.front, label, filled=True, size=42)
    _points(axes, feasible[feasible["grid"]], "s", _GRID, "tried first", size=70)
    shapes = ("D", "*", "^", "v")
    for shape, (name, (x, y)) in zip(shapes, marked.items(), strict=False):
        axes.scatter(
            [x], [y], marker=shape, s=130, facecolors="none", edgecolors=SIGNIFICANT,
            linewidths=1.6, label=name, zorder=5,
        )  # fmt: skip
    _frame(axes, trials, references)
    _references(axes, references)
    for axis, shown in ((axes.xaxis, unfairness), (axes.yaxis, Axis("", True))):
        axis.set_major_locator(MaxNLocator(7))
        if shown.is_share:
            axis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel(figure_text(f"{unfairness.label}, validation (lower is fairer)"))
    axes.set_ylabel("validation accuracy")
    axes.grid(alpha=0.3)
    axes.set_title(figure_text(title), fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


@dataclass(frozen=True)
class _Look:
    """How the points of a method are drawn."""

    prefix: str = ""
    marker: str = "o"
    front: Any = COLORS["DS"]
    dominated: Any = _DOMINATED


def _looks(methods: pd.Series) -> dict[str, _Look]:
    """Returns the looks of methods; with several methods dark on the front and light behind it.

    After ten methods the colors repeat with another shape.
    """
    names = list(dict.fromkeys(methods))
    if len(names) == 1:
        return {names[0]: _Look()}
    looks = {}
    for number, name in enumerate(names):
        dark, light = (colormaps["tab20"](2 * (number % 10) + shade) for shade in (0, 1))
        looks[name] = _Look(f"{name}, ", "oPX"[number // 10 % 3], dark, light)
    return looks


def _points(
    axes: Axes,
    rows: pd.DataFrame,
    marker: str,
    color: str,
    label: str,
    *,
    filled: bool = False,
    size: float = 28,
) -> None:
    if rows.empty:
        return
    look: dict[str, Any] = {"color": color}
    if not filled and marker != "x":
        look = {"facecolors": "none", "edgecolors": color, "linewidths": 1.6}
    x, y = rows["unfairness"], rows["accuracy"]
    axes.scatter(x, y, s=size, marker=marker, label=label, zorder=3, **look)


def _frame(axes: Axes, trials: pd.DataFrame, references: Mapping[str, tuple[float, float]]) -> None:
    """Frames the points, and the references if they do not compress the points."""
    usable = trials[trials["feasible"]] if trials["feasible"].any() else trials
    limits = []
    for position, column in enumerate(("unfairness", "accuracy")):
        values = usable[column].to_numpy(dtype=float)
        low, high = float(values.min()), float(values.max())
        span = (high - low) or max(0.1 * abs(low), 1e-3)
        near = [
            point[position]
            for point in references.values()
            if low - _FAR * span <= point[position] <= high + _FAR * span
        ]
        low, high = min([low, *near]), max([high, *near])
        room = _MARGIN * ((high - low) or span)
        limits.append((low - room, high + room))
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])


def _references(axes: Axes, references: Mapping[str, tuple[float, float]]) -> None:
    """Draws the references; one outside the frame is drawn at its edge, with its values."""
    for name, (x, y) in references.items():
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        inside = left <= x <= right and bottom <= y <= top
        label = name if inside else f"{name} (outside, at the edge)"
        axes.scatter(
            [min(max(x, left), right)], [min(max(y, bottom), top)], marker=MARKERS[name], s=75,
            color=COLORS[name], label=label, zorder=6, clip_on=False,
        )  # fmt: skip


@own_style()
def hypervolume_figure(history: Sequence[float], grid: int, title: str) -> Figure:
    """Draws the hypervolume after each trial.

    Args:
        grid: how many trials at the start were the project's own points.
    """
    figure = Figure(figsize=(7.5, 3.6), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(history) + 1), history, color=COLORS["DS"], drawstyle="steps-post")
    if 0 < grid < len(history):
        axes.axvline(grid + 0.5, color=_GRID, linestyle="--", label="what is tried first ends")
        axes.legend(frameon=False, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trials")
    axes.set_ylabel("hypervolume (higher is better)")
    axes.grid(alpha=0.3)
    axes.set_title(figure_text(title), fontsize=11)
    return figure
