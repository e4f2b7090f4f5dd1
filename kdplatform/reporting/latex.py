r"""A page's tables and figures for a paper: LaTeX that a document takes in by `\input`."""

from collections.abc import Iterator

import pandas as pd

from kdplatform.reporting.charts import Chart
from kdplatform.reporting.page import Page, Picture, Section
from kdplatform.reporting.report_table import Table
from kdplatform.text import visible

_HEAD = r"""% {title}
% \input this file; the preamble needs
% \usepackage{{booktabs,graphicx,longtable,textcomp}}
"""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "²": r"\textsuperscript{2}",
    "·": r"$\cdot$",
    "…": r"\ldots{}",
}
# All LaTeX fonts have the letters up to this code.
_LAST_LATIN = 0x250
# Tables with more columns than this are set in smaller type.
_WIDE = 8


def render_latex(page: Page) -> str:
    """Returns the findings, tables and figures of a page as LaTeX; figures are the PNG files."""
    parts = [_HEAD.format(title=" ".join(visible(page.title).split())), latex_text(page.subtitle)]
    for section in page.sections:
        parts += _section(section, 0)
    return "\n\n".join(parts) + "\n"


def latex_text(text: object) -> str:
    """Returns text without LaTeX commands; characters that LaTeX's fonts lack become codes."""
    return "".join(map(_letter, visible(" ".join(str(text).split()))))


def _letter(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if ord(char) < _LAST_LATIN:
        return char
    return "".join(_SPECIAL.get(each, each) for each in char.encode("unicode_escape").decode())


def _section(section: Section, depth: int) -> Iterator[str]:
    if section.title:
        command = ("section", "subsection", "subsubsection", "paragraph")[min(depth, 3)]
        yield f"\\{command}{{{latex_text(section.title)}}}"
    yield from map(latex_text, section.paragraphs)
    items = [f.sentence for f in section.findings] + [*section.warnings, *section.points]
    if items:
        lines = "\n".join(f"\\item {latex_text(item)}" for item in items)
        yield f"\\begin{{itemize}}\n{lines}\n\\end{{itemize}}"
    for table in (*section.prose, *section.tables):
        if not table.shown.empty:
            yield _table(table)
    charts = [chart for chart in section.charts if chart.pictured]
    yield from map(_figure, charts)
    yield from map(_figure, section.pictures)
    for part in section.parts:
        yield from _section(part, depth + 1)


def _table(table: Table) -> str:
    shown = table.shown.map(latex_text)
    names = [latex_text(name) for name in table.shown.columns]
    above = [latex_text(heading) for heading, size in table.groups for _ in range(size)]
    shown.columns = pd.Index(names)
    if any(above):
        shown.columns = pd.MultiIndex.from_arrays([above, names])
    text = shown.to_latex(
        index=False,
        escape=False,  # done above, cell by cell
        longtable=True,
        caption=latex_text(table.title),
        label=f"tab:{table.key}",
        column_format="l" + "r" * (len(names) - 1),
        multicolumn_format="c",
    )
    size = "\\footnotesize" if len(names) > _WIDE else "\\small"
    notes = " ".join(map(latex_text, table.notes))
    after = f"\n\\noindent{{\\footnotesize {notes}}}" if notes else ""
    return f"{{{size}\n{text.strip()}\n}}{after}"


def _figure(drawn: Chart | Picture) -> str:
    caption = latex_text(f"{drawn.title}. {drawn.caption}")
    return (
        "\\begin{figure}\n\\centering\n"
        f"\\includegraphics[width=\\linewidth]{{{drawn.key}.png}}\n"
        f"\\caption{{{caption}}}\n\\label{{fig:{drawn.key}}}\n\\end{{figure}}"
    )
