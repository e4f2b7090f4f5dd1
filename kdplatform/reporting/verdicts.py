"""What may be said of a claim: rules that are fixed before a study is looked at.

Every rule turns an interval, and for a trend the p-value of its test, into one of three words. A
claim is supported or contradicted only at the 5% level, two-sided; everything else is undecidable
with the seeds at hand, which is not the same as false.
"""

from enum import StrEnum

import numpy as np
import pandas as pd
from scipy import stats

from kdplatform.analysis.bootstrap import Interval
from kdplatform.analysis.effects import Trend
from kdplatform.analysis.paired import mean_interval
from kdplatform.analysis.tables import FloatArray

LEVEL = 0.05
# Largest shift of a class, as a share of overall accuracy, that counts as none.
NEGLIGIBLE_SHIFT = 0.02


class Verdict(StrEnum):
    """What a study says of a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDABLE = "undecidable"


def by_interval(claimed_sign: int, interval: Interval, chance: float = 0.0) -> Verdict:
    """Judges a claim about the sign of a difference by its 95% interval.

    Supported when the interval lies wholly on the claimed side of 0, contradicted when wholly on
    the other.

    Args:
        claimed_sign: 1 for a rise or more, -1 for a fall or less.
        chance: by how much the metric's chance level alone differs; 0 must lie outside the interval
            with and without it.
    """
    if not np.isfinite([*interval, chance]).all():
        return Verdict.UNDECIDABLE
    if min(interval.low, interval.low - chance) > 0:
        return Verdict.SUPPORTED if claimed_sign > 0 else Verdict.CONTRADICTED
    if max(interval.high, interval.high - chance) < 0:
        return Verdict.SUPPORTED if claimed_sign < 0 else Verdict.CONTRADICTED
    return Verdict.UNDECIDABLE


def by_trend(claimed_sign: int, trend: Trend, change: Interval) -> Verdict:
    """Judges a claim about a rise or fall with temperature.

    Both must agree: Page's test of order, two-sided at 5%, and the 95% interval of the change along
    each seed's straight line. A value that wanders up and down may pass one of them, not both.
    """
    side = by_interval(claimed_sign, change)
    if side is Verdict.UNDECIDABLE or not np.isfinite(trend.p_value) or trend.p_value >= LEVEL:
        return Verdict.UNDECIDABLE
    rises = trend.p_increasing < trend.p_decreasing
    return side if rises == (change.estimate > 0) else Verdict.UNDECIDABLE


def beyond_chance(p_count: float, classes: pd.DataFrame) -> tuple[Verdict, Interval]:
    """Judges whether classes differ between two arms at all.

    Supported when the permutation of seeds gives the number of differing classes p < .05.
    Contradicted when every class is shown to differ by less than `NEGLIGIBLE_SHIFT`: the
    simultaneous (Bonferroni) 95% intervals of all classes lie within it.

    Args:
        p_count: global p of the permutation of seeds.
        classes: as `significance.welch_by_class` gives it.

    Returns:
        The verdict, and the largest class shift with its simultaneous interval, as a share of
        overall accuracy.
    """
    known = classes[np.isfinite(classes["p_value"]) & np.isfinite(classes["normalised_low"])]
    if known.empty:
        return Verdict.UNDECIDABLE, Interval(np.nan, np.nan, np.nan)
    shift = known["normalised_difference"].to_numpy(dtype=float)
    degrees = known["df"].to_numpy(dtype=float)
    half = (known["normalised_high"] - known["normalised_low"]).to_numpy(dtype=float) / 2
    wider = stats.t.isf(LEVEL / 2 / len(known), degrees) / stats.t.isf(LEVEL / 2, degrees)
    low, high = shift - half * wider, shift + half * wider
    largest = int(np.argmax(np.abs(shift)))
    interval = Interval(float(shift[largest]), float(low[largest]), float(high[largest]))
    if p_count < LEVEL:
        return Verdict.SUPPORTED, interval
    everywhere = len(known) == int((classes["n"] > 0).sum())
    if everywhere and (low > -NEGLIGIBLE_SHIFT).all() and (high < NEGLIGIBLE_SHIFT).all():
        return Verdict.CONTRADICTED, interval
    return Verdict.UNDECIDABLE, interval


def mean_over_seeds(values: FloatArray) -> Interval:
    """Mean of one value per seed with its 95% t-interval, as `paired.mean_interval` gives it."""
    return Interval(*mean_interval(values, 1 - LEVEL))


def mean_of_seeds_and_examples(differences: FloatArray) -> Interval:
    """Mean difference with a 95% interval over seeds and test examples, both being samples.

    The variance is that of the seeds' means plus that of the examples' means, which counts their
    interaction twice and so errs on the wide side (Owen 2007); t has the seeds' degrees of freedom,
    scaled by Satterthwaite's rule.

    Args:
        differences: difference of two models on every example. [seeds, examples]
    """
    seeds, examples = differences.shape
    mean = float(differences.mean())
    if seeds < 2 or examples < 2:
        return Interval(mean, np.nan, np.nan)
    of_seeds = float(differences.mean(axis=1).var(ddof=1)) / seeds
    of_examples = float(differences.mean(axis=0).var(ddof=1)) / examples
    total = of_seeds + of_examples
    degrees = np.inf if of_seeds == 0 else (seeds - 1) * (total / of_seeds) ** 2
    return _symmetric(mean, total, degrees)


def mean_of_examples(differences: FloatArray) -> Interval:
    """Mean difference of two models with its 95% t-interval over examples, given these models.

    Args:
        differences: difference on every example. [examples]
    """
    mean = float(differences.mean())
    if len(differences) < 2:
        return Interval(mean, np.nan, np.nan)
    variance = float(differences.var(ddof=1)) / len(differences)
    return _symmetric(mean, variance, len(differences) - 1)


def change_over_temperature(grid: FloatArray, temperatures: FloatArray) -> Interval:
    """Change from the lowest to the highest temperature, along each seed's least-squares line.

    Args:
        grid: one value per model. [seeds, temperatures]
        temperatures: the temperatures. [temperatures]

    Returns:
        The mean over seeds with its 95% t-interval.
    """
    centred = temperatures - temperatures.mean()
    slopes = grid @ centred / (centred**2).sum()
    return mean_over_seeds(slopes * float(np.ptp(temperatures)))


def _symmetric(mean: float, variance: float, degrees: float) -> Interval:
    # No spread at all: models that agree everywhere, which is not certainty.
    if variance <= 0:
        return Interval(mean, np.nan, np.nan)
    margin = float(stats.t.isf(LEVEL / 2, min(degrees, 1e9)) * np.sqrt(variance))
    return Interval(mean, mean - margin, mean + margin)
