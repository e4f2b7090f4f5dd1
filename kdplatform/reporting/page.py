"""A page of sections, tables and figures, as one self-contained HTML file or as Markdown.

Text from data never becomes markup: the templates escape whatever is put into them.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from kdplatform.reporting.drawing import figure_png
from kdplatform.reporting.report_table import Table
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
        warnings: what a reader must not overlook.
        points: a list of short facts.
        prose: tables of words rather than numbers.
    """

    title: str
    paragraphs: Sequence[str] = ()
    warnings: Sequence[str] = ()
    points: Sequence[str] = ()
    prose: Sequence[Table] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        tally: numbers that stand at the top, by what they count.
    """

    title: str
    subtitle: str
    sections: Sequence[Section] = field(default_factory=tuple)
    tally: Sequence[tuple[str, int]] = ()

    def tables(self) -> list[Table]:
        """All tables of the page."""
        return [t for section in self.sections for t in (*section.prose, *section.tables)]

    def pictures(self) -> list[Picture]:
        """All figures of the page."""
        return [picture for section in self.sections for picture in section.pictures]


def render(page: Page, images: Mapping[str, bytes]) -> str:
    """Returns the page as HTML that opens without a network.

    Args:
        images: PNG files by the key of their picture.
    """
    encoded = {key: base64.b64encode(png).decode() for key, png in images.items()}
    return _HTML.get_template("page.html.j2").render(page=page, images=encoded)


def render_markdown(page: Page) -> str:
    """Returns the page as GitHub's Markdown; pictures are the PNG files beside it."""
    return _MARKDOWN.get_template("page.md.j2").render(page=page)


def _group_starts(table: Table) -> set[int]:
    """Returns the columns at which a group begins, but for the first group."""
    return set(accumulate(size for _, size in table.groups[:-1]))


def _distinct_names(table: Table) -> list[str]:
    """Returns the columns' names; one that several columns share gets the heading above it."""
    names = [str(name) for name in table.shown.columns]
    above = [heading for heading, size in table.groups for _ in range(size)]
    return [
        f"{heading}: {name}" if heading and names.count(name) > 1 else name
        for name, heading in zip(names, above or [""] * len(names), strict=True)
    ]


def _markdown_text(value: object) -> str:
    """Returns text that Markdown shows as it is, on one line; what is marked safe stays."""
    if isinstance(value, Markup):
        return value
    text = re.sub(r"[\\`*_\[\]<>|#&~$]", r"\\\g<0>", visible(" ".join(str(value).split())))
    # At the start of a paragraph: a bullet, a number of a list or a rule.
    return re.sub(r"^(\d*)([-+.)])(?= |--)", r"\1\\\2", text)


def _html_text(value: object) -> object:
    """Returns what the page is to escape; text of the page's own is marked safe and stays."""
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
_HTML.filters |= {"group_starts": _group_starts, "distinct_names": _distinct_names}
_MARKDOWN = _HTML.overlay(autoescape=False, finalize=_markdown_text)
