"""A page as Markdown: for a repository, a lab notebook or a pull request."""

from collections.abc import Iterator, Sequence

from kdplatform.reporting.page import Page, Picture, Section
from kdplatform.reporting.report_table import Table

# What Markdown or the HTML it lets through would take for its own.
_SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_[]<>|#"})


def render_markdown(page: Page) -> str:
    """Returns the page as GitHub's Markdown; pictures are the PNG files beside it.

    Everything that comes from data is escaped.
    """
    lines = [f"# {_plain(page.title)}", "", _plain(page.subtitle)]
    if page.tally:
        counts = ", ".join(f"{count} {word}" for word, count in page.tally)
        lines += ["", f"**{_plain(counts)}**"]
    for section in page.sections:
        lines += ["", f"## {_plain(section.title)}", *_section(section)]
    return "\n".join(lines) + "\n"


def _section(section: Section) -> Iterator[str]:
    for text in section.paragraphs:
        yield from ("", _plain(text))
    yield from _points(section.points)
    for text in section.warnings:
        yield from ("", f"> {_plain(text)}")
    for table in (*section.prose, *section.tables):
        yield from _table(table)
    for picture in section.pictures:
        yield from _picture(picture)


def _table(table: Table) -> Iterator[str]:
    yield from ("", f"### {_plain(table.title)}")
    if not table.shown.empty:
        yield from ("", _row(list(_heads(table))))
        yield "|" + "---|" * len(table.shown.columns)
        for cells in table.shown.itertuples(index=False):
            yield _row([str(cell) for cell in cells])
    yield from _points(table.notes)


def _heads(table: Table) -> Iterator[str]:
    """The columns' names; one that several columns have with the heading above it."""
    names = [str(name) for name in table.shown.columns]
    above = [heading for heading, size in table.groups for _ in range(size)]
    for name, heading in zip(names, above or [""] * len(names), strict=True):
        yield f"{heading}: {name}" if heading and names.count(name) > 1 else name


def _picture(picture: Picture) -> Iterator[str]:
    title = _plain(picture.title)
    yield from ("", f"### {title}", "", f"![{title}]({picture.key}.png)")
    if picture.caption:
        yield from ("", _plain(picture.caption))


def _points(points: Sequence[str]) -> Iterator[str]:
    if points:
        yield ""
        yield from (f"- {_plain(point)}" for point in points)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """Returns text that Markdown shows as it is, on one line."""
    return " ".join(text.split()).translate(_SPECIAL)
