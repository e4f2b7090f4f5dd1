"""A few seeds, the same for two arms: means and differences with t intervals."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats


class Estimate(NamedTuple):
    """A mean with the limits of its t interval; the limits are NaN for fewer than two values."""

    mean: float
    low: float
    high: float


class Difference(NamedTuple):
    """Mean difference of pairs, its t interval, and the p of the paired t test."""

    mean: float
    low: float
    high: float
    p_value: float


def mean_interval(values: npt.ArrayLike, confidence: float = 0.95) -> Estimate:
    """Mean over seeds and its interval: mean plus and minus t times s / sqrt(n).

    It speaks of training again with other seeds, on the same data.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return Estimate(float(sample.mean()) if len(sample) else float("nan"), np.nan, np.nan)
    reach = stats.t.ppf((1 + confidence) / 2, len(sample) - 1) * stats.sem(sample)
    mean = float(sample.mean())
    return Estimate(mean, float(mean - reach), float(mean + reach))


def paired_difference(a: npt.ArrayLike, b: npt.ArrayLike, confidence: float = 0.95) -> Difference:
    """Mean of a - b over pairs, with its interval and the p of Student's paired t test.

    Pairs that never differ have p 1; pairs that all differ by the same amount have p 0.

    Args:
        a: one value per seed.
        b: the other arm's, in the same order.

    Raises:
        ValueError: the arms have not the same number of seeds.

    >>> paired_difference([3.0, 5.0, 7.0], [2.0, 3.0, 4.0]).mean
    2.0
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"arms have {len(first)} and {len(second)} seeds; allowed: the same")
    differences = first - second
    mean, low, high = mean_interval(differences, confidence)
    if len(differences) < 2 or not np.isfinite(mean):
        return Difference(mean, low, high, float("nan"))
    if np.ptp(differences) == 0:
        return Difference(mean, low, high, 1.0 if mean == 0 else 0.0)
    return Difference(mean, low, high, float(stats.ttest_rel(first, second).pvalue))
