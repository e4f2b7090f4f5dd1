"""Rates per group and class from counts, and how far they spread over the groups.

Examples are counted by code. These counts are summed to those of groups, since an example may be in
several groups. All arrays may have leading dimensions (tables, bootstrap draws, permutations). The
last two are [groups, classes]. Class c is measured one-vs-rest: its positives are the examples of
label c. A rate over fewer than `min_group_size` examples is not measured, because by chance it
could decide a largest difference.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kdplatform.analysis.tables import quotient
from kdplatform.predictions import FloatArray, IntArray

# Examples below which a group has no rate.
MIN_GROUP_SIZE = 30


@dataclass(frozen=True)
class GroupCounts:
    """The counts, or weighted counts, of predictions that the fairness metrics need.

    Attributes:
        n: Examples. [..., groups]
        positives: Examples of label c. [..., groups, classes]
        predicted: Examples predicted c. [..., groups, classes]
        hits: Examples of label c predicted c. [..., groups, classes]
        models: Which models these are, if models are a leading dimension.
    """

    n: npt.NDArray[np.floating | np.integer]
    positives: npt.NDArray[np.floating | np.integer]
    predicted: npt.NDArray[np.floating | np.integer]
    hits: npt.NDArray[np.floating | np.integer]
    models: slice = field(default_factory=lambda: slice(None))

    def of_groups(self, members: npt.NDArray[np.bool_]) -> "GroupCounts":
        """Adds the counts of codes up to those of the groups they belong to.

        Args:
            members: `Groups.members`. [codes, groups]
        """
        if np.array_equal(members, np.eye(len(members), dtype=bool)):
            return self
        share = members.astype(self.n.dtype)
        return GroupCounts(
            n=self.n @ share,
            positives=share.T @ self.positives,
            predicted=share.T @ self.predicted,
            hits=share.T @ self.hits,
            models=self.models,
        )

    @property
    def negatives(self) -> npt.NDArray[np.floating | np.integer]:
        """Examples of another label than c. [..., groups, classes]."""
        return np.asarray(self.n[..., None] - self.positives)


@dataclass(frozen=True)
class LargeEnough:
    """Which rates of which groups have enough examples in the observed table.

    This depends on labels and not on predictions, so it is the same for all models and draws.

    Attributes:
        groups: Enough examples. [groups]
        positives: Enough examples of label c. [groups, classes]
        negatives: Enough examples of another label. [groups, classes]
    """

    groups: npt.NDArray[np.bool_]
    positives: npt.NDArray[np.bool_]
    negatives: npt.NDArray[np.bool_]
    min_group_size: int

    @classmethod
    def of(cls, counts: GroupCounts, min_group_size: int) -> "LargeEnough":
        """Judges the counts of one table.

        Raises:
            ValueError: `min_group_size` is below 1.
        """
        if min_group_size < 1:
            raise ValueError(f"min_group_size is {min_group_size}; allowed: integer >= 1")
        return cls(
            counts.n >= min_group_size,
            counts.positives >= min_group_size,
            counts.negatives >= min_group_size,
            min_group_size,
        )


@dataclass(frozen=True)
class GroupRates:
    """The rates of groups; NaN where a group is too small or a denominator is 0.

    Attributes:
        selection: P(prediction = c | group). [..., groups, classes]
        true_positive: P(prediction = c | label = c, group). [..., groups, classes]
        false_positive: P(prediction = c | label not c, group). [..., groups, classes]
        accuracy: P(prediction = label | group). [..., groups]
    """

    selection: FloatArray
    true_positive: FloatArray
    false_positive: FloatArray
    accuracy: FloatArray


def group_rates(counts: GroupCounts, large: LargeEnough) -> GroupRates:
    """The rates that the groups are large enough for."""
    alarms = counts.predicted - counts.hits
    return GroupRates(
        np.where(large.groups[:, None], quotient(counts.predicted, counts.n[..., None]), np.nan),
        np.where(large.positives, quotient(counts.hits, counts.positives), np.nan),
        np.where(large.negatives, quotient(alarms, counts.negatives), np.nan),
        np.where(large.groups, quotient(counts.hits.sum(axis=-1), counts.n), np.nan),
    )


def count_codes(
    codes: IntArray,
    labels: IntArray,
    predictions: IntArray,
    n_codes: int,
    n_classes: int,
    weights: FloatArray | None = None,
) -> GroupCounts:
    """Counts of one table by code; examples with code -1 belong to no group and are left out.

    Args:
        weights: How much each example counts; None: all alike. [examples]
    """
    inside = codes >= 0
    share = None if weights is None else weights[inside]
    offset, labels, predictions = codes[inside] * n_classes, labels[inside], predictions[inside]
    shape, cells = (n_codes, n_classes), n_codes * n_classes
    hit = labels == predictions
    return GroupCounts(
        n=np.bincount(codes[inside], share, minlength=n_codes),
        positives=np.bincount(offset + labels, share, minlength=cells).reshape(shape),
        predicted=np.bincount(offset + predictions, share, minlength=cells).reshape(shape),
        hits=np.bincount(
            (offset + labels)[hit], None if share is None else share[hit], minlength=cells
        ).reshape(shape),
    )


def spread(rates: FloatArray, axis: int) -> FloatArray:
    """Largest minus smallest rate over the groups; NaN when fewer than two groups have a rate."""
    known = np.isfinite(rates).sum(axis=axis)
    gap = np.fmax.reduce(rates, axis=axis) - np.fmin.reduce(rates, axis=axis)
    return np.where(known >= 2, gap, np.nan)


def spread_of_rates(
    numerator: npt.NDArray[np.floating | np.integer],
    denominator: npt.NDArray[np.floating | np.integer],
    enough: npt.NDArray[np.bool_],
) -> FloatArray:
    """The `spread` of a quotient over the groups, computed group by group without a table of rates.

    Draws of many classes give hundreds of millions of rates. Here each rate is in the processor's
    cache only once. Single precision stays single precision.

    Args:
        numerator: [..., groups, classes]
        denominator: [..., groups, classes], or one for all classes.
        enough: Which rates are measured. [groups, classes]

    Returns:
        [..., classes]
    """
    enough = np.broadcast_to(enough, numerator.shape[-2:])
    chosen = np.flatnonzero(enough.any(axis=1))
    if any(_has_zero(denominator[..., group, :], enough[group]) for group in chosen):
        rates = np.where(enough, quotient(numerator, denominator), np.nan)
        return spread(rates, -2)
    highest: FloatArray | None = None
    lowest: FloatArray | None = None
    for group in chosen:
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = np.asarray(numerator[..., group, :] / denominator[..., group, :])
        if not enough[group].all():
            rates[..., ~enough[group]] = np.nan
        if highest is None or lowest is None:
            highest, lowest = rates, rates.copy(order="K")
        else:
            np.fmax(highest, rates, out=highest)
            np.fmin(lowest, rates, out=lowest)
    if highest is None or lowest is None:
        return np.full(numerator.shape[:-2] + numerator.shape[-1:], np.nan)
    gap = np.subtract(highest, lowest, out=highest)
    gap[..., enough.sum(axis=0) < 2] = np.nan
    return gap


def _has_zero(
    denominator: npt.NDArray[np.floating | np.integer], enough: npt.NDArray[np.bool_]
) -> bool:
    zero = denominator == 0
    return bool(zero.any()) and bool((zero & enough).any())


def mean_known(values: FloatArray) -> FloatArray:
    """Mean over the last axis of the values that are defined; NaN when none is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=-1, dtype=float)
    return quotient(total, known.sum(axis=-1))


