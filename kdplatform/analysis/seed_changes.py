"""Changes of many cells' accuracies over seeds: test, interval and detectable change."""

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, special, stats

from kdplatform.analysis.group_cells import Cells
from kdplatform.analysis.significance import ROUNDING
from kdplatform.analysis.tables import quotient
from kdplatform.analysis.weighted import variance_over_examples, weighted_means
from kdplatform.predictions import FloatArray

_POWER = 0.8


class SeedChanges(NamedTuple):
    """The change of each cell over seeds, arm B minus arm A. All [cells].

    Attributes:
        low: lower limit over seeds and examples.
        p_value: of the t test over seeds; NaN if values differ without any spread over seeds.
        detectable: change that the test finds with power .8, from the deviation over seeds of all
            cells of the same kind; NaN if nothing varies over seeds.
    """

    difference: FloatArray
    low: FloatArray
    high: FloatArray
    p_value: FloatArray
    detectable: FloatArray


class _Part(NamedTuple):
    """A mean over seeds of values of every example: of an arm, or of the pairs' differences.

    Attributes:
        mean: [cells]
        variance: of that mean over seeds. [cells]
        by_example: mean over seeds of every example. [examples]
    """

    mean: FloatArray
    variance: FloatArray
    by_example: FloatArray
    seeds: int

    @classmethod
    def of(cls, cells: Cells, values: FloatArray, weights: FloatArray | None) -> "_Part":
        by_seed = weighted_means(cells.sums, values, weights)
        varies = np.ptp(by_seed, axis=0) > ROUNDING
        variance = np.where(varies, by_seed.var(axis=0, ddof=1), 0.0) / len(values)
        return cls(by_seed.mean(axis=0), variance, values.mean(axis=0), len(values))


def seed_changes(
    cells: Cells,
    right_a: FloatArray,
    right_b: FloatArray,
    alpha: float = 0.05,
    weights: FloatArray | None = None,
) -> SeedChanges:
    """Tests every cell's change of accuracy over seeds.

    With equally many seeds, seed i of A is paired with seed i of B. One model of A is paired with
    every seed of B, and the test then says nothing about other models in its place. The test is
    Student's paired t test on the cell's accuracies. With other numbers of seeds it is Welch's
    test.

    The interval is over seeds and examples, as in `intervals.mean_of_seeds_and_examples`. The sum
    of the variances over seeds and over examples is conservative (Owen 2007). t has the seeds'
    degrees of freedom, scaled by Satterthwaite's rule.

    Args:
        right_a: 1 where a model is right, 0 elsewhere. [seeds of A, examples]
        right_b: the same for B. One of the two sides has at least two seeds.
        weights: how much each example counts; None: all alike. [examples]
    """
    seeds = len(right_a), len(right_b)
    if seeds[0] == seeds[1] or min(seeds) == 1:
        paired = _Part.of(cells, right_b - right_a, weights)
        difference, by_example = paired.mean, paired.by_example
        of_seeds = paired.variance
        degrees = np.full(len(cells), float(paired.seeds - 1))
    else:
        a, b = (_Part.of(cells, right, weights) for right in (right_a, right_b))
        difference, by_example = b.mean - a.mean, b.by_example - a.by_example
        of_seeds = a.variance + b.variance
        share = a.variance**2 / (a.seeds - 1) + b.variance**2 / (b.seeds - 1)
        degrees = quotient(of_seeds**2, share)
    p_value = 2 * special.stdtr(degrees, -np.abs(quotient(difference, np.sqrt(of_seeds))))
    p_value = np.where((of_seeds == 0) & (np.abs(difference) <= ROUNDING), 1.0, p_value)
    share = np.ones(right_a.shape[1]) if weights is None else weights
    low, high = _limits(cells, share, by_example, difference, of_seeds, degrees, alpha)
    planned = max(seeds) - 1 if seeds[0] == seeds[1] or min(seeds) == 1 else sum(seeds) - 2
    detectable = float(noncentrality(planned, alpha)) * _typical_error(cells, of_seeds)
    detectable = np.where(detectable > 1, np.inf, detectable)
    return SeedChanges(difference, low, high, p_value, detectable)


def _typical_error(cells: Cells, of_seeds: FloatArray) -> FloatArray:
    """Standard error over seeds of cells of a kind and size; NaN if no cell of the kind varies.

    It is pooled, because that of a single cell rests on few seeds and may be far too small by luck.
        The variance is assumed to fall with the number of examples.

    Args:
        of_seeds: variance of every cell's mean over seeds. [cells]
    """
    n = cells.frame["n"].to_numpy(dtype=float)
    pooled = pd.Series(of_seeds * n).groupby(cells.frame["kind"].to_numpy()).transform("mean")
    error = np.sqrt(pooled.to_numpy(dtype=float) / n)
    return np.where(error > 0, error, np.nan)


def _limits(
    cells: Cells,
    weights: FloatArray,
    by_example: FloatArray,
    difference: FloatArray,
    of_seeds: FloatArray,
    degrees: FloatArray,
    alpha: float,
) -> tuple[FloatArray, FloatArray]:
    """Limits over seeds and examples; NaN if nothing varies, since this does not mean certainty."""
    total = of_seeds + variance_over_examples(cells.sums, by_example, difference, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = np.where(of_seeds > 0, degrees * (total / of_seeds) ** 2, np.inf)
    reach = stats.t.isf(alpha / 2, np.minimum(scaled, 1e9)) * np.sqrt(total)
    reach = np.where(total > 0, reach, np.nan)
    return np.maximum(difference - reach, -1.0), np.minimum(difference + reach, 1.0)


def noncentrality(degrees: npt.ArrayLike, alpha: float = 0.05) -> FloatArray:
    """True change, in standard errors, that a t test of these degrees of freedom finds at power .8.

    The value is interpolated between exact values of the non-central t.

    >>> noncentrality([1, 4, 1000]).round(2).tolist()
    [16.33, 3.77, 2.8]
    """
    known = np.nan_to_num(np.asarray(degrees, dtype=float), nan=1.0)
    return np.asarray(np.interp(np.log(known), *_noncentrality(alpha, _POWER)))


@cache
def _noncentrality(alpha: float, power: float) -> tuple[FloatArray, FloatArray]:
    """Logarithms of degrees of freedom, and the non-centrality of t that has this power."""
    degrees = np.geomspace(1, 1000, 40)

    def needed(df: float) -> float:
        critical = stats.t.isf(alpha / 2, df)
        return float(
            optimize.brentq(lambda c: stats.nct.sf(critical, df, c) - power, 0.0, 4 * critical)
        )

    return np.log(degrees), np.array([needed(df) for df in degrees])
