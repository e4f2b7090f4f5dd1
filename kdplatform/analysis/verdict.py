"""The verdict on a difference: fixed rules that turn an interval into a word.

A claim is supported or contradicted only at the 5% level, two-sided. Everything else is undecided
with these seeds and examples. Undecided does not mean false.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from kdplatform.analysis.intervals import Interval

# Fairness metrics for which more is fairer, and those whose fairest value chance alone does not
# change.
HIGHER_IS_FAIRER = frozenset({"worst_group_accuracy", "demographic_parity_ratio"})
WITHOUT_CHANCE_LEVEL = frozenset({"worst_group_accuracy"})
# Metrics that measure how good something is, not how equal.
_QUALITIES = frozenset({"worst_group_accuracy"})


class Verdict(StrEnum):
    """The verdict of a study on a claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"


def by_interval(claimed_sign: int, interval: Interval, chance: float = 0.0) -> Verdict:
    """Judges a claim about the sign of a difference by its 95% interval.

    Supported if the whole interval is on the claimed side of 0, contradicted if on the other.

    Args:
        claimed_sign: 1 for a rise or more, -1 for a fall or less.
        chance: the difference of the metric's chance level; the interval must exclude 0 with and
            without it.
    """
    if not np.isfinite([*interval, chance]).all():
        return Verdict.UNDECIDED
    if min(interval.low, interval.low - chance) > 0:
        return Verdict.SUPPORTED if claimed_sign > 0 else Verdict.CONTRADICTED
    if max(interval.high, interval.high - chance) < 0:
        return Verdict.SUPPORTED if claimed_sign < 0 else Verdict.CONTRADICTED
    return Verdict.UNDECIDED


@dataclass(frozen=True)
class Change:
    """The change of a fairness metric of one arm, or of the mean of several, against a reference.

    The chance level of a largest difference falls with a model's error rate, so a more accurate
    model looks fairer. For a verdict the interval must exclude 0, both as it is and after the
    difference of the chance levels is taken away.

    Attributes:
        chance: the difference of the metric's chance level; 0 if it has none, NaN if unknown.
        levelling_down: the metric improves while every group's accuracy falls.
        seeds: the common seeds, if they are known.
    """

    interval: Interval
    chance: float
    levelling_down: bool
    seeds: tuple[int, ...] = ()


def fairness_word(metric: str, change: Change) -> str:
    """Returns the verdict on the arm: fairer, less fair, better, worse, undecided, undefined.

    >>> fairness_word("eod", Change(Interval(0.2, 0.1, 0.3), 0.01, False))
    'less fair'
    >>> fairness_word("eod", Change(Interval(0.2, 0.1, 0.3), 0.15, False))
    'undecided'
    """
    if not np.isfinite([*change.interval, change.chance]).all():
        return "undefined"
    quality = metric in _QUALITIES
    words = {
        Verdict.SUPPORTED: "better" if quality else "fairer",
        Verdict.CONTRADICTED: "worse" if quality else "less fair",
        Verdict.UNDECIDED: "undecided",
    }
    sign = 1 if metric in HIGHER_IS_FAIRER else -1
    return words[by_interval(sign, change.interval, change.chance)]
