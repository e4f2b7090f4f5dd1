"""The result of a comparison for a notebook or a program: data frames, a page, and text."""

from collections.abc import Sequence
from functools import cached_property
from html import escape
from pathlib import Path

import pandas as pd

from kdplatform.errors import UserError
from kdplatform.files import user_path, written_atomically
from kdplatform.reporting.comparison import Comparison, comparison_text
from kdplatform.reporting.page import render
from kdplatform.text import visible


class ComparisonResult:
    """What differs between side A, the reference, and side B.

    It has the numbers and verdicts of the command `kdplatform compare`. Numbers are fractions.

    Attributes:
        findings: What was found, one sentence per row: `kind`, `sentence`, `strength`, `subject`,
            and its numbers.
        verdicts: Every row of the table of differences: `what`, `a`, `b`, `difference` (B minus A),
            `low`, `high`, `p_value`, `verdict` and more.
        groups: Every group of every attribute with all of its measures under both sides, and
            whether it got worse or better; empty without attributes.
        shifts: The paired change of every group, intersection, and group within a class.
        classes: Every class with its accuracies, difference and tests.
        notes: Sentences that explain how to read the numbers.
    """

    def __init__(self, comparison: Comparison) -> None:
        self._comparison = comparison

    @cached_property
    def findings(self) -> pd.DataFrame:
        """One row per sentence, in reading order."""
        rows = [
            {
                "kind": found.kind,
                "sentence": found.sentence,
                "strength": found.strength,
                "subject": found.subject,
                **found.numbers,
            }
            for found in self._comparison.findings
        ]
        return pd.DataFrame(rows, columns=None if rows else ["kind", "sentence", "strength"])

    @property
    def verdicts(self) -> pd.DataFrame:
        """One row per metric, with its verdict."""
        return self._comparison.verdicts.frame

    @property
    def groups(self) -> pd.DataFrame:
        """One row per group of every attribute and intersection."""
        return self._comparison.measures.groups

    @property
    def shifts(self) -> pd.DataFrame:
        """One row per group, intersection, and group within a class."""
        groups = self._comparison.groups
        return pd.DataFrame() if groups is None else groups.table

    @property
    def classes(self) -> pd.DataFrame:
        """One row per class."""
        return self._comparison.report.frames["classes"]

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that say how to read the numbers."""
        return self._comparison.notes

    def to_html(self, path: str | Path) -> Path:
        """Writes the comparison's page as one file, which opens without a network.

        Returns:
            The path of the file.

        Raises:
            UserError: the path cannot be written.
        """
        target = user_path("path", str(path))
        if not target.name or target.is_dir():
            raise UserError(f"path={str(path)!r} is a folder; allowed: the path of a file")
        report = self._comparison.report
        images = {picture.key: picture.png() for picture in report.page.pictures()}
        with written_atomically(target) as temporary:
            temporary.write_text(render(report.page, images), encoding="utf-8")
            temporary.chmod(0o644)  # others may read the page
        return target

    def __str__(self) -> str:
        return comparison_text(self._comparison)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {visible(self._comparison.report.page.subtitle)}>"

    def _repr_html_(self) -> str:
        """Returns the findings and all verdicts, for a notebook."""
        shown = self._comparison.verdicts.shown
        items = "".join(
            f"<li><b>{escape(found.kind)}</b> {escape(visible(found.sentence))}</li>"
            for found in self._comparison.findings
        )
        words = shown.map(lambda cell: escape(visible(cell)))
        table = words.to_html(index=False, escape=False, border=0)
        subtitle = escape(visible(self._comparison.report.page.subtitle))
        return f"<p>{subtitle}</p><ul>{items}</ul>{table}"
