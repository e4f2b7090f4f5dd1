"""A few seeds, the same for two arms: means and differences with t intervals."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from kdplatform.analysis.significance import ROUNDING, check_fraction


class Estimate(NamedTuple):
    """A mean with the limits of its t interval; NaN for fewer than two values, or equal ones."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """Mean difference of pairs, its t interval, and the p of the paired t test."""

    mean: float
    low: float
    high: float
    p_value: float


def mean_interval(
    values: npt.ArrayLike,
    confidence: float = 0.95,
    *,
    lowest: float = -np.inf,
    highest: float = np.inf,
) -> Estimate:
    """Mean over seeds and its interval: mean plus and minus t times s / sqrt(n).

    It speaks of training again with other seeds, on the same data. Fewer than two seeds, or seeds
    that all agree, have no limits: accuracies and counts of classes take few values, and a few
    that agree are no certainty.

    Args:
        values: one per seed.
        confidence: level of the interval.
        lowest: the interval is cut off at the quantity's own range.
        highest: as `lowest`.

    Raises:
        ValueError: `confidence` is not between 0 and 1.
    """
    check_fraction("confidence", confidence)
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean()) if len(sample) else float("nan")
    if len(sample) < 2 or np.ptp(sample) <= ROUNDING:
        return Estimate(mean, np.nan, np.nan)
    reach = stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * stats.sem(sample)
    return Estimate(
        mean, float(np.maximum(lowest, mean - reach)), float(np.minimum(highest, mean + reach))
    )


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95) -> Difference:
    """Mean of a - b over pairs, with its interval and the p of Student's paired t test.

    Pairs that never differ have p 1. Pairs that all differ by the same amount show no spread to
    judge that amount by, where a t test would call it certain: interval and p are NaN.

    Args:
        a: one value per seed.
        b: the other arm's, in the same order.
        confidence: level of the interval.

    Raises:
        ValueError: the arms have not the same number of seeds.

    >>> paired_difference([3.0, 5.0, 7.0], [2.0, 3.0, 4.0]).mean
    2.0
    >>> paired_difference([0.97, 0.96], [0.98, 0.97]).p_value
    nan
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"arms have {len(first)} and {len(second)} seeds; allowed: the same")
    differences = first - second
    mean, low, high = mean_interval(differences, confidence)
    p_value = float("nan")
    if np.isfinite(low):
        p_value = float(stats.ttest_rel(first, second).pvalue)
    elif len(differences) > 1 and abs(mean) <= ROUNDING:
        p_value = 1.0
    return Difference(mean, low, high, p_value)
