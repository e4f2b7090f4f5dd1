"""Rates per group and class from counts, and how far they spread over the groups.

Counts are taken by code, and added up to those of groups, since an example may be in several. All
arrays may carry leading dimensions (tables, bootstrap draws, permutations); the last two are
[groups, classes]. Class c is measured one-vs-rest: its positives are the examples of label c.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kdplatform.analysis.tables import FloatArray, IntArray, quotient


@dataclass(frozen=True)
class GroupCounts:
    """What the fairness metrics need to know of predictions: counts, or weighted counts.

    Attributes:
        n: Examples. [..., groups]
        positives: Examples of label c. [..., groups, classes]
        predicted: Examples predicted c. [..., groups, classes]
        hits: Examples of label c predicted c. [..., groups, classes]
    """

    n: npt.NDArray[np.floating | np.integer]
    positives: npt.NDArray[np.floating | np.integer]
    predicted: npt.NDArray[np.floating | np.integer]
    hits: npt.NDArray[np.floating | np.integer]

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
        )

    @property
    def selection_rate(self) -> FloatArray:
        """P(prediction = c | group)."""
        return quotient(self.predicted, self.n[..., None])

    @property
    def true_positive_rate(self) -> FloatArray:
        """P(prediction = c | label = c, group), NaN for a group without positives."""
        return quotient(self.hits, self.positives)

    @property
    def false_positive_rate(self) -> FloatArray:
        """P(prediction = c | label not c, group), NaN for a group without negatives."""
        return quotient(self.predicted - self.hits, self.n[..., None] - self.positives)

    @property
    def accuracy(self) -> FloatArray:
        """P(prediction = label | group), of shape [..., groups]."""
        return quotient(self.hits.sum(axis=-1), self.n)


def count_codes(
    codes: IntArray, labels: IntArray, predictions: IntArray, n_codes: int, n_classes: int
) -> GroupCounts:
    """Counts of one table by code; examples with code -1 belong to no group and are left out."""
    inside = codes >= 0
    offset, labels, predictions = codes[inside] * n_classes, labels[inside], predictions[inside]
    shape, cells = (n_codes, n_classes), n_codes * n_classes
    hit = labels == predictions
    return GroupCounts(
        n=np.bincount(codes[inside], minlength=n_codes),
        positives=np.bincount(offset + labels, minlength=cells).reshape(shape),
        predicted=np.bincount(offset + predictions, minlength=cells).reshape(shape),
        hits=np.bincount((offset + labels)[hit], minlength=cells).reshape(shape),
    )


def spread(rates: FloatArray, axis: int) -> FloatArray:
    """Largest minus smallest rate over the groups; NaN when fewer than two groups have a rate."""
    known = np.isfinite(rates).sum(axis=axis)
    gap = np.fmax.reduce(rates, axis=axis) - np.fmin.reduce(rates, axis=axis)
    return np.where(known >= 2, gap, np.nan)


@dataclass(frozen=True)
class ClassSpreads:
    """Fairness metrics per class, one-vs-rest. All arrays are [..., classes]."""

    dpd: FloatArray
    tpr_difference: FloatArray
    fpr_difference: FloatArray

    @property
    def eod(self) -> FloatArray:
        """The larger of the TPR and FPR differences; NaN when either is undefined."""
        return np.maximum(self.tpr_difference, self.fpr_difference)


def class_spreads(counts: GroupCounts) -> ClassSpreads:
    """DPD and the parts of EOD for every class."""
    return ClassSpreads(
        dpd=spread(counts.selection_rate, -2),
        tpr_difference=spread(counts.true_positive_rate, -2),
        fpr_difference=spread(counts.false_positive_rate, -2),
    )


def mean_known(values: FloatArray) -> FloatArray:
    """Mean over the last axis of the values that are defined; NaN when none is."""
    known = np.isfinite(values)
    return quotient(np.where(known, values, 0.0).sum(axis=-1), known.sum(axis=-1))


def metric_values(counts: GroupCounts) -> dict[str, FloatArray]:
    """The fairness metrics of counts; each value has the counts' leading dimensions.

    Two classes are measured on class 1. More are measured one-vs-rest, and `dpd`, `eod` and the
    differences are means over the classes where they are defined, `_max` the largest.
    """
    spreads = class_spreads(counts)
    parts = {
        "dpd": spreads.dpd,
        "eod": spreads.eod,
        "tpr_difference": spreads.tpr_difference,
        "fpr_difference": spreads.fpr_difference,
    }
    if counts.positives.shape[-1] == 2:
        parts = {name: values[..., 1:] for name, values in parts.items()}
    accuracy = counts.accuracy
    return {
        "dpd": mean_known(parts["dpd"]),
        "dpd_max": np.fmax.reduce(parts["dpd"], axis=-1),
        "eod": mean_known(parts["eod"]),
        "eod_max": np.fmax.reduce(parts["eod"], axis=-1),
        "tpr_difference": mean_known(parts["tpr_difference"]),
        "fpr_difference": mean_known(parts["fpr_difference"]),
        "worst_group_accuracy": np.fmin.reduce(accuracy, axis=-1),
        "accuracy_gap": spread(accuracy, -1),
    }
