"""The figures of a sweep's run: the metrics of the arms against the temperature."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kdplatform.reporting.drawing import figure_text, own_style
from kdplatform.reporting.figures import COLORS
from kdplatform.roles import Role

# With more numbers than this, the tick labels would overlap.
_MOST_TICKS = 20
# The metrics that are drawn; the table has all others.
_DRAWN = ("accuracy", "worst_class_accuracy", "eod", "dpd", "worst_group_accuracy")
_STYLES = {Role.STUDENT.label: "--", Role.TEACHER.label: ":"}


def temperature_figures(statistics: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Draws the main metrics against the temperature: mean and 95% interval over seeds.

    Temperatures have equal distances, as in the paper's figures. Arms without a temperature are in
    no figure. Teacher and NDS are horizontal lines.

    Args:
        statistics: as `over_seeds.arm_statistics` gives it.

    Yields:
        The figure's name, which is made from the name of the metric, and the figure.
    """
    if statistics["temperature"].notna().sum() == 0:
        return
    for metric, rows in statistics.groupby("metric", sort=False):
        if str(metric).rpartition("/")[2] not in _DRAWN:
            continue
        yield f"over_T_{str(metric).replace('/', '_')}", _figure(str(metric), rows)


@own_style()
def _figure(metric: str, rows: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    temperatures = sorted(rows["temperature"].dropna().unique())
    distilled = rows[rows["temperature"].notna()]
    for number, (method, own) in enumerate(distilled.groupby("method", sort=False)):
        several = distilled["method"].nunique() > 1
        color = f"C{number % 10}" if several else COLORS[Role.DISTILLED.label]
        label = f"DS {method}" if several else "DS"
        places = [temperatures.index(value) for value in own["temperature"]]
        _curve(axes, places, own, color, label)
    for role, style in _STYLES.items():
        for row in rows[rows["role"] == role].to_dict("records"):
            axes.axhline(row["mean"], color=COLORS[role], linestyle=style, label=role)
            if np.isfinite(row["low"]):
                axes.axhspan(row["low"], row["high"], color=COLORS[role], alpha=0.08)
    every = -(-len(temperatures) // _MOST_TICKS)
    ticks = range(0, len(temperatures), every)
    axes.set_xticks(ticks, [f"{temperatures[tick]:g}" for tick in ticks], fontsize=8)
    axes.set_xlabel("temperature T")
    axes.set_ylabel(figure_text(metric))
    axes.set_title("mean and 95% interval over seeds", fontsize=9)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _curve(axes: Axes, places: Sequence[int], own: pd.DataFrame, color: str, label: str) -> None:
    means = own["mean"].to_numpy(dtype=float)
    axes.plot(places, means, color=color, marker="o", markersize=4, linewidth=1.2, label=label)
    low, high = (own[name].to_numpy(dtype=float) for name in ("low", "high"))
    known = np.isfinite(low)
    if known.any():
        at = np.asarray(places)[known]
        bars = [(means - low)[known], (high - means)[known]]
        axes.errorbar(at, means[known], bars, color=color, linestyle="none", capsize=2)
