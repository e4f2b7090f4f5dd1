"""McNemar's exact test of pairs of counts: its p, its own chance level, interval and power.

Two models differ on some of `n` examples: only A is right on `only_a`, and only B on `only_b`.
Under the null hypothesis each of these examples is a coin toss. The test is discrete, so its true
level is always below the nominal one. With five differing examples or fewer it cannot give p < .05.
"""

from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from kdplatform.analysis.tables import quotient
from kdplatform.predictions import FloatArray, IntArray

# Numbers of differing examples for which the exact test's power is computed; beyond the last the
# normal approximation serves.
_NODES = (0, 6, 8, 9, 10, 12, 14, 16, 18, 20, 23, 26, 30, 35, 40, 50, 60, 80, 100, 140, 200)


def mcnemar_p(only_a: npt.ArrayLike, only_b: npt.ArrayLike) -> FloatArray:
    """Two-sided exact p of every pair of counts; 1 where the models never differ.

    The number that only A gets right is binomial(m, 1/2), where m is the number that exactly one
    model gets right (McNemar 1947). p is twice the smaller tail, as in `scipy.stats.binomtest`.

    >>> mcnemar_p([6, 5, 0], [0, 0, 0]).tolist()
    [0.03125, 0.0625, 1.0]
    """
    a, b = np.asarray(only_a), np.asarray(only_b)
    return np.asarray(np.minimum(1.0, 2 * stats.binom.cdf(np.minimum(a, b), a + b, 0.5)))


def attained_level(discordant: npt.ArrayLike, alpha: float = 0.05) -> FloatArray:
    """Chance that the exact test gives p below alpha when nothing differs.

    >>> attained_level([3, 5, 6, 20]).round(4).tolist()
    [0.0, 0.0, 0.0312, 0.0414]
    """
    m = np.asarray(discordant, dtype=np.int64)
    most = _critical_count(m, alpha)
    return np.asarray(np.where(most < 0, 0.0, 2 * stats.binom.cdf(most, m, 0.5)))


def _critical_count(discordant: IntArray, alpha: float) -> FloatArray:
    """Largest count of the smaller side that is significant; -1 if none is."""
    most = stats.binom.ppf(alpha / 2, discordant, 0.5)
    return np.where(2 * stats.binom.cdf(most, discordant, 0.5) < alpha, most, most - 1)


def change_interval(
    only_a: npt.ArrayLike, only_b: npt.ArrayLike, n: npt.ArrayLike, alpha: float = 0.05
) -> tuple[FloatArray, FloatArray]:
    """Limits of the change of accuracy, (only_b - only_a) / n, over examples and given the models.

    Each limit is the wider of two intervals. The first is the adjusted Wald interval of paired
    proportions (Bonett and Price 2012), which also covers with few examples. The second is the
    exact interval for B's share of the differing examples (Clopper and Pearson 1934). Because of
    the second, the limits exclude 0 only where the exact test gives p below alpha.

    Args:
        n: examples, at least 1.
    """
    a, b, total = (np.asarray(values, dtype=float) for values in (only_a, only_b, n))
    z = stats.norm.isf(alpha / 2)
    share_a, share_b = (a + 1) / (total + 2), (b + 1) / (total + 2)
    centre = share_b - share_a
    margin = z * np.sqrt((share_a + share_b - centre**2) / (total + 2))
    m = a + b
    least = np.where(b > 0, stats.beta.ppf(alpha / 2, np.maximum(b, 1), a + 1), 0.0)
    most = np.where(a > 0, stats.beta.ppf(1 - alpha / 2, b + 1, np.maximum(a, 1)), 1.0)
    differing = quotient(m, total)
    low = np.minimum(centre - margin, (2 * least - 1) * differing)
    high = np.maximum(centre + margin, (2 * most - 1) * differing)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def detectable_change(
    discordant: npt.ArrayLike, n: npt.ArrayLike, alpha: float = 0.05, power: float = 0.8
) -> FloatArray:
    """Change of accuracy that the uncorrected test would have shown with the given power.

    The models are assumed to differ on as many examples as here, or on as many as the change itself
    needs. The counts of both sides are assumed Poisson. Infinite if no change of so few examples
    could be detected.

    >>> detectable_change([0, 0, 40], [10, 100, 1000]).round(3).tolist()
    [0.791, 0.079, 0.018]
    """
    m, total = np.broadcast_arrays(np.asarray(discordant, dtype=float), np.asarray(n, dtype=float))
    needed = np.interp(np.sqrt(m), *_detectable_counts(alpha, power))
    z = stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power)
    needed = np.where(m > _NODES[-1], z * np.sqrt(m) + 1, needed)  # about one more than the normal
    change = quotient(needed, total)
    return np.where(change > 1, np.inf, change)


@cache
def _detectable_counts(alpha: float, power: float) -> tuple[FloatArray, FloatArray]:
    """Roots of numbers of differing examples, and the surplus of one side found with this power.

    The surplus is smooth in the root, so values between a few nodes are interpolated.
    """
    critical = _critical_count(np.arange(2 * _NODES[-1]), alpha)

    def needed(differing: int) -> float:
        def excess(surplus: float) -> float:
            return _power(surplus, max(float(differing), surplus), critical) - power

        return float(optimize.brentq(excess, 1e-9, _NODES[-1] / 2, xtol=1e-6))

    return np.sqrt(np.array(_NODES)), np.array([needed(node) for node in _NODES])


def _power(surplus: float, differing: float, critical: FloatArray) -> float:
    """Power, given the expected number of differing examples and the expected surplus of one side.

    Args:
        critical: `_critical_count` of 0, 1, ... differing examples.
    """
    totals = np.arange(len(critical))
    chances = np.exp(special.xlogy(totals, differing) - differing - special.gammaln(totals + 1))
    share = (1 + surplus / differing) / 2
    most = np.maximum(critical, 0)
    found = special.bdtr(most, totals, 1 - share) + special.bdtr(most, totals, share)
    return float((chances * np.where(critical < 0, 0.0, found)).sum())
