"""Rates of groups under two sides, with intervals of both sides and of the differences.

All classes and groups are computed at once, since a study of 1,000 classes and 12 groups has 12,000
cells. A cell's interval is that of `intervals.mean_of_seeds_and_examples`, or of `mean_of_examples`
for one model. Predictions are counted in sparse matrices instead of one array per cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import sparse, special

from kdplatform.analysis.group_rates import MIN_GROUP_SIZE, GroupCounts, LargeEnough, count_codes
from kdplatform.analysis.intervals import LEVEL
from kdplatform.analysis.tables import Attribute, aligned_tables, attribute_groups, quotient
from kdplatform.analysis.weighted import variance_of_weighted_means
from kdplatform.predictions import FloatArray, IntArray, Predictions

# The measures, with their names in tables.
MEASURES = {
    "accuracy": "accuracy",
    "selection": "selection rate",
    "tpr": "TPR",
    "fpr": "FPR",
}


class Limits(NamedTuple):
    """Values with their 95% limits, NaN where they are not known. [groups, columns] each."""

    value: FloatArray
    low: FloatArray
    high: FloatArray


class _Denominator(NamedTuple):
    """The basis of a mean: the number of examples, the sum of weights and of squared weights.

    Each is [groups, columns] or [groups, 1]. Without weights the three are equal.
    """

    n: FloatArray
    weight: FloatArray
    square: FloatArray


class _Members(NamedTuple):
    """Which examples are in which group, by their weights and by the squares of these.

    [groups, examples] each.
    """

    weighted: sparse.csr_matrix
    squared: sparse.csr_matrix

    @classmethod
    def of(cls, members: sparse.csr_matrix, weights: FloatArray) -> "_Members":
        return cls(_scaled(members, weights), _scaled(members, weights**2))


class Cells(NamedTuple):
    """A measure of both sides and the difference B minus A, cell by cell."""

    a: Limits
    b: Limits
    difference: Limits


@dataclass(frozen=True)
class RateChanges:
    """The rates of every group under two sides.

    Attributes:
        attribute: its name, or the names of an intersection joined by " & ".
        groups: their names. [groups]
        classes: the classes that occur as a label or a prediction. [classes]
        n: examples of every group. [groups]
        positives: examples of every group and class. [groups, classes]
        measured: whether a group has enough examples to be measured. [groups]
        accuracy: of every group; one column. [groups, 1]
        rates: selection rate, TPR and FPR by their keys in `MEASURES`. [groups, classes]
        overall: accuracy and rates of all examples in groups, which every group would have if
            groups did not matter. [1, columns]
    """

    attribute: str
    groups: tuple[str, ...]
    classes: IntArray
    n: IntArray
    positives: IntArray
    measured: np.ndarray
    accuracy: Cells
    rates: Mapping[str, Cells]
    overall: Mapping[str, Cells]

    def of(self, measure: str) -> Cells:
        """The cells of a measure."""
        return self.accuracy if measure == "accuracy" else self.rates[measure]


def rate_changes(
    tables_a: Sequence[Predictions],
    tables_b: Sequence[Predictions],
    attribute: Attribute,
    *,
    min_group_size: int = MIN_GROUP_SIZE,
) -> RateChanges:
    """Returns the rates of every group and class under two sides.

    Model i of one side is paired with model i of the other. Sides with different numbers of models
    have no pairs, and their differences have no interval.

    Args:
        tables_a: the reference, one table per seed, of the same examples as `tables_b`.
        attribute: a column, or several for their intersection.
        min_group_size: examples that a rate needs in its denominator.

    Raises:
        ValueError: tables hold different examples, or the attribute has no group.
    """
    tables = aligned_tables([*tables_a, *tables_b])
    first = tables[0]
    groups = attribute_groups(first, attribute)
    seen = np.unique(np.concatenate([first.labels, *(t.predictions for t in tables)]))
    classes = np.arange(2) if seen.max() <= 1 else seen
    labels = np.searchsorted(classes, first.labels)
    weights = np.ones(len(labels)) if first.weights is None else first.weights
    counts, weight, square = (
        count_codes(
            groups.codes, labels, labels, len(groups.members), len(classes), values
        ).of_groups(groups.members)
        for values in ((weights > 0).astype(float), weights, weights**2)
    )
    large = LargeEnough.of(counts, min_group_size)
    members = _members(groups.codes, groups.members)
    truth = _one_hot(labels, len(classes))
    predicted = [_one_hot(np.searchsorted(classes, t.predictions), len(classes)) for t in tables]
    hits = [p.multiply(truth).tocsr() for p in predicted]
    alarms = [(p - h).tocsr() for p, h in zip(predicted, hits, strict=True)]
    correct = [sparse.csr_matrix(h.sum(axis=1)) for h in hits]
    everybody = sparse.csr_matrix(np.asarray(members.sum(axis=0) > 0, dtype=float).reshape(1, -1))
    n_a = len(tables_a)
    of_measure = {
        "accuracy": (correct, large.groups[:, None]),
        "selection": (predicted, large.groups[:, None]),
        "tpr": (hits, large.positives),
        "fpr": (alarms, large.negatives),
    }
    every = counts, weight, square
    powers = (weights > 0).astype(float), weights, weights**2
    wholes = [_whole(everybody, truth, each) for each in powers]
    in_groups, in_any = (_Members.of(each, weights) for each in (members, everybody))
    found, overall = {}, {}
    for name, (entries, enough) in of_measure.items():
        sides = entries[:n_a], entries[n_a:]
        of_groups = _Denominator(*(_denominator(name, each) for each in every))
        found[name] = _cells(*sides, in_groups, of_groups, enough)
        whole = _Denominator(*(each.get(name, each["selection"]) for each in wholes))
        overall[name] = _cells(*sides, in_any, whole, whole.n >= min_group_size)
    return RateChanges(
        groups.attribute,
        groups.names,
        classes,
        np.asarray(counts.n, dtype=np.int64),
        np.asarray(counts.positives, dtype=np.int64),
        large.groups,
        found.pop("accuracy"),
        found,
        overall,
    )


def _denominator(name: str, counts: GroupCounts) -> FloatArray:
    """The denominators of a measure. [groups, columns] or [groups, 1]."""
    of_rates = {"tpr": counts.positives, "fpr": counts.negatives}
    return np.asarray(of_rates.get(name, counts.n[:, None]), dtype=float)


def _whole(
    everybody: sparse.csr_matrix, truth: sparse.csr_matrix, weights: FloatArray
) -> dict[str, FloatArray]:
    """The denominators of all examples in groups, each counted once, by measure. [1, columns]."""
    weighted = _scaled(everybody, weights)
    n, positives = float(weighted.sum()), _dense(weighted @ truth)
    return {"tpr": positives, "fpr": n - positives, "selection": np.full((1, 1), n)}


def _dense(matrix: sparse.csr_matrix) -> FloatArray:
    dense: FloatArray = matrix.toarray().astype(float)
    return dense


def _scaled(matrix: sparse.csr_matrix, columns: FloatArray) -> sparse.csr_matrix:
    """Multiplies the columns by factors."""
    return sparse.csr_matrix(matrix @ sparse.diags(columns))


def _members(codes: IntArray, members: np.ndarray) -> sparse.csr_matrix:
    """Whether an example belongs to a group. [groups, examples]."""
    inside = np.flatnonzero(codes >= 0)
    of_code = sparse.csr_matrix(
        (np.ones(len(inside)), (codes[inside], inside)), shape=(len(members), len(codes))
    )
    return sparse.csr_matrix(members.T.astype(float)) @ of_code


def _one_hot(columns: IntArray, n_columns: int) -> sparse.csr_matrix:
    rows = np.arange(len(columns))
    return sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(rows), n_columns))


def _cells(
    a: Sequence[sparse.csr_matrix],
    b: Sequence[sparse.csr_matrix],
    members: _Members,
    denominators: _Denominator,
    enough: np.ndarray,
) -> Cells:
    """A measure of both sides and its difference, as the mean of entries over a denominator."""
    first, second = (_limits(side, members, denominators, enough, 0.0) for side in (a, b))
    if len(a) == len(b):
        pairs = [(y - x).tocsr() for x, y in zip(a, b, strict=True)]
        change = _limits(pairs, members, denominators, enough, -1.0)
        return Cells(first, second, change)
    value = second.value - first.value
    unknown = np.full_like(value, np.nan)
    return Cells(first, second, Limits(value, unknown, unknown))


def _limits(
    entries: Sequence[sparse.csr_matrix],
    members: _Members,
    denominators: _Denominator,
    enough: np.ndarray,
    lowest: float,
) -> Limits:
    """Mean over seeds and examples with its limits; see `intervals` for the formula.

    Args:
        entries: for every seed, the value of each example in a column. [examples, columns]
        members: which examples are in which group.
        denominators: the denominators of the means.
        enough: whether the denominator is large enough to be measured.
        lowest: the smallest possible value; the largest is 1.
    """
    seeds = len(entries)
    weighted, squared = members
    sums = np.stack([_dense(weighted @ each) for each in entries])
    n, weight, square = (np.broadcast_to(each, sums.shape[1:]) for each in denominators)
    mean_entries = sparse.csr_matrix(sum(entries[1:], entries[0]) / seeds)
    mean = quotient(sums.mean(axis=0), weight)
    squares = _dense(squared @ sparse.csr_matrix(mean_entries.multiply(mean_entries)))
    linear = _dense(sparse.csr_matrix(squared @ mean_entries))
    of_examples = variance_of_weighted_means(n, weight, square, mean, linear, squares)
    of_seeds = np.zeros_like(mean)
    if seeds > 1:
        of_seeds = np.stack([quotient(each, weight) for each in sums]).var(axis=0, ddof=1) / seeds
    variance = of_seeds + of_examples
    with np.errstate(divide="ignore", invalid="ignore"):
        degrees = (seeds - 1) * (variance / of_seeds) ** 2 if seeds > 1 else n - 1
        degrees = np.where(of_seeds > 0, degrees, np.inf) if seeds > 1 else degrees
        reach = special.stdtrit(np.minimum(degrees, 1e9), 1 - LEVEL / 2) * np.sqrt(variance)
    # Rounding leaves about 1e-17 if nothing varies, which does not mean certainty either.
    reach = np.where((variance > 1e-14) & (n > 1), reach, np.nan)
    value = np.where(enough, mean, np.nan)
    return Limits(value, np.clip(value - reach, lowest, 1.0), np.clip(value + reach, lowest, 1.0))
