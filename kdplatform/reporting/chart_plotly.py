"""Charts as Plotly figures: plain dictionaries, which the page passes to its copy of Plotly."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from kdplatform.reporting.charts import Chart, Crosses, Curves, Dots, Level, Look, Panel, Points
from kdplatform.text import visible

Figure = dict[str, Any]

# Above this many names interval bars would hide each other.
_CROWDED = {"thickness": 0.5, "width": 0}
# Up to this value every whole number has a tick.
_FEW = 5
_ROW = 24  # pixels of a name
_LONGEST_NAME = 28
# Colours by their names in the page's style sheet, which has a light and a dark theme; Plotly's
# marks.
_MARKS = {
    Look.REFERENCE: ("--reference", "circle-open"),
    Look.OTHER: ("--other", "square"),
    Look.BETTER: ("--good", "triangle-up"),
    Look.WORSE: ("--bad", "triangle-down"),
    Look.UNSURE: ("--soft", "circle-open"),
    Look.TEACHER: ("--text", "diamond-open"),
    Look.NDS: ("--reference", "circle-open"),
}
_DASHES = {Look.TEACHER: "dot", Look.NDS: "dash", Look.REFERENCE: "dash", Look.OTHER: "dashdot"}
# For several methods in one chart: Okabe and Ito's palette, and a different mark for each.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A94")
_SYMBOLS = ("square", "circle", "diamond", "triangle-up", "cross", "x", "star", "hexagon")


def plotly_figure(chart: Chart) -> Figure:
    """Returns a chart as `data` and `layout`; colours are names of the page's style sheet."""
    if isinstance(chart, Crosses):
        return _crosses(chart)
    if isinstance(chart, Curves):
        return _curves(chart)
    assert isinstance(chart, Dots)
    return _dots(chart)


def plain(text: object) -> str:
    """Returns a text that Plotly shows without tags, such as `<a>`, and without formulas."""
    return escape(visible(text), quote=True).replace("$", "&#36;")


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def numbers(values: Iterable[float], scale: float) -> list[float | None]:
    """Returns values for JSON: three decimals, null for a missing one."""
    return [round(scale * value, 3) if math.isfinite(value) else None for value in values]


def reach(points: Points, scale: float) -> Mapping[str, Any]:
    """Returns the intervals of points as error bars."""
    up = [high - value for high, value in zip(points.high, points.values, strict=True)]
    down = [value - low for low, value in zip(points.low, points.values, strict=True)]
    return {
        "type": "data",
        "symmetric": False,
        "array": numbers(up, scale),
        "arrayminus": numbers(down, scale),
        "thickness": 1.2,
        "width": 3,
    }


def _bars(chart: Chart, points: Points) -> Figure:
    return {**reach(points, chart.scale), "color": _MARKS[points.look][0]}


def _dash(look: Look) -> str:
    return _DASHES.get(look, "dash")


def _mark(look: Look) -> Figure:
    color, symbol = _MARKS[look]
    return {"color": color, "symbol": symbol, "size": 9, "line": {"color": color, "width": 1.6}}


def _hover(chart: Chart, points: Points) -> list[str]:
    """The text of a point: its name, its value with the interval, and further words."""
    digits = 2 if chart.percent else 1
    said = []
    for row, value in enumerate(points.values):
        own = points.words[row] if points.words else ""
        words = f"{chart.scale * value:.{digits}f}"
        if math.isfinite(points.low[row]):
            low, high = (chart.scale * end[row] for end in (points.low, points.high))
            words += f" ({low:.{digits}f} to {high:.{digits}f})"
        name = chart.names[row] if row < len(chart.names) else ""
        lines = [f"<b>{plain(name)}</b>", f"{plain(points.name)}: {words}", plain(own)]
        said.append("<br>".join(filter(None, lines)))
    return said


def _domains(panels: int) -> list[tuple[float, float]]:
    gap = 0.05 if panels > 2 else 0.08
    width = (1 - gap * (panels - 1)) / panels
    return [
        (round(i * (width + gap), 4), round(i * (width + gap) + width, 4)) for i in range(panels)
    ]


