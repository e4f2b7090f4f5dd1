"""Cells of a table as numbers: plain ones, regional and decorated spellings, and dates.

A spelling is used only if it fits the whole column; nothing is guessed cell by cell.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdplatform.lazy import pandas as pd

_SPACE, _QUOTE = "[ \u00a0\u2009\u202f]", "['’]"
_CURRENCY = r"[$€£¥₹]|USD|EUR|GBP|CHF"
# Separators of thousands and of the fraction. `1,234` by itself is a thousand: a column with
# decimal commas has cells of other lengths.
_REGIONS = ((",", r"\."), (_SPACE, r"\."), (_QUOTE, r"\."), (r"\.", ","), (_SPACE, ","))
_DECORATED = re.compile(
    rf"(?P<sign>[-+−]?)\s*(?P<before>{_CURRENCY})?\s*(?P<minus>[-−]?)(?P<number>\d.*?|[.,]\d.*?)"
    rf"\s*(?P<after>%|‰|{_CURRENCY})?",
    re.ASCII,
)
_DIGITS = re.compile(rf"(\d|[.,_]|{_SPACE}|{_QUOTE})+([eE][+-]?\d+)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?")
_LIKE_A_DATE = re.compile(
    r"\d{1,4}([-/.])\d{1,2}\1\d{1,4}([T ,].*)?"
    r"|\d{1,2}:\d{2}(:\d{2}(\.\d+)?)?( ?[AaPp]\.?[Mm]\.?)?"
    r"|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}|\d{1,2}[ -][A-Za-z]{3,9}\.?[ -]\d{2,4}"
)
_UNIT = re.compile(r".*[\d.,]\s*(?P<unit>[A-Za-z°µ][A-Za-z°µ²³/]*)")
_SECONDS_OF_A_DAY = 86_400


class Numbers(NamedTuple):
    """What the cells of a column are as numbers.

    Attributes:
        values: float64 [N]; not finite if a cell is no number, or empty.
        rule: the spelling that was read; empty for plain numbers.
        alike: whether a cell looks like a number or a date, in any spelling. [N]
    """

    values: NDArray[np.float64]
    rule: str
    alike: NDArray[np.bool_]


def looks_like_a_date(cell: str) -> bool:
    """Tells whether a cell is a date or a time of day, in any order of its parts."""
    return _LIKE_A_DATE.fullmatch(cell) is not None


def read_numbers(cells: pd.Series[str]) -> Numbers:
    """Reads a column in the one spelling that fits most of its cells; empty cells are missing.

    Dates as `2021-03-04`, with or without a time, become days since 1970.
    """
    plain = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    present = (cells != "").to_numpy()
    if np.isfinite(plain[present]).all():
        return Numbers(plain, "", present)
    codes, names = pd.factorize(cells)
    texts = [str(name) for name in names]
    if unit := _common_unit(texts):
        bare = read_numbers(cells.str.removesuffix(unit).str.rstrip())
        if np.isfinite(bare.values[present]).all():
            return bare._replace(rule=f"{unit} {bare.rule}")
    best, rule = plain, ""
    for name, values in _readings(texts).items():
        if np.isfinite(values[codes]).sum() > np.isfinite(best).sum():
            best, rule = values[codes], name
    alike = np.array([_like_a_number(text) or looks_like_a_date(text) for text in texts])[codes]
    return Numbers(best, rule, (alike | np.isfinite(plain)) & present)


def _common_unit(texts: list[str]) -> str:
    """Returns the letters after the digits of every cell, such as `kg`."""
    found = [_UNIT.fullmatch(text) for text in texts if text]
    units = {match["unit"] if match else "" for match in found}
    return units.pop() if len(units) == 1 else ""


def _like_a_number(text: str) -> bool:
    found = _DECORATED.fullmatch(text)
    return found is not None and _DIGITS.fullmatch(found["number"]) is not None


def _readings(texts: list[str]) -> dict[str, NDArray[np.float64]]:
    """Returns the values of texts under every rule that fits any of them, NaN elsewhere."""
    found = [_DECORATED.fullmatch(text) for text in texts]
    # All cells have one decoration: 5% and 0.05 in a column do not say the same.
    marks = [(match["before"] or match["after"] or "") if match else None for match in found]
    readings: dict[str, NDArray[np.float64]] = {}
    for mark in dict.fromkeys(mark for mark in marks if mark is not None):
        for thousands, point in _REGIONS:
            number = re.compile(
                rf"([1-9]\d{{0,2}}({thousands}\d{{3}})+|\d*)({point}\d*)?([eE][+-]?\d+)?", re.ASCII
            )
            values = np.full(len(texts), np.nan)
            for row, match in enumerate(found):
                if match and marks[row] == mark and number.fullmatch(match["number"]):
                    digits = re.sub(thousands, "", match["number"])
                    value = float(re.sub(point, ".", digits))
                    values[row] = -value if "-" in _signs(match) else value
            readings[f"{mark}{thousands}{point}"] = values
    dates = [text if _DATE.fullmatch(text) else None for text in texts]
    if any(dates):
        moments = pd.to_datetime(pd.Series(dates), format="ISO8601", utc=True, errors="coerce")
        seconds = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        readings["date"] = seconds.to_numpy(dtype=np.float64) / _SECONDS_OF_A_DAY
    return readings


def _signs(match: re.Match[str]) -> str:
    return (match["sign"] + match["minus"]).replace("−", "-")
