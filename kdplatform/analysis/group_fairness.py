"""Group fairness of one model: rates and accuracy per group, DPD, EOD and their parts.

The metrics are defined as in fairlearn, but computed here from counts. fairlearn has no multi-class
metrics, gives a group without positives a true positive rate of 0, and takes one pass over the data
per metric and group. The tests compare with fairlearn's values.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdplatform.analysis.group_rates import (
    MIN_GROUP_SIZE,
    GroupCounts,
    GroupRates,
    LargeEnough,
    count_codes,
    group_rates,
    metric_values,
)
from kdplatform.analysis.tables import Attribute, Groups, attribute_groups, listed
from kdplatform.predictions import IntArray, Predictions, Table

METRICS = (
    "dpd",
    "dpd_max",
    "eod",
    "eod_max",
    "tpr_difference",
    "fpr_difference",
    "worst_group_accuracy",
    "accuracy_gap",
)


@dataclass(frozen=True)
class FairnessMetrics:
    """Group fairness of one model for one attribute. All metrics are fractions.

    Attributes:
        attribute: The attribute, or the attributes of an intersection joined by " & ".
        groups: Number of groups that are large enough to be measured.
        n: Examples that belong to a group.
        excluded: Examples that belong to none.
        shared: Examples that belong to several, and count in each.
        smallest_group: Examples of the smallest group measured; 0 when none is.
        classes: Classes seen as a label or a prediction.
        dpd: Demographic parity difference: largest minus smallest P(prediction = c | group). With
            two classes it is that of class 1, with more the mean over classes, one-vs-rest.
        dpd_max: The largest DPD of a class (`dpd` for two classes).
        eod: Equalized odds difference: the larger of the TPR and FPR differences; mean over classes
            as for `dpd`.
        eod_max: The largest EOD of a class.
        tpr_difference: Spread over groups of P(prediction = c | label = c), mean over classes.
        fpr_difference: Spread over groups of P(prediction = c | label not c), mean over classes.
        worst_group: The group of lowest accuracy; empty when none is measured.
        worst_group_accuracy: Its accuracy.
        accuracy_gap: Accuracy of the best group minus that of the worst.
        note: Groups that are too small with the metrics that leave them out, and examples in no
            group or in several; empty if there are none.
    """

    attribute: str
    groups: int
    n: int
    excluded: int
    shared: int
    smallest_group: int
    classes: int
    dpd: float
    dpd_max: float
    eod: float
    eod_max: float
    tpr_difference: float
    fpr_difference: float
    worst_group: str
    worst_group_accuracy: float
    accuracy_gap: float
    note: str


@dataclass(frozen=True)
class _Measured:
    groups: Groups
    classes: IntArray  # the classes seen, ascending; the columns of the counts
    sizes: GroupCounts  # numbers of examples by group, those of weight 0 left out
    examples: GroupCounts  # by code: every example once, with its weight
    counts: GroupCounts  # by group, with weights
    large: LargeEnough

    @property
    def rates(self) -> GroupRates:
        return group_rates(self.counts, self.large)


def classes_seen(labels: IntArray, predictions: IntArray) -> IntArray:
    """Classes that occur as a label or a prediction; 0 and 1 when nothing larger does."""
    seen = np.union1d(labels, predictions)
    return np.arange(2) if seen.max() <= 1 else seen


def _measure(table: Table, attribute: Attribute, min_group_size: int) -> _Measured:
    checked = Predictions.of(table)
    groups = attribute_groups(checked, attribute)
    classes = classes_seen(checked.labels, checked.predictions)
    labels, predictions = (
        np.searchsorted(classes, values) for values in (checked.labels, checked.predictions)
    )
    numbers = groups.codes, labels, predictions, len(groups.members), len(classes)
    examples = count_codes(*numbers, weights=checked.weights)
    counts = sizes = examples.of_groups(groups.members)
    if checked.weights is not None:
        present = (checked.weights > 0).astype(float)
        sizes = count_codes(*numbers, weights=present).of_groups(groups.members)
    large = LargeEnough.of(sizes, min_group_size)
    return _Measured(groups, classes, sizes, examples, counts, large)


def _note(measured: _Measured) -> str:
    large, names = measured.large, measured.groups.names
    small = [
        f"{name} ({n:.0f})"
        for name, n, kept in zip(names, measured.sizes.n, large.groups, strict=True)
        if not kept
    ]
    verb = "is" if len(small) == 1 else "are"
    remarks = [f"{listed(small)} {verb} smaller than {large.min_group_size} and left out"]
    remarks = remarks if small else []
    hint = bool(small)
    kept = [name for name, enough in zip(names, large.groups, strict=True) if enough]
    if len(kept) > 1:
        left_out, some = _left_out_of_rates(measured)
        remarks += left_out
        hint |= some
    hint &= large.min_group_size > 1
    if len(kept) == 1:
        remarks.append(f"one group only ({kept[0]}): differences are undefined")
    elif not kept:
        remarks.append("no group is left to measure")
    if hint:
        remarks.append("min_group_size=1 counts them")
    if excluded := int((measured.groups.codes < 0).sum()):
        remarks.append(f"{excluded} of {len(measured.groups.codes)} examples are in no group")
    if shared := measured.groups.shared:
        remarks.append(f"{shared} examples are in several groups and count in each")
    return "; ".join(remarks)


def _left_out_of_rates(measured: _Measured) -> tuple[list[str], bool]:
    """Says which of the measured groups have no rate for a class, and why.

    Returns:
        The remarks, and whether a smaller `min_group_size` would give any of these rates. It does
        not for a group without examples in the denominator.
    """
    large, classes = measured.large, len(measured.classes)
    binary = classes == 2
    columns = slice(1, 2) if binary else slice(None)
    names = np.array(measured.groups.names)[large.groups]
    remarks, undefined, countable = [], False, False
    for rate, enough, count, word in (
        ("TPR", large.positives, measured.sizes.positives, "positives"),
        ("FPR", large.negatives, measured.sizes.negatives, "negatives"),
    ):
        enough, count = enough[large.groups][:, columns], count[large.groups][:, columns]
        undefined |= not (enough.sum(axis=0) > 1).any()
        few = ~enough & (count > 0)
        countable |= bool(few.any())
        for left_out, amount in (
            (~enough & (count == 0), "no"),
            (few, f"fewer than {large.min_group_size}"),
        ):
            dropped = [
                name if binary else f"{name} in {number} of {classes}"
                for name, number in zip(names, left_out.sum(axis=1), strict=True)
                if number
            ]
            if left_out.all():
                remarks.append(f"{rate} leaves out every group ({amount} {word})")
            elif dropped:
                words = "" if binary else " classes"
                remarks.append(f"{rate} leaves out {listed(dropped)}{words} ({amount} {word})")
    return [*remarks, *(["EOD is undefined"] if undefined else [])], countable


def fairness_metrics(
    table: Table, attribute: Attribute, *, min_group_size: int = MIN_GROUP_SIZE
) -> FairnessMetrics:
    """DPD, EOD, their parts and worst-group accuracy of a model for an attribute.

    DPD = max_a P(Yh = c | A = a) - min_a P(Yh = c | A = a); EOD = max(TPR difference, FPR
    difference) (Agarwal et al. 2018, arXiv 1803.02453; Hardt et al. 2016, arXiv 1610.02413). More
    than two classes are binarised one-vs-rest (Mohammadshahi and Ioannou 2025, Algorithm 1) and the
    mean and maximum over the classes seen are given.

    A group smaller than `min_group_size` is not measured. A group with fewer positives has no TPR,
    and one with fewer negatives no FPR. It is left out of that difference and named in `note`. With
    fewer than two groups left the difference is NaN, and so is the EOD that needs it. Such a class
    is left out of the mean and maximum.

    DPD is a maximum of differences, so it is above 0 by chance alone. This chance level grows with
    more and with smaller groups: see `parity.parity_null`. DPD is also above 0 for a perfect model
    if the groups have different base rates.

    Args:
        attribute: The column, or several columns for their intersection.
        min_group_size: Examples a group needs in the denominator of a rate; 1 counts every group.

    Raises:
        ValueError: The table is invalid, the attribute has no group, or `min_group_size` is too
            small.

    >>> frame = pd.DataFrame({"id": range(4), "label": [0, 1, 0, 1], "prediction": [0, 1, 1, 1],
    ...                       "color": ["red", "red", "blue", "blue"]})
    >>> metrics = fairness_metrics(frame, "color", min_group_size=1)
    >>> metrics.dpd, metrics.eod, metrics.tpr_difference, metrics.worst_group
    (0.5, 1.0, 0.0, 'blue')
    """
    measured = _measure(table, attribute, min_group_size)
    groups, large = measured.groups, measured.large
    values = {name: float(value) for name, value in metric_values(measured.counts, large).items()}
    accuracy = measured.rates.accuracy
    return FairnessMetrics(
        attribute=groups.attribute,
        groups=int(large.groups.sum()),
        n=int((groups.codes >= 0).sum()),
        shared=groups.shared,
        excluded=int((groups.codes < 0).sum()),
        smallest_group=int(measured.sizes.n[large.groups].min()) if large.groups.any() else 0,
        classes=len(measured.classes),
        worst_group=groups.names[int(np.nanargmin(accuracy))] if large.groups.any() else "",
        note=_note(measured),
        **values,
    )


def group_table(
    table: Table, attribute: Attribute, *, min_group_size: int = MIN_GROUP_SIZE
) -> pd.DataFrame:
    """Size and accuracy of every group, with its rates for class 1 when there are two classes.

    A group that is too small for a rate is listed with its size, and the rate is NaN.

    Returns:
        One row per group: `attribute`, `group`, `n`, `share` (of the examples, or the weight, that
        belong to a group), `shared` (how many of the n are in other groups too), `accuracy`,
        `accuracy_difference` (group minus all examples that belong to one) and, for two classes,
        `positives`, `negatives`, `selection_rate`, `tpr`, `fpr`.
    """
    measured = _measure(table, attribute, min_group_size)
    counts, rates, examples = measured.counts, measured.rates, measured.examples
    overall = examples.hits.sum() / examples.n.sum()
    members, codes = measured.groups.members, measured.groups.codes
    sizes = np.bincount(codes[codes >= 0], minlength=len(members))
    shared = sizes @ (members & (members.sum(axis=1, keepdims=True) > 1))
    columns = {
        "attribute": measured.groups.attribute,
        "group": list(measured.groups.names),
        "n": measured.sizes.n.astype(np.int64),
        "share": counts.n / examples.n.sum(),
        "shared": shared,
        "accuracy": rates.accuracy,
        "accuracy_difference": rates.accuracy - overall,
    }
    if len(measured.classes) == 2:
        columns |= {
            "positives": measured.sizes.positives[:, 1].astype(np.int64),
            "negatives": measured.sizes.negatives[:, 1].astype(np.int64),
            "selection_rate": rates.selection[:, 1],
            "tpr": rates.true_positive[:, 1],
            "fpr": rates.false_positive[:, 1],
        }
    return pd.DataFrame(columns)


def rates_by_class(
    table: Table, attribute: Attribute, *, min_group_size: int = MIN_GROUP_SIZE
) -> pd.DataFrame:
    """Selection rate, TPR and FPR of every class in every group, one-vs-rest.

    Returns:
        One row per class and group: `attribute`, `class`, `group`, `n`, `positives`,
        `selection_rate`, `tpr`, `fpr`; NaN where a group is too small for the rate.
    """
    measured = _measure(table, attribute, min_group_size)
    sizes, rates, names = measured.sizes, measured.rates, measured.groups.names
    n_groups, n_classes = sizes.positives.shape
    return pd.DataFrame(
        {
            "attribute": measured.groups.attribute,
            "class": np.repeat(measured.classes, n_groups),
            "group": list(names) * n_classes,
            "n": np.tile(sizes.n, n_classes).astype(np.int64),
            "positives": sizes.positives.T.ravel().astype(np.int64),
            "selection_rate": rates.selection.T.ravel(),
            "tpr": rates.true_positive.T.ravel(),
            "fpr": rates.false_positive.T.ravel(),
        }
    )
