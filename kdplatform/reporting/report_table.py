"""A table of a report, with plain numbers for a file and words for a page."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdplatform.analysis.intervals import Interval
from kdplatform.predictions import FloatArray
from kdplatform.reporting.tables import EMPTY, percent
from kdplatform.study.metrics import ACCURACY
from kdplatform.study.study import Arm, Study

# File systems accept 255 bytes, and a prefix and an ending are added.
_LONGEST_STEM = 100


@dataclass(frozen=True)
class Table:
    """One table of a report.

    Attributes:
        key: stem of its file.
        frame: the numbers; fractions, not per cent.
        shown: the same in words, for the page.
        groups: heading and number of columns, for the columns of `shown` from left to right.
        notes: text below it.
        search: label of the search for a row by name; empty if there are few rows.
        chart: key of the figure that shows the same names.
    """

    key: str
    title: str
    frame: pd.DataFrame
    shown: pd.DataFrame
    groups: Sequence[tuple[str, int]] = ()
    notes: Sequence[str] = ()
    search: str = ""
    chart: str = ""


@dataclass
class Row:
    """A row of a table under construction, with numbers and words."""

    numbers: dict[str, object]
    words: dict[str, str]

    def add_seeds(
        self, key: str, values: FloatArray, digits: int = 2, scale: float = 100.0
    ) -> None:
        """Adds mean and standard deviation of one value per seed, as far as they are known."""
        self.numbers[key] = float(values.mean()) if len(values) else np.nan
        self.numbers[f"{key}_sd"] = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        self.words[key] = percent(values.tolist(), digits, scale)


def table_of(
    key: str,
    title: str,
    rows: Iterable[Row],
    groups: Sequence[tuple[str, Mapping[str, str]]],
    notes: Iterable[str] = (),
) -> Table:
    """Returns a table from its rows.

    Args:
        groups: heading of the group, and by key of `Row.words` the heading of its columns.
    """
    rows = list(rows)
    columns = {name: label for _, own in groups for name, label in own.items()}
    shown = pd.DataFrame(
        [[row.words.get(name, EMPTY) for name in columns] for row in rows],
        columns=list(columns.values()),
    )
    return Table(
        key,
        title,
        pd.DataFrame([row.numbers for row in rows]),
        shown,
        [(heading, len(own)) for heading, own in groups],
        [note for note in notes if note],
    )


def number_words(value: float, digits: int = 2, scale: float = 1.0) -> str:
    """Returns a number in words, `-` if it is not known."""
    return f"{scale * value:.{digits}f}" if math.isfinite(value) else EMPTY


def interval_words(interval: Interval, scale: float = 100.0, digits: int = 2) -> str:
    """Returns the limits of an interval, `-` without limits."""
    if not np.isfinite([interval.low, interval.high]).all():
        return EMPTY
    return f"{scale * interval.low:.{digits}f} to {scale * interval.high:.{digits}f}"


def change_words(interval: Interval, scale: float = 100.0, digits: int = 2) -> str:
    """Returns a difference with its sign and limits."""
    if not math.isfinite(interval.estimate):
        return EMPTY
    estimate = f"{scale * interval.estimate:+.{digits}f}"
    limits = interval_words(interval, scale, digits)
    return estimate if limits == EMPTY else f"{estimate} ({limits})"


def p_words(p_value: float) -> str:
    """Returns a p-value, or `-` for none."""
    if not math.isfinite(p_value):
        return EMPTY
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def first_columns(study: Study, arm: Arm) -> Row:
    """Begins the row of an arm: its name, number of seeds and accuracy."""
    name, accuracy = study.names[arm], study.values(arm, ACCURACY)
    row = Row(
        {"arm": name, "temperature": arm.temperature, "seeds": len(accuracy)},
        {"arm": name, "seeds": str(len(accuracy))},
    )
    row.add_seeds("accuracy", accuracy)
    return row


def file_stem(name: str) -> str:
    """Turns a column's name into one for any file system: letters, digits, not too long."""
    return re.sub(r"[^A-Za-z0-9]+", "_", name)[:_LONGEST_STEM].strip("_") or "attribute"
