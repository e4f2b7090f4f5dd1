"""Charts as pictures by matplotlib: the same points, intervals and lines as in the page."""

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from kdplatform.predictions import FloatArray
from kdplatform.reporting.charts import Chart, Crosses, Curves, Dots, Level, Look, Panel, Points
from kdplatform.reporting.drawing import figure_names, figure_text, own_style

_MARKS: dict[Look, tuple[str, str, bool]] = {  # colour, marker, filled
    Look.REFERENCE: ("#B36B00", "o", False),
    Look.OTHER: ("#0072B2", "s", True),
    Look.BETTER: ("#1a6e3c", "^", True),
    Look.WORSE: ("#a32015", "v", True),
    Look.UNSURE: ("#75757d", "o", False),
    Look.TEACHER: ("#1c1c1e", "D", False),
    Look.NDS: ("#B36B00", "o", False),
}
_DASHES: dict[Look, Literal["--", ":", "-."]] = {
    Look.TEACHER: ":",
    Look.NDS: "--",
    Look.REFERENCE: "--",
    Look.OTHER: "-.",
}
_MOST_COLORS, _MARKERS = 10, "osD^vPX*"


@own_style()
def chart_figure(chart: Chart) -> Figure:
    """Draws a chart."""
    if isinstance(chart, Crosses):
        return _crosses(chart)
    upright = isinstance(chart, Curves) or (isinstance(chart, Dots) and chart.by_rank)
    height = 3.4 if upright else 1.5 + 0.26 * max(2, len(chart.names))
    width = max(6.4, 3.0 * len(chart.panels))
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(1, len(chart.panels), squeeze=False, sharey=not upright)[0]
    for axes, panel in zip(grid, chart.panels, strict=True):
        _panel(axes, chart, panel, upright)
    _legend(figure, chart)
    figure.suptitle(figure_text(chart.title), fontsize=10)
    return figure


def _panel(axes: Axes, chart: Chart, panel: Panel, upright: bool) -> None:
    names = figure_names(chart.names, "#") if not getattr(chart, "by_rank", False) else []
    for place, points in enumerate(panel.series):
        shift = 0.0 if upright else panel.shift(place)
        positions = np.arange(len(points.values), dtype=np.float64) + shift
        lines = chart.lines if isinstance(chart, Curves) else ()
        for rows in lines or [range(len(positions))]:
            _draw(axes, chart, points, positions, list(rows), upright)
    for level in panel.levels:
        _level(axes, chart, level, upright)
    if getattr(chart, "zero", False):
        (axes.axhline if upright else axes.axvline)(0, color="#9a9aa2", linewidth=1)
    title = (
        f"{panel.title}, %" if chart.percent and not getattr(chart, "zero", False) else panel.title
    )
    axes.set_title(figure_text(title), fontsize=9)
    axes.grid(axis="y" if upright else "x", alpha=0.3)
    axes.tick_params(labelsize=8)
    if upright and names:
        rotation = 60 if max(map(len, names)) > 5 else 0
        axes.set_xticks(range(len(names)), names, rotation=rotation)
        axes.set_xlabel(figure_text(getattr(chart, "axis", "")), fontsize=8)
    elif names:
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.5)


def _draw(
    axes: Axes, chart: Chart, points: Points, positions: FloatArray, rows: list[int], upright: bool
) -> None:
    color, marker, filled = _MARKS[points.look]
    values = chart.scale * np.asarray(points.values, dtype=float)[rows]
    bars = _reach(chart, points)[:, rows]
    x, y = (positions[rows], values) if upright else (values, positions[rows])
    axes.errorbar(
        x,
        y,
        yerr=bars if upright else None,
        xerr=None if upright else bars,
        color=color,
        marker=marker,
        markersize=5,
        markerfacecolor=color if filled else "none",
        linestyle="-" if isinstance(chart, Curves) else "none",
        linewidth=1.1,
        elinewidth=0.9,
    )


def _reach(chart: Chart, points: Points) -> FloatArray:
    """How far intervals go down and up; 0 where they are not known. [2, points]."""
    down, up = np.subtract(points.values, points.low), np.subtract(points.high, points.values)
    return chart.scale * np.nan_to_num(np.maximum([down, up], 0))


def _level(axes: Axes, chart: Chart, level: Level, upright: bool) -> None:
    if np.isfinite(level.value):
        color, dash = _MARKS[level.look][0], _DASHES.get(level.look, "--")
        line = axes.axhline if upright else axes.axvline
        line(chart.scale * level.value, color=color, linestyle=dash, linewidth=1.1)


def _legend(figure: Figure, chart: Chart) -> None:
    handles: dict[str, Line2D] = {}
    for panel in chart.panels:
        for points in panel.series:
            color, marker, filled = _MARKS[points.look]
            face, line = (color if filled else "none"), isinstance(chart, Curves)
            handles.setdefault(
                points.name,
                Line2D(
                    [],
                    [],
                    color=color,
                    marker=marker,
                    markerfacecolor=face,
                    linestyle="-" if line else "none",
                    label=figure_text(points.name, 60),
                ),
            )
        for level in panel.levels:
            color, dash = _MARKS[level.look][0], _DASHES.get(level.look, "--")
            label = figure_text(level.name, 60)
            handles.setdefault(level.name, Line2D([], [], color=color, linestyle=dash, label=label))
    if handles:
        figure.legend(
            handles=list(handles.values()),
            loc="outside lower center",
            ncols=min(3, len(handles)),
            frameon=False,
            fontsize=8,
        )


def _crosses(chart: Crosses) -> Figure:
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    [panel] = chart.panels
    for number, (across, up) in enumerate(zip(panel.series, chart.up, strict=True)):
        up_bars, across_bars = (_reach(chart, own) for own in (up, across))
        x, y = (chart.scale * np.asarray(own.values, dtype=float) for own in (across, up))
        axes.errorbar(
            x,
            y,
            yerr=up_bars,
            xerr=across_bars,
            linestyle="none",
            linewidth=0.8,
            color=f"C{number % _MOST_COLORS}",
            marker=_MARKERS[number % len(_MARKERS)],
            markersize=5,
            label=figure_text(across.name, 40),
        )
        for row, word in enumerate(across.words):
            if word and np.isfinite([x[row], y[row]]).all():
                place = (float(x[row]), float(y[row]))
                axes.annotate(word, place, xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel(figure_text(chart.across_title))
    axes.set_ylabel(figure_text(chart.up_title))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    return figure
