"""A self-contained HTML page: sections of text, tables and figures in one file, no network."""

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from matplotlib.figure import Figure

from kdplatform.reporting.report_table import Table

DPI = 130

_STYLE = """
:root { color-scheme: light dark; --back: #fff; --text: #1c1c1e; --soft: #5d5d63;
  --line: #d9d9de; --card: #f5f5f7; --good: #1a6e3c; --bad: #a32015; --open: #5d5d63; }
@media (prefers-color-scheme: dark) { :root { --back: #161618; --text: #ececee; --soft: #a5a5ad;
  --line: #38383d; --card: #212124; --good: #74cf98; --bad: #ff9a8c; --open: #a5a5ad; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.1rem 4rem; max-width: 80rem; background: var(--back);
  color: var(--text); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .6rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .5rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p, li { max-width: 46rem; overflow-wrap: anywhere; }
.soft, .notes { color: var(--soft); font-size: .88rem; }
.notes { padding-left: 1.1rem; margin: .3rem 0 1rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums;
  min-width: 100%; }
th, td { padding: .32rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { font-weight: 600; background: var(--card); vertical-align: bottom; }
th[scope=row], thead th:first-child { text-align: left; position: sticky; left: 0;
  background: var(--card); font-weight: 600; }
th[scope=colgroup] { text-align: left; color: var(--soft); font-weight: 500; }
.begins { border-left: 1px solid var(--line); }
table.words th, table.words td { text-align: left; white-space: normal; vertical-align: top;
  min-width: 5.2rem; }
table.words td:nth-child(3) { min-width: 8.5rem; }
table.words td:nth-child(n+5) { min-width: 8.4rem; }
table.words th[scope=row] { min-width: 11rem; max-width: 16rem; }
figure { margin: .8rem 0 1.2rem; }
figure .scroll { background: #fff; padding: .4rem; }
figure img { display: block; width: 100%; min-width: 34rem; height: auto; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .3rem; max-width: 46rem; }
.warning { border-left: 4px solid #c98a00; background: var(--card); padding: .5rem .8rem;
  border-radius: 0 8px 8px 0; margin: .8rem 0; max-width: 46rem; font-size: .92rem; }
.tally { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; padding: 0; list-style: none; }
.tally li { background: var(--card); border-radius: 8px; padding: .5rem .9rem; }
.tally b { font-size: 1.4rem; margin-right: .3rem; }
.supported { color: var(--good); font-weight: 600; }
.contradicted { color: var(--bad); font-weight: 600; }
.undecidable { color: var(--open); }
@media (max-width: 40rem) { body { font-size: 15px; padding: .6rem .7rem 3rem; }
  table.words th[scope=row] { min-width: 8rem; max-width: 9rem; }
  th, td { padding: .28rem .45rem; } }
"""
_VERDICTS = ("supported", "contradicted", "undecidable")


@dataclass(frozen=True)
class Picture:
    """A figure with the name of its file, its title and what it shows."""

    key: str
    title: str
    figure: Figure
    caption: str = ""

    def png(self) -> bytes:
        """The figure as a PNG file."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        return buffer.getvalue()


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


def render(page: Page, images: dict[str, bytes]) -> str:
    """Returns the page as HTML; everything that comes from data is escaped.

    Args:
        images: PNG files by the key of their picture.
    """
    body = "\n".join(_body(page, images))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(page.title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )


def _body(page: Page, images: dict[str, bytes]) -> Iterator[str]:
    yield f'<header>\n<h1>{escape(page.title)}</h1>\n<p class="soft">{escape(page.subtitle)}</p>'
    if page.tally:
        items = "".join(
            f'<li><b class="{escape(word)}">{count}</b>{escape(word)}</li>'
            for word, count in page.tally
        )
        yield f'<ul class="tally">{items}</ul>'
    yield "</header>\n<main>"
    for section in page.sections:
        yield f"<section>\n<h2>{escape(section.title)}</h2>"
        yield from _section(section, images)
        yield "</section>"
    yield "</main>"


def _section(section: Section, images: dict[str, bytes]) -> Iterator[str]:
    yield from (f"<p>{escape(text)}</p>" for text in section.paragraphs)
    if section.points:
        yield f"<ul>{''.join(f'<li>{escape(point)}</li>' for point in section.points)}</ul>"
    yield from (f'<p class="warning">{escape(text)}</p>' for text in section.warnings)
    for table in section.prose:
        yield from _table(table, "words")
    for table in section.tables:
        yield from _table(table, "numbers")
    for picture in section.pictures:
        yield from _picture(picture, images[picture.key])


def _table(table: Table, kind: str) -> Iterator[str]:
    yield f"<h3>{escape(table.title)}</h3>"
    if not table.shown.empty:
        starts = [0]
        for _, size in table.groups:
            starts.append(starts[-1] + size)
        begins = set(starts[1:-1])
        yield f'<div class="scroll" tabindex="0"><table class="{kind}">\n<thead>'
        if any(heading for heading, _ in table.groups):
            yield "<tr>" + "".join(_group_heads(table)) + "</tr>"
        heads = (
            f"<th scope=col{_begins(i, begins)}>{escape(str(name))}</th>"
            for i, name in enumerate(table.shown.columns)
        )
        yield f"<tr>{''.join(heads)}</tr></thead>\n<tbody>"
        for row in table.shown.itertuples(index=False):
            yield f"<tr>{''.join(_cells([str(cell) for cell in row], begins))}</tr>"
        yield "</tbody></table></div>"
    if table.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in table.notes)
        yield f'<ul class="notes">{notes}</ul>'


def _group_heads(table: Table) -> Iterator[str]:
    """The row of headings above the columns; the first column stays alone, as it does not move."""
    for position, (heading, size) in enumerate(table.groups):
        if position == 0:
            yield "<th></th>"
            size -= 1
        if size:
            begins = ' class="begins"' if position else ""
            yield f"<th scope=colgroup colspan={size}{begins}>{escape(heading)}</th>"


def _cells(cells: Sequence[str], begins: set[int]) -> Iterator[str]:
    yield f"<th scope=row>{escape(cells[0])}</th>"
    for i, cell in enumerate(cells[1:], start=1):
        if cell in _VERDICTS:
            yield f'<td class="{cell}">{cell}</td>'
        else:
            yield f"<td{_begins(i, begins)}>{escape(cell)}</td>"


def _begins(column: int, begins: set[int]) -> str:
    return ' class="begins"' if column in begins else ""


def _picture(picture: Picture, png: bytes) -> Iterator[str]:
    data = base64.b64encode(png).decode()
    title, caption = escape(picture.title), escape(picture.caption)
    yield f"<h3>{title}</h3>"
    yield (
        f'<figure><div class="scroll" tabindex="0"><img src="data:image/png;base64,{data}" '
        f'alt="{title}"></div><figcaption>{caption}</figcaption></figure>'
    )
