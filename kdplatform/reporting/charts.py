"""The content of the figures of a page, which the page draws itself and a picture file repeats.

If `percent` is true, values are fractions and are shown in per cent. `chart_plotly` turns a chart
into a figure of the page, `chart_png` into a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite


class Look(StrEnum):
    """How a series is drawn. Series differ in their marks, not only in colour."""

    REFERENCE = "reference"
    OTHER = "other"
    BETTER = "better"
    WORSE = "worse"
    UNSURE = "unsure"
    TEACHER = "teacher"
    NDS = "nds"


@dataclass(frozen=True)
class Points:
    """One series of points with their intervals.

    Attributes:
        values: NaN where a point is not known.
        low: lower limits; NaN where there is none.
        words: text of a point that is shown under the pointer; empty for none.
    """

    name: str
    look: Look
    values: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]
    words: Sequence[str] = ()


@dataclass(frozen=True)
class Level:
    """A constant line, with its interval."""

    name: str
    look: Look
    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    series: Sequence[Points]
    levels: Sequence[Level] = ()

    def shift(self, place: int) -> float:
        """Returns how far the series at a place is moved off the rows of its names.

        Series lie side by side, so that no interval hides another. They are not moved if each row
        has a point of only one series.
        """
        known = [[isfinite(value) for value in own.values] for own in self.series]
        if all(sum(row) <= 1 for row in zip(*known, strict=True)):
            return 0.0
        return 0.32 * (place - (len(self.series) - 1) / 2)


@dataclass(frozen=True)
class Chart:
    """A figure of one or more panels.

    Attributes:
        key: stem of its picture's file.
        caption: explanation below the figure.
        names: names of the positions: groups, classes or arms.
        panels: side by side, over the same positions.
        percent: whether values are fractions, shown in per cent.
        pictured: whether a picture of it is written beside the page.
    """

    key: str
    title: str
    caption: str
    names: Sequence[str]
    panels: Sequence[Panel]
    percent: bool = True
    pictured: bool = True

    @property
    def scale(self) -> float:
        """The factor between values and shown numbers."""
        return 100.0 if self.percent else 1.0

    def unit(self, title: str) -> str:
        """Returns a panel's title with its unit; titles of differences already name points."""
        return f"{title}, %" if self.percent and "points" not in title else title


@dataclass(frozen=True)
class Dots(Chart):
    """Names from top to bottom, values from left to right.

    Attributes:
        by_rank: whether positions run from left to right without names, because there are too many.
        zero: whether 0 has a line, as for differences.
    """

    by_rank: bool = False
    zero: bool = False


@dataclass(frozen=True)
class Curves(Chart):
    """Names from left to right, values upwards, a line through the points of a series.

    Attributes:
        axis: what the names denote.
        lines: the positions that a line joins, such as those of a method.
    """

    axis: str = ""
    lines: Sequence[Sequence[int]] = field(default=())


@dataclass(frozen=True)
class Crosses(Chart):
    """One point per name with intervals in both directions.

    The only panel has a series per method. Its values are horizontal, and `up` has the vertical
    ones.
    """

    up: Sequence[Points] = ()
    across_title: str = ""
    up_title: str = ""
