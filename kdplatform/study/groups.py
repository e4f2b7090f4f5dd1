"""Which groups of one side got worse or better than those of another, and how many by chance."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.group_cells import GROUP, Cells
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.group_shifts import GroupShifts, group_shifts
from kdplatform.analysis.intervals import LEVEL, Interval
from kdplatform.analysis.significance import Counts, significance_counts
from kdplatform.analysis.tables import Attribute
from kdplatform.predictions import Table

# Verdicts on a cell of side B, compared with side A.
WORSE, BETTER, UNDECIDED, NOT_MEASURED = "worse", "better", "undecided", "not measured"


@dataclass(frozen=True)
class GroupComparison:
    """Groups of two sides compared.

    Attributes:
        shifts: the tests of all cells; its table has `verdict` beside them: "worse" or "better"
            where the family-wise p is below .05 and the interval excludes 0, otherwise "undecided",
            or "not measured".
        counts: the number of groups of single attributes that changed, as #SC counts classes. The
            corrected counts are corrected over all tested cells.
        global_p: the probability of any such change if no group differs: the smallest family-wise p
            of these groups.
    """

    shifts: GroupShifts
    counts: Counts
    global_p: float

    @property
    def table(self) -> pd.DataFrame:
        """A row per cell, with its verdict."""
        return self.shifts.table

    @property
    def groups(self) -> pd.DataFrame:
        """The rows of `table` that `counts` counts: groups of single attributes."""
        return self.table[self.table["kind"] == GROUP]

    @property
    def permutation_p(self) -> float:
        """As `global_p`, from the permutation of seeds; NaN if a side has one model."""
        return float(self.groups["p_max"].min())

    @property
    def worst_drop(self) -> Interval:
        """The change of the group of a single attribute that lost most; NaN without groups."""
        known = self.groups.dropna(subset=["difference"])
        if known.empty:
            return Interval(np.nan, np.nan, np.nan)
        row = known.iloc[int(np.argmin(known["difference"].to_numpy()))]
        return Interval(*(float(row[name]) for name in ("difference", "low", "high")))


def compare_groups(
    tables_a: Sequence[Table],
    tables_b: Sequence[Table],
    attributes: Sequence[Attribute] | Cells,
    *,
    min_group_size: int = MIN_GROUP_SIZE,
    class_names: Sequence[str] = (),
) -> GroupComparison:
    """Compares the groups of side B with those of side A, the reference.

    Args:
        tables_a: one table per seed; equally many on both sides are pairs in their order.
        attributes: at least one attribute, where a tuple of columns is an intersection; or the
            cells.

    Raises:
        ValueError: as `group_shifts`.
    """
    shifts = group_shifts(
        tables_a, tables_b, attributes, min_group_size=min_group_size, class_names=class_names
    )
    table = shifts.table.assign(verdict=_verdicts(shifts.table))
    groups = table[table["kind"] == GROUP]
    counts = replace(
        significance_counts(groups),
        significant_bh=int((groups["p_bh"] < LEVEL).sum()),
        significant_holm=int((groups["p_holm"] < LEVEL).sum()),
    )
    return GroupComparison(replace(shifts, table=table), counts, float(groups["p_family"].min()))


def _verdicts(table: pd.DataFrame) -> npt.NDArray[np.str_]:
    """Applies the rule of `verdicts.by_interval` to all rows with a small family-wise p."""
    allowed = table["p_family"] < LEVEL
    return np.select(
        [table["p_value"].isna(), allowed & (table["low"] > 0), allowed & (table["high"] < 0)],
        [NOT_MEASURED, BETTER, WORSE],
        UNDECIDED,
    )