# Turns counts into values by metric, each with the counts' leading dimensions.
Measure = Callable[[GroupCounts, LargeEnough], dict[str, FloatArray]]


def metric_values(counts: GroupCounts, large: LargeEnough) -> dict[str, FloatArray]:
    """The fairness metrics of counts; each value has the counts' leading dimensions.

    With two classes the metrics are those of class 1. More classes are measured one-vs-rest: `dpd`,
    `eod` and the differences are means over the classes for which they are defined, and `_max` is
    the largest. EOD is the larger of the TPR and FPR differences, and is undefined if either is.
    """
    own = slice(1, 2) if counts.positives.shape[-1] == 2 else slice(None)
    hits, predicted, positives = (
        each[..., own] for each in (counts.hits, counts.predicted, counts.positives)
    )
    n = counts.n[..., None]
    dpd = spread_of_rates(predicted, n, large.groups[:, None])
    tpr = spread_of_rates(hits, positives, large.positives[:, own])
    fpr = spread_of_rates(predicted - hits, n - positives, large.negatives[:, own])
    eod = np.maximum(tpr, fpr)
    accuracy = np.where(large.groups, quotient(counts.hits.sum(axis=-1), counts.n), np.nan)
    return {
        "dpd": mean_known(dpd),
        "dpd_max": np.fmax.reduce(dpd, axis=-1),
        "eod": mean_known(eod),
        "eod_max": np.fmax.reduce(eod, axis=-1),
        "tpr_difference": mean_known(tpr),
        "fpr_difference": mean_known(fpr),
        "worst_group_accuracy": np.fmin.reduce(accuracy, axis=-1),
        "accuracy_gap": spread(accuracy, -1),
    }
