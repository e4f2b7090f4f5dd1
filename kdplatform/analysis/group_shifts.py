"""Which groups got worse, and which better: the paired change of every group between two sides.

Side A is the reference (Teacher or NDS), and side B is compared with it (DS). A difference is B
minus A. The compared value is the share of correct predictions of a group, of an intersection, or
of a group within a class (that group's true positive rate). Unlike in `significance`, the overall
accuracy is not removed. A side that is better everywhere has better groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdplatform.analysis.group_cells import Cells, cells_of
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.mcnemar import (
    attained_level,
    change_interval,
    detectable_change,
    mcnemar_p,
)
from kdplatform.analysis.permutation import SeedPermutation, permute_values
from kdplatform.analysis.seed_changes import seed_changes
from kdplatform.analysis.significance import benjamini_hochberg, check_fraction, holm
from kdplatform.analysis.tables import Attribute, stack_tables
from kdplatform.analysis.weighted import weighted_changes, weighted_means
from kdplatform.predictions import FloatArray, Predictions, Table

TESTED = "tested"
# Largest number of values in the permutations of seeds; more take too long.
_MOST_STATISTICS = 20_000_000
_FEWEST_SPLITS = 1_000
_MOST_SPLITS = 10_000


@dataclass(frozen=True)
class GroupShifts:
    """The changes of all groups between two sides.

    Attributes:
        table: one row per cell, as `group_shifts` describes it.
        test: "McNemar" for one pair of models; over seeds "paired t" or "Welch".
        seeds: numbers of models of A and B.
        permutation: the permutation of seeds over the tested cells; None if a side has one model.
            `p_by_class` has one value per tested cell.
    """

    table: pd.DataFrame
    test: str
    seeds: tuple[int, int]
    permutation: SeedPermutation | None = None


def group_shifts(
    tables_a: Sequence[Table],
    tables_b: Sequence[Table],
    attributes: Sequence[Attribute] | Cells,
    *,
    min_group_size: int = MIN_GROUP_SIZE,
    class_names: Sequence[str] = (),
    alpha: float = 0.05,
) -> GroupShifts:
    """Compares every group of every attribute, and every group within every class.

    One pair of models is tested by the exact McNemar test, which is conditional on these two
    models. Several seeds are tested by the paired t test, seed i with seed i, and by the
    permutation of seeds (Westfall and Young 1993), whose largest |t| over all cells gives a
    family-wise p. If the sides have different numbers of seeds, there are no pairs, and Welch's
    test is used. One model against several seeds is paired with each of them; its own spread is not
    known.

    Args:
        tables_a: The reference: one table per seed, of the same examples as those of B.
        attributes: Columns, and tuples of columns for intersections; or their cells, if many tables
            of the same examples are compared. Groups within classes are those of single columns.
        min_group_size: Examples that a cell needs; a smaller one is listed and not measured.
        class_names: Of class 0, 1, ...; a class without a name has its number.
        alpha: Level; intervals have confidence 1 - alpha.

    If the tables have weights, shares, differences, intervals and tests over seeds use them.
    McNemar's test, `only_a` and `only_b` count examples.

    Returns:
        The table has one row per cell that has an example: `kind` ("group", "intersection" or
        "group within class"), `attribute`, `group`, `label` (name of the class, empty for a whole
        group), `class` (its number, -1 for a whole group), `n`, `value_a`, `value_b` (means over
        seeds), `difference` with `low` and `high`, `only_a` and `only_b` (examples that only that
        side gets right; over seeds the mean of the pairs), `p_value`, `p_bh` and `p_holm` over all
        cells tested, `p_max` (of the permutation; NaN where a side has one model), `p_family` (the
        family-wise p to go by: `p_max` where the seeds can give it below alpha, otherwise
        `p_holm`), `chance` (the test's true level, given what differs; alpha over seeds),
        `detectable` (change found with power .8 at the uncorrected level; infinite where there is
        none) and `status` ("tested", or why not).

    Raises:
        ValueError: A side is empty, tables hold other examples, or an attribute has no group.
    """
    check_fraction("alpha", alpha)
    if min_group_size < 1:
        raise ValueError(f"min_group_size is {min_group_size}; allowed: integer >= 1")
    seeds = len(tables_a), len(tables_b)
    if 0 in seeds:
        raise ValueError(f"sides have {seeds[0]} and {seeds[1]} tables; allowed: at least 1 each")
    cells = attributes
    if not isinstance(cells, Cells):
        cells = cells_of(Predictions.of(tables_a[0]), cells)
    stack = stack_tables([cells.table, *tables_a, *tables_b])
    right, weights = stack.correct[1:].astype(float), stack.weights
    right_a, right_b = right[: seeds[0]], right[seeds[0] :]
    frame = _values(cells, right_a, right_b, class_names, weights)
    large = np.asarray(_counting(cells, weights) >= min_group_size)
    if seeds == (1, 1):
        test, changes = "McNemar", _of_one_pair(frame, alpha)
        if weights is not None:
            change = weighted_changes(cells.sums, right_b[0] - right_a[0], weights, alpha)
            changes = changes.assign(difference=change.mean, low=change.low, high=change.high)
    else:
        test = "paired t" if seeds[0] == seeds[1] or 1 in seeds else "Welch"
        found = seed_changes(cells, right_a, right_b, alpha, weights)._asdict()
        changes = pd.DataFrame(found | {"chance": alpha})
    frame = pd.concat([frame, changes], axis=1)
    measured = [
        name
        for name in ("value_a", "value_b", "only_a", "only_b", *changes)
        if name != "detectable"  # the reader should see how little a small group can show
    ]
    frame.loc[~large, measured] = np.nan
    p_value = frame["p_value"].to_numpy(dtype=float)
    permutation, p_max = None, np.full(len(frame), np.nan)
    tested = np.isfinite(p_value)
    if min(seeds) > 1 and tested.any():
        by_seed = [
            weighted_means(cells.sums, side, weights)[:, tested] for side in (right_a, right_b)
        ]
        permutation = _permuted(by_seed[0], by_seed[1], alpha)
        p_max[tested] = permutation.p_by_class
    p_holm = holm(p_value)
    can_reach = permutation is not None and 1 / permutation.splits < alpha
    status = np.where(
        ~large,
        f"fewer than {min_group_size}",
        np.where(tested, TESTED, "undefined: no variance"),
    )
    frame = frame.assign(
        p_bh=benjamini_hochberg(p_value),
        p_holm=p_holm,
        p_max=p_max,
        p_family=p_max if can_reach else p_holm,
        status=status,
    )
    return GroupShifts(frame, test, seeds, permutation)


def _values(
    cells: Cells,
    right_a: FloatArray,
    right_b: FloatArray,
    class_names: Sequence[str],
    weights: FloatArray | None,
) -> pd.DataFrame:
    """Cells with the accuracies of both sides, and the numbers that only one side gets right."""
    a, b = right_a.mean(axis=0), right_b.mean(axis=0)
    if len(right_a) == len(right_b):
        only_a = (right_a * (1 - right_b)).mean(axis=0)
        only_b = (right_b * (1 - right_a)).mean(axis=0)
    else:
        only_a, only_b = a * (1 - b), b * (1 - a)
    value_a, value_b = weighted_means(cells.sums, np.stack([a, b]), weights)
    only = cells.sums(np.stack([only_a, only_b]))
    labels = [
        "" if c < 0 else class_names[c] if c < len(class_names) else str(c)
        for c in cells.frame["class"].tolist()
    ]
    frame = cells.frame.copy()
    frame.insert(3, "label", labels)
    return frame.assign(value_a=value_a, value_b=value_b, only_a=only[0], only_b=only[1])


def _counting(cells: Cells, weights: FloatArray | None) -> FloatArray:
    """Number of examples of every cell with a weight above 0. [cells]."""
    if weights is None:
        return np.asarray(cells.frame["n"], dtype=float)
    return np.asarray(cells.sums((weights > 0).astype(float)[None])[0])


def _of_one_pair(frame: pd.DataFrame, alpha: float) -> pd.DataFrame:
    only_a, only_b, n = (
        frame[name].to_numpy().round().astype(np.int64) for name in ("only_a", "only_b", "n")
    )
    low, high = change_interval(only_a, only_b, n, alpha)
    return pd.DataFrame(
        {
            "difference": (only_b - only_a) / n,
            "low": low,
            "high": high,
            "p_value": mcnemar_p(only_a, only_b),
            "detectable": detectable_change(only_a + only_b, n, alpha),
            "chance": attained_level(only_a + only_b, alpha),
        }
    )


def _permuted(values_a: FloatArray, values_b: FloatArray, alpha: float) -> SeedPermutation:
    """Permutes seeds. Thousands of cells get fewer splits, which is still valid."""
    most = max(_FEWEST_SPLITS, min(_MOST_SPLITS, _MOST_STATISTICS // values_a.shape[1]))
    return permute_values(values_a, values_b, alpha=alpha, max_splits=most)
