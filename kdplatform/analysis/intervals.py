"""Intervals of means over seeds, over test examples and over both, and of paired differences."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from kdplatform.analysis.significance import ROUNDING, check_fraction
from kdplatform.predictions import FloatArray

LEVEL = 0.05


class Interval(NamedTuple):
    """An estimate with its limits; NaN where they are not known."""

    estimate: float
    low: float
    high: float

    def within(self, lowest: float, highest: float) -> "Interval":
        """Returns the interval with its limits cut off at a range."""
        limits = np.clip([self.low, self.high], lowest, highest)
        return Interval(self.estimate, *map(float, limits))

    def columns(self, name: str) -> dict[str, float]:
        """Returns the interval as columns of a table: `name`, `name_low` and `name_high`."""
        return {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high}


UNKNOWN = Interval(np.nan, np.nan, np.nan)


class Difference(NamedTuple):
    """Mean difference of pairs with its interval, and the p of the paired t test."""

    interval: Interval
    p_value: float


def mean_over_seeds(values: npt.ArrayLike, confidence: float = 1 - LEVEL) -> Interval:
    """Mean over seeds and its interval: mean plus and minus t times s / sqrt(n).

    It accounts for training again with other seeds on the same data. There are no limits with fewer
    than two seeds, or if all seeds agree. Accuracies and counts of classes have few possible
    values, so a few equal values do not mean certainty.

    Args:
        values: one per seed.

    Raises:
        ValueError: `confidence` is not between 0 and 1.
    """
    check_fraction("confidence", confidence)
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean()) if len(sample) else float("nan")
    if len(sample) < 2 or np.ptp(sample) <= ROUNDING:
        return Interval(mean, np.nan, np.nan)
    reach = stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * stats.sem(sample)
    return Interval(mean, mean - reach, mean + reach)


def paired_difference(
    a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 1 - LEVEL
) -> Difference:
    """Mean of a - b over pairs, with its interval and the p of Student's paired t test.

    If no pair differs, p is 1. If all pairs differ by the same amount, there is no spread, and a t
    test would call the amount certain. Interval and p are then NaN.

    Args:
        a: one value per seed.
        b: the values of the other arm, in the same order.

    Raises:
        ValueError: the arms have different numbers of seeds.

    >>> paired_difference([3.0, 5.0, 7.0], [2.0, 3.0, 4.0]).interval.estimate
    2.0
    >>> paired_difference([0.97, 0.96], [0.98, 0.97]).p_value
    nan
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"arms have {len(first)} and {len(second)} seeds; allowed: the same")
    differences = first - second
    interval = mean_over_seeds(differences, confidence)
    p_value = float("nan")
    if np.isfinite(interval.low):
        p_value = float(stats.ttest_rel(first, second).pvalue)
    elif len(differences) > 1 and abs(interval.estimate) <= ROUNDING:
        p_value = 1.0
    return Difference(interval, p_value)


def mean_of_seeds_and_examples(
    differences: FloatArray, weights: FloatArray | None = None
) -> Interval:
    """Mean difference with a 95% interval that treats both seeds and test examples as samples.

    The variance is that of the seeds' means plus that of the examples' means. This sum counts their
    interaction twice and is therefore conservative (Owen 2007). t has the seeds' degrees of
    freedom, scaled by Satterthwaite's rule.

    Args:
        differences: difference of two models on every example. [seeds, examples]
        weights: as in `mean_of_examples`.
    """
    seeds, examples = differences.shape
    by_seed = np.average(differences, axis=1, weights=weights)
    mean = float(by_seed.mean())
    if seeds < 2 or examples < 2:
        return Interval(mean, np.nan, np.nan)
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    of_examples = _variance_of_mean(differences.mean(axis=0), weights)
    total = of_seeds + of_examples
    degrees = np.inf if of_seeds == 0 else (seeds - 1) * (total / of_seeds) ** 2
    return _symmetric(mean, total, degrees)


def mean_of_examples(differences: FloatArray, weights: FloatArray | None = None) -> Interval:
    """Mean difference of two models with its 95% t-interval over examples, given these models.

    Args:
        differences: difference on every example. [examples]
        weights: how much each example counts; None: all alike. [examples]
    """
    mean = float(np.average(differences, weights=weights))
    if len(differences) < 2:
        return Interval(mean, np.nan, np.nan)
    return _symmetric(mean, _variance_of_mean(differences, weights), len(differences) - 1)


def _variance_of_mean(values: FloatArray, weights: FloatArray | None) -> float:
    """Variance of a mean over examples; that of a weighted mean by linearisation.

    A weighted mean is a ratio of two sums, and both vary with the drawn examples (Hájek 1971). Its
    variance is n / (n - 1) sum of w² (x - mean)² / (sum of w)². Equal weights give the usual s² /
    n.
    """
    if weights is None:
        return float(values.var(ddof=1)) / len(values)
    counting = weights > 0
    values, share = values[counting], weights[counting] / weights.sum()
    if len(values) < 2 or np.ptp(values) <= ROUNDING:
        return 0.0
    residuals = share * (values - share @ values)
    return float((residuals**2).sum()) * len(values) / (len(values) - 1)


def change_over_temperature(
    grid: FloatArray, temperatures: FloatArray, width: float = np.inf
) -> Interval:
    """Change from the lowest to the highest temperature, along each seed's least-squares line.

    Args:
        grid: one value per model. [seeds, temperatures]
        width: largest minus smallest value that the quantity can have.

    Returns:
        The mean over seeds with its 95% t-interval, cut off at the steepest possible lines.
    """
    centred = temperatures - temperatures.mean()
    weights = centred * float(np.ptp(temperatures)) / (centred**2).sum()
    # The weights sum to 0, so the steepest line has the highest values where they are positive.
    steepest = width * float(weights[weights > 0].sum())
    return mean_over_seeds(grid @ weights).within(-steepest, steepest)


def _symmetric(mean: float, variance: float, degrees: float) -> Interval:
    # No spread at all: the models agree everywhere, which does not mean certainty.
    if variance <= 0:
        return Interval(mean, np.nan, np.nan)
    margin = float(stats.t.isf(LEVEL / 2, min(degrees, 1e9)) * np.sqrt(variance))
    return Interval(mean, mean - margin, mean + margin)
