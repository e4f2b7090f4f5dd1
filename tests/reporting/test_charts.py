"""Charts say the same on the page and in a picture."""

import math

import numpy as np
import plotly.graph_objects as go
import pytest

from kdplatform.reporting.chart_plotly import plotly_figure
from kdplatform.reporting.chart_png import chart_figure
from kdplatform.reporting.charts import Chart, Crosses, Curves, Dots, Level, Look, Panel, Points
from kdplatform.reporting.drawing import figure_png

NAN = math.nan
LOW = Points("A", Look.REFERENCE, [0.5, 0.25, NAN], [0.4, NAN, NAN], [0.7, NAN, NAN])
HIGH = Points("B", Look.OTHER, [0.6, 0.75, 0.5], [0.5, 0.7, 0.4], [0.8, 0.8, 0.6], ["n 3"] * 3)
NAMES = ["f", "<b>m</b>", "$x_1$"]
CHARTS: dict[str, Chart] = {
    "dots": Dots(
        "d", "Dots", "", NAMES, [Panel("rate", [LOW, HIGH], [Level("p", Look.OTHER, 0.5)])]
    ),
    "ranks": Dots("r", "Ranks", "", NAMES, [Panel("points", [LOW, HIGH])], by_rank=True, zero=True),
    "curves": Curves(
        *("c", "Curves", "", NAMES, [Panel("EOD", [LOW, HIGH], [Level("NDS", Look.NDS, 0.5)])] * 2),
        axis="T",
        lines=[[0, 2], [1]],
    ),
    "crosses": Crosses(
        *("x", "Crosses", "", [], [Panel("", [LOW, HIGH])]),
        up=[HIGH, LOW],
        across_title="EOD, %",
        up_title="accuracy, %",
    ),
}


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_is_a_figure_that_plotly_takes(kind: str) -> None:
    figure = plotly_figure(CHARTS[kind])
    colored = go.Figure(_with_colors(figure))  # refuses properties and values that do not exist
    assert len(colored.data) == len(figure["data"]) >= 2


@pytest.mark.parametrize(("most", "marks"), [(0.0, 1), (3.0, 1), (40.0, None)])
def test_an_axis_of_counts_has_every_mark_once(most: float, marks: int | None) -> None:
    points = Points("p < .05", Look.OTHER, [0.0, most, NAN], [NAN] * 3, [NAN] * 3)
    panel = Panel("#SC", [points], [Level("by chance", Look.REFERENCE, 0.5)])
    chart = Curves("k", "Counts", "", NAMES, [panel], percent=False, axis="T", lines=[[0, 1, 2]])
    axis = plotly_figure(chart)["layout"]["yaxis"]
    assert axis.get("dtick") == marks
    assert axis.get("rangemode") == (None if marks else "tozero")
    if marks:
        assert axis["range"][1] > max(most, 1)


def _with_colors(value: object) -> object:
    """The figure with a colour in place of every name of one."""
    if isinstance(value, str):
        return "#000000" if value.startswith("--") else value
    if isinstance(value, list):
        return [_with_colors(each) for each in value]
    if isinstance(value, dict):
        return {name: _with_colors(each) for name, each in value.items()}
    return value


@pytest.mark.parametrize("kind", CHARTS)
def test_a_chart_is_a_picture(kind: str) -> None:
    assert figure_png(chart_figure(CHARTS[kind]), 40).startswith(b"\x89PNG")


def test_points_and_intervals_are_in_per_cent_and_gaps_are_gaps() -> None:
    first = plotly_figure(CHARTS["dots"])["data"][0]
    assert first["x"] == [50.0, 25.0, None]
    assert first["error_x"]["array"] == [20.0, None, None]
    assert first["error_x"]["arrayminus"] == [10.0, None, None]
    axes = chart_figure(CHARTS["dots"]).axes[0]
    marks = axes.containers[0].lines[0]  # type: ignore[attr-defined]
    np.testing.assert_allclose(marks.get_xdata(), [50, 25, NAN])


def test_names_hold_neither_markup_nor_formulas() -> None:
    layout = plotly_figure(CHARTS["dots"])["layout"]
    assert layout["yaxis"]["ticktext"] == ["f", "&lt;b&gt;m&lt;/b&gt;", "&#36;x_1&#36;"]
    hover = plotly_figure(CHARTS["dots"])["data"][1]["hovertext"]
    assert hover[1] == "<b>&lt;b&gt;m&lt;/b&gt;</b><br>B: 75.00 (70.00 to 80.00)<br>n 3"


def test_series_differ_in_their_marks_and_not_in_colour_alone() -> None:
    looks = [Look.REFERENCE, Look.OTHER, Look.BETTER, Look.WORSE, Look.UNSURE]
    series = [Points(look, look, [0.1], [NAN], [NAN]) for look in looks]
    data = plotly_figure(Dots("k", "t", "", ["x"], [Panel("p", series)]))["data"]
    marks = [(each["marker"]["symbol"], each["name"]) for each in data]
    assert len({symbol for symbol, name in marks if name != "unsure"}) == 4


def test_a_line_joins_the_arms_of_one_method_alone() -> None:
    data = plotly_figure(CHARTS["curves"])["data"]
    assert [trace["x"] for trace in data[:2]] == [[0, 2], [1]]


def test_series_lie_side_by_side_unless_each_row_has_one_point():
    nan = float("nan")

    def panel(*values: list[float]) -> Panel:
        return Panel("", [Points("", Look.OTHER, own, own, own) for own in values])

    together = panel([1.0, 2.0], [3.0, nan])
    assert [together.shift(place) for place in range(2)] == [-0.16, 0.16]
    apart = panel([1.0, nan], [nan, 2.0], [nan, nan])
    assert [apart.shift(place) for place in range(3)] == [0, 0, 0]