def _layout(chart: Chart, height: int) -> Figure:
    return {
        "height": height,
        "margin": {"l": 12, "r": 14, "t": 34, "b": 30},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "top", "yref": "container"},
        "annotations": [],
        "shapes": [],
    }


def _titled(layout: Figure, number: int, title: str, domain: tuple[float, float]) -> None:
    layout["annotations"].append(
        {
            "text": f"<b>{plain(title)}</b>",
            "x": domain[0],
            "y": 1,
            "xref": "paper",
            "yref": "paper",
            "xanchor": "left",
            "yanchor": "bottom",
            "showarrow": False,
        }
    )


def _line(layout: Figure, axis: str, value: float, look: Look | None, *, upright: bool) -> None:
    """A constant line across the panel of an axis."""
    color = "--line-strong" if look is None else _MARKS[look][0]
    dash = "solid" if look is None else _dash(look)
    along, across = ("x", "y") if upright else ("y", "x")
    number = axis[1:]
    layout["shapes"].append(
        {
            "type": "line",
            "layer": "below",
            f"{along}ref": f"{along}{number}",
            f"{across}ref": f"{across}{number} domain" if across == "x" else "paper",
            f"{along}0": value,
            f"{along}1": value,
            f"{across}0": 0,
            f"{across}1": 1,
            "line": {"color": color, "width": 1.3, "dash": dash},
        }
    )


def _axis(number: int) -> str:
    return "" if number == 0 else str(number + 1)


def _dots(chart: Dots) -> Figure:
    many = chart.by_rank
    height = 430 if many else 92 + _ROW * max(2, len(chart.names))
    layout = _layout(chart, height)
    data: list[Figure] = []
    domains = _domains(len(chart.panels))
    for number, (panel, domain) in enumerate(zip(chart.panels, domains, strict=True)):
        axis = _axis(number)
        value_axis = "y" if many else "x"
        drawn = [own for own in panel.series if any(map(math.isfinite, own.values))]
        for place, points in enumerate(panel.series):
            if points not in drawn:
                continue
            shift = 0.0 if many else panel.shift(place)
            positions = [round(row + shift, 3) for row in range(len(chart.names))]
            values = numbers(points.values, chart.scale)
            across = {"x": positions, "y": values} if many else {"x": values, "y": positions}
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain(points.name),
                    "legendgroup": plain(points.name),
                    "showlegend": number == 0,
                    **across,
                    f"error_{value_axis}": _bars(chart, points) | (_CROWDED if many else {}),
                    "marker": _mark(points.look) | ({"size": 6} if many else {}),
                    "hoverinfo": "text",
                    "hovertext": _hover(chart, points),
                    "xaxis": f"x{axis}",
                    "yaxis": "y",
                }
            )
        values_axis = {"zeroline": False, "ticksuffix": "", "automargin": True}
        if many:
            layout["xaxis"] = {"title": {"text": "rank"}, "zeroline": False}
            layout["yaxis"] = {**values_axis, "title": {"text": _unit(chart, panel.title)}}
        else:
            title = {"text": _unit(chart, panel.title), "standoff": 6}
            layout[f"xaxis{axis}"] = {
                **values_axis,
                "domain": list(domain),
                "title": title,
                "nticks": 6,
            }
        if chart.zero:
            _line(layout, f"x{axis}" if not many else "y", 0, None, upright=not many)
        for level in panel.levels:
            if math.isfinite(level.value):
                _line(layout, f"x{axis}", chart.scale * level.value, level.look, upright=True)
    if not many:
        layout["yaxis"] = {
            "tickvals": list(range(len(chart.names))),
            "ticktext": [plain(_short(name)) for name in chart.names],
            "range": [len(chart.names) - 0.5, -0.5],
            "automargin": True,
            "zeroline": False,
        }
    return {"data": data, "layout": layout}


def _unit(chart: Chart, title: str) -> str:
    return plain(chart.unit(title))


