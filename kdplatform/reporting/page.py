"""A page of chapters, tables and figures, as one self-contained HTML file, Markdown or LaTeX.

Text from data never becomes markup, because the templates escape all values. The page contains its
style, its script, the data of its figures and one bundle of Plotly. It needs no network.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from kdplatform.reporting.chart_plotly import plotly_figure
from kdplatform.reporting.chart_png import chart_figure
from kdplatform.reporting.charts import Chart, Dots
from kdplatform.reporting.class_rates import ClassRates
from kdplatform.reporting.drawing import figure_png
from kdplatform.reporting.gallery import Gallery
from kdplatform.reporting.packing import packed, plotly_bundle
from kdplatform.reporting.report_table import Table
from kdplatform.study.findings import Finding
from kdplatform.text import visible

DPI = 130


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its file, its title and what it shows."""

    key: str
    title: str
    figure: Figure
    caption: str = ""

    def png(self) -> bytes:
        """The figure as a PNG file."""
        return figure_png(self.figure, DPI)


@dataclass(frozen=True)
class Section:
    """A part of the page, in the order in which it is read.

    Attributes:
        paragraphs: plain text.
        warnings: sentences that a reader must not overlook.
        points: a list of short facts.
        prose: tables of words rather than numbers.
        findings: the sentences that lead the page.
        charts: figures that the page draws; each has a picture beside the page.
        rates: rates of one class, chosen in the page.
        gallery: examples that are shown.
        parts: sections within this one.
        switch: label of the choice, if the reader chooses one of the parts; empty if all are shown.
        folded: whether it is closed until the reader opens it.
        tally: the counts that are shown first, with their names.
    """

    title: str
    paragraphs: Sequence[str] = ()
    warnings: Sequence[str] = ()
    points: Sequence[str] = ()
    prose: Sequence[Table] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    findings: Sequence[Finding] = ()
    charts: Sequence[Chart] = ()
    rates: ClassRates | None = None
    gallery: Gallery | None = None
    parts: Sequence["Section"] = ()
    switch: str = ""
    folded: bool = False
    tally: Sequence[tuple[str, int]] = ()

    def all_parts(self) -> Iterator["Section"]:
        """The section and everything within it, in the order of the page."""
        yield self
        for part in self.parts:
            yield from part.all_parts()


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        kind: kind of the page, shown above its title.
    """

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=tuple)
    kind: str = "Report"

    def parts(self) -> Iterator[Section]:
        """All sections, with those within others."""
        for section in self.sections:
            yield from section.all_parts()

    def tables(self) -> list[Table]:
        """All tables of the page; those that exist only as a file come last."""
        shown = [table for part in self.parts() for table in (*part.prose, *part.tables)]
        return [*shown, *(part.rates.table for part in self.parts() if part.rates)]

    def charts(self) -> list[Chart]:
        """All figures that the page draws."""
        return [chart for part in self.parts() for chart in part.charts]

    def pictures(self) -> list[Picture]:
        """All figures of the page, as pictures."""
        found = []
        for part in self.parts():
            drawn = [chart for chart in part.charts if chart.pictured]
            found += [Picture(c.key, c.title, chart_figure(c), c.caption) for c in drawn]
            found += part.pictures
        return found


def render(page: Page, images: Mapping[str, bytes]) -> str:
    """Returns the page as HTML that opens without a network.

    Args:
        images: PNG files by the key of their picture.
    """
    data = _data(page)
    encoded = {key: base64.b64encode(png).decode() for key, png in images.items()}
    return _HTML.get_template("page.html.j2").render(
        page=page,
        images=encoded,
        data=Markup(packed(json.dumps(data, separators=(",", ":")).encode())),
        bundle=Markup(plotly_bundle().packed if data["charts"] or data["rates"] else ""),
        script=Markup(_script()),
        # Only the page's two scripts can run, whatever a name contains.
        script_digests=Markup(" ".join(f"'{each}'" for each in _digests())),
    )


def _data(page: Page) -> dict[str, Any]:
    """The data of the page's script: figures by their keys, and rates by class."""
    return {
        "charts": {
            chart.key: plotly_figure(chart) | {"names": list(map(visible, chart.names))}
            for chart in page.charts()
        },
        "rates": {part.rates.key: part.rates.data() for part in page.parts() if part.rates},
    }


def _script() -> str:
    source, _, _ = _HTML.loader.get_source(_HTML, "page.js")  # type: ignore[union-attr]
    return source


def _digests() -> Iterator[str]:
    own = base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()
    yield f"sha256-{own}"
    yield plotly_bundle().digest


def render_markdown(page: Page) -> str:
    """Returns the page as GitHub's Markdown; pictures are the PNG files beside it."""
    return _MARKDOWN.get_template("page.md.j2").render(page=page)


def _widest(chart: Chart) -> str:
    """Returns the largest width of a chart; a few rows over the whole page are hard to read."""
    narrow = isinstance(chart, Dots) and not chart.by_rank
    return f"{16 + 16 * min(4, len(chart.panels) + 1)}rem" if narrow else "none"


def _group_starts(table: Table) -> set[int]:
    """Returns the columns at which a group begins, except the first group."""
    return set(accumulate(size for _, size in table.groups[:-1]))


def _distinct_names(table: Table) -> list[str]:
    """Returns the columns' names; a name that several columns share gets their heading too."""
    names = [str(name) for name in table.shown.columns]
    above = [heading for heading, size in table.groups for _ in range(size)]
    return [
        f"{heading}: {name}" if heading and names.count(name) > 1 else name
        for name, heading in zip(names, above or [""] * len(names), strict=True)
    ]


def _markdown_text(value: object) -> str:
    """Returns text that Markdown shows unchanged on one line; text marked safe is not escaped."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"[\\`*_\[\]<>|#&~$]", r"\\\g<0>", visible(" ".join(str(value).split())))
    # At the start of a paragraph: a bullet, a number of a list or a rule.
    return re.sub(r"^(\d*)([-+.)])(?= |--)", r"\1\\\2", text)


def _html_text(value: object) -> object:
    """Returns a value that the page escapes; the page's own text is marked safe and stays."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


# Jinja passes each value through `finalize`, so a template cannot forget one.
_HTML = Environment(
    loader=PackageLoader("kdplatform.reporting"),
    autoescape=True,
    finalize=_html_text,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
_HTML.filters |= {
    "group_starts": _group_starts,
    "distinct_names": _distinct_names,
    "widest": _widest,
}
_MARKDOWN = _HTML.overlay(autoescape=False, finalize=_markdown_text)
