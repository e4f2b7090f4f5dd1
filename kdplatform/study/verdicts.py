"""The verdict on a claim: rules that are fixed before a study is looked at.

Every rule turns an interval, and for a trend also the p-value of its test, into one of three words.
A claim is supported or contradicted only at the 5% level, two-sided. Everything else is undecided
with these seeds. Undecided does not mean false.
"""

import numpy as np
import pandas as pd
from scipy import stats

from kdplatform.analysis.effects import Trend
from kdplatform.analysis.intervals import LEVEL, UNKNOWN, Interval
from kdplatform.analysis.verdict import Verdict as Verdict
from kdplatform.analysis.verdict import by_interval as by_interval

# Largest shift of a class, as a share of overall accuracy, that counts as none.
NEGLIGIBLE_SHIFT = 0.02


def by_trend(claimed_sign: int, trend: Trend, change: Interval) -> Verdict:
    """Judges a claim about a rise or fall with temperature.

    Two tests must agree: Page's test of order, two-sided at 5%, and the 95% interval of the change
    along each seed's straight line. A value that moves up and down may pass one of them, but not
    both.
    """
    side = by_interval(claimed_sign, change)
    if side is Verdict.UNDECIDED or not np.isfinite(trend.p_value) or trend.p_value >= LEVEL:
        return Verdict.UNDECIDED
    rises = trend.p_increasing < trend.p_decreasing
    return side if rises == (change.estimate > 0) else Verdict.UNDECIDED


def beyond_chance(p_count: float, classes: pd.DataFrame) -> tuple[Verdict, Interval]:
    """Judges whether classes differ between two arms at all.

    Supported if the permutation of seeds gives p < .05 for the number of differing classes.
    Contradicted if every class is shown to differ by less than `NEGLIGIBLE_SHIFT`: the simultaneous
    (Bonferroni) 95% intervals of all classes lie within it.

    Args:
        p_count: global p of the permutation of seeds.
        classes: as `significance.welch_by_class` gives it.

    Returns:
        The verdict, and the largest class shift with its simultaneous interval, as a share of
        overall accuracy.
    """
    known = classes[np.isfinite(classes["p_value"]) & np.isfinite(classes["normalised_low"])]
    if known.empty:
        return Verdict.UNDECIDED, UNKNOWN
    shift = known["normalised_difference"].to_numpy(dtype=float)
    degrees = known["df"].to_numpy(dtype=float)
    half = (known["normalised_high"] - known["normalised_low"]).to_numpy(dtype=float) / 2
    wider = stats.t.isf(LEVEL / 2 / len(known), degrees) / stats.t.isf(LEVEL / 2, degrees)
    low, high = shift - half * wider, shift + half * wider
    largest = int(np.argmax(np.abs(shift)))
    interval = Interval(float(shift[largest]), float(low[largest]), float(high[largest]))
    # Overall accuracy contains the class's accuracy with the weight of its share, which bounds
    # their ratio.
    most = float(classes["n"].sum() / known["n"].iloc[largest])
    interval = interval.within(-most, most)
    if p_count < LEVEL:
        return Verdict.SUPPORTED, interval
    everywhere = len(known) == int((classes["n"] > 0).sum())
    if everywhere and (low > -NEGLIGIBLE_SHIFT).all() and (high < NEGLIGIBLE_SHIFT).all():
        return Verdict.CONTRADICTED, interval
    return Verdict.UNDECIDED, interval
