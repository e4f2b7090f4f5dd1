"""What the figures of a page show, whatever draws them: the page itself, or a picture beside it.

Values are fractions where `percent` says so, and are shown in per cent. `chart_plotly` turns a
chart into a figure of the page, `chart_png` into a picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum


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
        words: text shown when the pointer is at a point; empty for none.
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


@dataclass(frozen=True)
class Chart:
    """A figure of one or more panels.

    Attributes:
        key: stem of its picture's file.
        caption: what must be known to read it.
        names: of the positions of points: groups, classes, arms.
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
        """What values are multiplied by to be shown."""
        return 100.0 if self.percent else 1.0

    def unit(self, title: str) -> str:
        """Returns a panel's title with its unit; differences are in points, and say so."""
        return f"{title}, %" if self.percent and "points" not in title else title


@dataclass(frozen=True)
class Dots(Chart):
    """Names from top to bottom, values from left to right.

    Attributes:
        by_rank: positions without names, from left to right, for more than can be written.
        zero: whether 0 is a line of its own, as it is for differences.
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
    """One point per name with an interval both ways.

    The only panel has a series per method: its values are across, `up` has those upwards.
    """

    up: Sequence[Points] = ()
    across_title: str = ""
    up_title: str = ""
