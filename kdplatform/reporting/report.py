"""A report as files: one page, its tables as CSV, its figures as PNG, and LaTeX for papers."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd

from kdplatform.files import written_atomically
from kdplatform.reporting.charts import Chart
from kdplatform.reporting.class_rates import ClassRates
from kdplatform.reporting.latex import render_latex
from kdplatform.reporting.page import Page, Picture, Section, render, render_markdown
from kdplatform.reporting.report_table import Table
from kdplatform.reporting.tables import csv_text
from kdplatform.study.claims import Claim
from kdplatform.study.findings import Finding
from kdplatform.study.groupwise import GroupWise

PAGE = "report.html"
# Further forms of a page beside HTML: the ending of the file, and the function that writes it.
FORMATS = {"markdown": (".md", render_markdown), "latex": (".tex", render_latex)}
_Keyed = TypeVar("_Keyed", Table, Chart, Picture, ClassRates)


@dataclass(frozen=True)
class Report:
    """A report, ready to be written.

    Attributes:
        frames: tables that are written as CSV, by file stem.
        claims: the verdicts.
        of_methods: the verdicts on methods against plain distillation.
        gaps: models that are missing, were left out or are not judged, with the reason.
        findings: the first sentences of the page, in reading order.
        groups: the group shifts; None if the report is not about a study.
    """

    page: Page
    frames: Mapping[str, pd.DataFrame]
    claims: Sequence[Claim] = ()
    of_methods: Sequence[Claim] = ()
    gaps: Sequence[str] = ()
    findings: Sequence[Finding] = ()
    groups: GroupWise | None = None


def write_report(
    report: Report,
    folder: Path,
    page_name: str = PAGE,
    formats: Collection[str] = ("markdown",),
) -> list[Path]:
    """Writes tables as CSV, figures as PNG and the page as HTML and in further forms.

    Args:
        formats: names from `FORMATS` in which the page is also written.

    Returns:
        The written files.
    """
    images = {picture.key: picture.png() for picture in report.page.pictures()}
    content = {f"{name}.csv": csv_text(frame).encode() for name, frame in report.frames.items()}
    content |= {f"{key}.png": png for key, png in images.items()}
    content[page_name] = render(report.page, images).encode()
    for name in formats:
        suffix, form = FORMATS[name]
        content[Path(page_name).with_suffix(suffix).name] = form(report.page).encode()
    for name, data in content.items():
        with written_atomically(folder / name) as temporary:
            temporary.write_bytes(data)
            temporary.chmod(0o644)  # others may read the report
    return [folder / name for name in content]


def with_distinct_keys(sections: Sequence[Section]) -> list[Section]:
    """Numbers equal keys: two attributes may differ only in characters that no file name has."""
    seen: Counter[tuple[str, str]] = Counter()

    def distinct(each: _Keyed) -> _Keyed:
        # Some file systems treat names that differ only in capitals as one.
        kind = "figure" if isinstance(each, Chart | Picture) else "table"
        name = each.key.casefold()
        seen[kind, name] += 1
        number = seen[kind, name]
        return each if number == 1 else replace(each, key=f"{each.key}_{number}")

    def changed(section: Section) -> Section:
        return replace(
            section,
            prose=[distinct(table) for table in section.prose],
            tables=[distinct(table) for table in section.tables],
            charts=[distinct(chart) for chart in section.charts],
            pictures=[distinct(picture) for picture in section.pictures],
            rates=section.rates and distinct(section.rates),
            parts=[changed(part) for part in section.parts],
        )

    return [changed(section) for section in sections]
