"""Group fairness of one model: rates and accuracy per group, DPD, EOD and their parts.

The metrics are fairlearn's, counted directly: fairlearn has no multi-class metrics, gives a group
without positives a true positive rate of 0, and takes one pass over the data per metric and group.
Its values are the reference in the tests.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from kdplatform.analysis.group_rates import GroupCounts, count_codes, metric_values
from kdplatform.analysis.tables import Attribute, Groups, IntArray, attribute_groups, stack_tables

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
        groups: Number of groups.
        n: Examples that belong to a group.
        excluded: Examples that belong to none.
        shared: Examples that belong to several, and count in each.
        smallest_group: Examples of the smallest group.
        classes: Classes seen as a label or a prediction.
        dpd: Demographic parity difference: largest minus smallest P(prediction = c | group). Two
            classes: of class 1. More: mean over classes, one-vs-rest.
        dpd_max: The largest DPD of a class (`dpd` for two classes).
        eod: Equalized odds difference: the larger of the TPR and FPR differences; mean over classes
            as for `dpd`.
        eod_max: The largest EOD of a class.
        tpr_difference: Spread over groups of P(prediction = c | label = c), mean over classes.
        fpr_difference: Spread over groups of P(prediction = c | label not c), mean over classes.
        worst_group: The group of lowest accuracy.
        worst_group_accuracy: Its accuracy.
        accuracy_gap: Accuracy of the best group minus that of the worst.
        note: Groups that have no rate and what was left out, or empty.
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

    def as_dict(self) -> dict[str, float | str]:
        """The metrics as a flat dictionary, for a table or a log."""
        return asdict(self)


@dataclass(frozen=True)
class _Measured:
    groups: Groups
    classes: IntArray  # the classes seen, ascending; the columns of the counts
    examples: GroupCounts  # by code: every example once
    counts: GroupCounts  # by group


def classes_seen(labels: IntArray, predictions: IntArray) -> IntArray:
    """Classes that occur as a label or a prediction; 0 and 1 when nothing larger does."""
    seen = np.union1d(labels, predictions)
    return np.arange(2) if seen.max() <= 1 else seen


def _measure(table: pd.DataFrame, attribute: Attribute) -> _Measured:
    stack, groups = stack_tables([table]), attribute_groups(table, attribute)
    classes = classes_seen(stack.labels, stack.predictions)
    labels, predictions = (
        np.searchsorted(classes, values) for values in (stack.labels, stack.predictions[0])
    )
    examples = count_codes(groups.codes, labels, predictions, len(groups.members), len(classes))
    return _Measured(groups, classes, examples, examples.of_groups(groups.members))


def _note(measured: _Measured) -> str:
    counts, names = measured.counts, measured.groups.names
    if len(names) < 2:
        return f"one group only ({names[0]}): differences are undefined"
    columns = slice(1, 2) if len(measured.classes) == 2 else slice(None)
    remarks = []
    for rate, empty, word in (
        ("TPR", counts.positives == 0, "positives"),
        ("FPR", counts.n[:, None] == counts.positives, "negatives"),
    ):
        without = empty[:, columns].sum(axis=1)
        dropped = [
            name if len(measured.classes) == 2 else f"{name} in {count} of {len(measured.classes)}"
            for name, count in zip(names, without, strict=True)
            if count
        ]
        if dropped:
            classes = "" if len(measured.classes) == 2 else " classes"
            remarks.append(f"{rate} leaves out {', '.join(dropped)}{classes} (no {word})")
    if shared := measured.groups.shared:
        remarks.append(f"{shared} examples are in several groups and count in each")
    return "; ".join(remarks)


def fairness_metrics(table: pd.DataFrame, attribute: Attribute) -> FairnessMetrics:
    """DPD, EOD, their parts and worst-group accuracy of a model for an attribute.

    DPD = max_a P(Yh = c | A = a) - min_a P(Yh = c | A = a); EOD = max(TPR difference, FPR
    difference) (Agarwal et al. 2018, arXiv 1803.02453; Hardt et al. 2016, arXiv 1610.02413). More
    than two classes are binarised one-vs-rest (Mohammadshahi and Ioannou 2025, Algorithm 1) and the
    mean and maximum over the classes seen are given.

    A group without positives has no TPR, one without negatives no FPR: it is left out of that
    difference and named in `note`. With fewer than two groups left the difference, and an EOD that
    needs it, is NaN; such a class is left out of the mean and maximum.

    DPD is a maximum of differences, so it is above 0 by chance alone, the more the smaller and the
    more numerous the groups: see `parity.parity_null`. It is also above 0 for a perfect model when
    the groups have different base rates.

    Args:
        table: A prediction table with the attribute's column.
        attribute: The column, or several columns for their intersection.

    Raises:
        ValueError: The table is invalid or the attribute has no group.

    >>> frame = pd.DataFrame({"id": range(4), "label": [0, 1, 0, 1], "prediction": [0, 1, 1, 1],
    ...                       "color": ["red", "red", "blue", "blue"]})
    >>> metrics = fairness_metrics(frame, "color")
    >>> metrics.dpd, metrics.eod, metrics.tpr_difference, metrics.worst_group
    (0.5, 1.0, 0.0, 'blue')
    """
    measured = _measure(table, attribute)
    counts, groups = measured.counts, measured.groups
    values = {name: float(value) for name, value in metric_values(counts).items()}
    worst = int(np.nanargmin(counts.accuracy))
    return FairnessMetrics(
        attribute=groups.attribute,
        groups=len(groups.names),
        n=int(measured.examples.n.sum()),
        shared=groups.shared,
        excluded=int((groups.codes < 0).sum()),
        smallest_group=int(counts.n.min()),
        classes=len(measured.classes),
        worst_group=groups.names[worst],
        note=_note(measured),
        **values,
    )


def group_table(table: pd.DataFrame, attribute: Attribute) -> pd.DataFrame:
    """Size and accuracy of every group, with its rates for class 1 when there are two classes.

    Returns:
        One row per group: `attribute`, `group`, `n`, `share` (of the examples that belong to a
        group), `shared` (how many of the n are in other groups too), `accuracy`,
        `accuracy_difference` (group minus all examples that belong to one) and, for two classes,
        `positives`, `negatives`, `selection_rate`, `tpr`, `fpr`.
    """
    measured = _measure(table, attribute)
    counts = measured.counts
    examples = measured.examples
    overall = examples.hits.sum() / examples.n.sum()
    members = measured.groups.members
    shared = examples.n @ (members & (members.sum(axis=1, keepdims=True) > 1))
    columns = {
        "attribute": measured.groups.attribute,
        "group": list(measured.groups.names),
        "n": counts.n,
        "share": counts.n / examples.n.sum(),
        "shared": shared,
        "accuracy": counts.accuracy,
        "accuracy_difference": counts.accuracy - overall,
    }
    if len(measured.classes) == 2:
        columns |= {
            "positives": counts.positives[:, 1],
            "negatives": counts.n - counts.positives[:, 1],
            "selection_rate": counts.selection_rate[:, 1],
            "tpr": counts.true_positive_rate[:, 1],
            "fpr": counts.false_positive_rate[:, 1],
        }
    return pd.DataFrame(columns)


def rates_by_class(table: pd.DataFrame, attribute: Attribute) -> pd.DataFrame:
    """Selection rate, TPR and FPR of every class in every group, one-vs-rest.

    Returns:
        One row per class and group: `attribute`, `class`, `group`, `n`, `positives`,
        `selection_rate`, `tpr` (NaN without positives), `fpr` (NaN without negatives).
    """
    measured = _measure(table, attribute)
    counts, names = measured.counts, measured.groups.names
    n_groups, n_classes = counts.positives.shape
    return pd.DataFrame(
        {
            "attribute": measured.groups.attribute,
            "class": np.repeat(measured.classes, n_groups),
            "group": list(names) * n_classes,
            "n": np.tile(counts.n, n_classes),
            "positives": counts.positives.T.ravel(),
            "selection_rate": counts.selection_rate.T.ravel(),
            "tpr": counts.true_positive_rate.T.ravel(),
            "fpr": counts.false_positive_rate.T.ravel(),
        }
    )