def _curves(chart: Curves) -> Figure:
    layout = _layout(chart, 350)
    layout["margin"]["t"] = 62
    data: list[Figure] = []
    domains = _domains(len(chart.panels))
    everything = [list(range(len(chart.names)))]
    for number, (panel, domain) in enumerate(zip(chart.panels, domains, strict=True)):
        axis = _axis(number)
        for points in panel.series:
            said = _hover(chart, points)
            for first, rows in enumerate(chart.lines or everything):
                part = _rows(points, rows)
                data.append(
                    {
                        "type": "scatter",
                        "mode": "lines+markers",
                        "name": plain(points.name),
                        "legendgroup": plain(points.name),
                        "showlegend": number == 0 and first == 0,
                        "x": list(rows),
                        "y": numbers(part.values, chart.scale),
                        "error_y": _bars(chart, part),
                        "marker": _mark(points.look) | {"size": 8},
                        "line": {"color": _MARKS[points.look][0], "width": 1.5},
                        "hoverinfo": "text",
                        "hovertext": [said[row] for row in rows],
                        "xaxis": f"x{axis}",
                        "yaxis": f"y{axis}",
                    }
                )
        data += _level_lines(chart, panel.levels, axis, show=number == 0)
        long = max((len(name) for name in chart.names), default=0) > 5
        layout[f"xaxis{axis}"] = {
            "domain": list(domain),
            "anchor": f"y{axis}",
            "tickvals": list(range(len(chart.names))),
            "ticktext": [plain(_short(name)) for name in chart.names],
            "tickangle": -60 if long else 0,
            "title": {"text": plain(chart.axis), "standoff": 6},
            "range": [-0.5, len(chart.names) - 0.5],
            "zeroline": False,
            "automargin": True,
        }
        layout[f"yaxis{axis}"] = {
            "anchor": f"x{axis}",
            "zeroline": False,
            "automargin": True,
            "nticks": 6,
            **({} if chart.percent else _count_axis(panel)),
        }
        _titled(layout, number, _unit(chart, panel.title), domain)
    return {"data": data, "layout": layout}


def _count_axis(panel: Panel) -> Figure:
    """Returns an axis from 0 whose ticks are distinct whole numbers."""
    values = [value for points in panel.series for value in points.values]
    values += [level.value for level in panel.levels]
    most = max((value for value in values if math.isfinite(value)), default=0.0)
    if most > _FEW:
        return {"tickformat": "~d", "rangemode": "tozero"}
    return {"tickformat": "~d", "dtick": 1, "range": [-0.05, max(1, math.ceil(most)) + 0.2]}


def _rows(points: Points, rows: Sequence[int]) -> Points:
    values, low, high = (
        [of[row] for row in rows] for of in (points.values, points.low, points.high)
    )
    return Points(points.name, points.look, values, low, high)


def _level_lines(chart: Chart, levels: Sequence[Level], axis: str, *, show: bool) -> list[Figure]:
    """Constant lines as traces, so that they appear in the legend."""
    ends = [-0.5, len(chart.names) - 0.5]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plain(level.name),
            "legendgroup": plain(level.name),
            "showlegend": show,
            "x": ends,
            "y": [round(chart.scale * level.value, 3)] * 2,
            "line": {
                "color": _MARKS[level.look][0],
                "width": 1.4,
                "dash": _dash(level.look),
            },
            "hoverinfo": "name+y",
            "xaxis": f"x{axis}",
            "yaxis": f"y{axis}",
        }
        for level in levels
        if math.isfinite(level.value)
    ]


def _crosses(chart: Crosses) -> Figure:
    layout = _layout(chart, 480)
    data: list[Figure] = []
    [panel] = chart.panels
    for number, (across, up) in enumerate(zip(panel.series, chart.up, strict=True)):
        color = _PALETTE[number % len(_PALETTE)]
        symbol = _SYMBOLS[number % len(_SYMBOLS)]
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": plain(across.name),
                "x": numbers(across.values, chart.scale),
                "y": numbers(up.values, chart.scale),
                "error_x": {**reach(across, chart.scale), "color": color},
                "error_y": {**reach(up, chart.scale), "color": color},
                "text": [plain(word) for word in across.words],
                "textposition": "top right",
                "marker": {"color": color, "symbol": symbol, "size": 9},
                "hoverinfo": "name+x+y",
            }
        )
    for name, title in (("xaxis", chart.across_title), ("yaxis", chart.up_title)):
        layout[name] = {"title": {"text": plain(title)}, "zeroline": False, "automargin": True}
    return {"data": data, "layout": layout}
