"""The rank of the label among many classes, and the classes that fill the top places.

All measures use one table with logits. A class whose logit equals the label's ranks before the
label, so a model with equal logits ranks every label last. Classes that are out of the running
(`data.OUT_OF_THE_RUNNING`), such as items that a user took before, are in no top place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kdplatform.analysis.tables import quotient
from kdplatform.data import OUT_OF_THE_RUNNING
from kdplatform.predictions import FloatArray, IntArray, Logits, Predictions, Table

# Numbers of top places, as in UnKD.
CUTOFFS = (10, 20)
# Logits ranked at a time: bounds memory.
_LOGITS = 1 << 20


class RankingScores(NamedTuple):
    """Ranking scores of some examples; all are between 0 and 1, and higher is better.

    Attributes:
        recall: share of examples whose label is among the first k classes. This is top-k accuracy,
            and recall@k with one held-out item.
        ndcg: mean of 1 / log2(1 + rank) if the rank is at most k, else 0. With one relevant class
            the ideal gain is 1 (Jarvelin and Kekalainen 2002).
        mrr: mean of 1 / rank.
    """

    recall: dict[int, float]
    ndcg: dict[int, float]
    mrr: float


def label_ranks(table: Table) -> IntArray:
    """Rank of each example's label: 1 + the other classes whose logit is not lower. [examples].

    Raises:
        ValueError: The table has no logits.

    >>> frame = pd.DataFrame({"id": [0, 1], "label": [1, 1], "prediction": [0, 0]})
    >>> frame["logits"] = [[3.0, 2.0, 1.0], [2.0, 2.0, 2.0]]
    >>> label_ranks(frame).tolist()
    [2, 3]
    """
    checked = Predictions.of(table)
    logits = _logits(checked)
    own = logits[np.arange(len(checked)), checked.labels][:, None]
    return np.asarray(np.count_nonzero(logits >= own, axis=1), dtype=np.int64)


def ranking_scores(ranks: IntArray, cutoffs: Sequence[int] = CUTOFFS) -> RankingScores:
    """Scores of examples by the ranks of their labels; NaN without examples.

    >>> scores = ranking_scores(np.array([1, 3]), [2])
    >>> scores.recall, scores.ndcg, round(scores.mrr, 4)
    ({2: 0.5}, {2: 0.5}, 0.6667)
    """
    count = len(ranks)
    return RankingScores(
        {k: float(quotient((ranks <= k).sum(), count)) for k in cutoffs},
        {k: float(quotient(places_gain(ranks, k).sum(), count)) for k in cutoffs},
        float(quotient((1 / ranks).sum(), count)),
    )


def places_gain(ranks: IntArray, k: int) -> FloatArray:
    """Gain of each example: 1 / log2(1 + rank) if the rank is at most k, else 0. [examples]."""
    return np.where(ranks <= k, 1 / np.log2(1 + np.asarray(ranks)), 0.0)


def top_places(table: Table, k: int = CUTOFFS[0]) -> IntArray:
    """How often each class is among the first k of an example. [classes].

    Among classes with equal logits the lowest numbers come first.

    Raises:
        ValueError: The table has no logits.
    """
    logits = _logits(Predictions.of(table))
    classes = logits.shape[1]
    places, step = min(k, classes), max(1, _LOGITS // classes)
    counts = np.zeros(classes, dtype=np.int64)
    for start in range(0, len(logits), step):
        rows = logits[start : start + step]
        last = np.partition(rows, classes - places, axis=1)[:, [classes - places]]
        placed, tied = rows > last, rows == last
        free = places - np.count_nonzero(placed, axis=1)
        several = np.flatnonzero(np.count_nonzero(tied, axis=1) > free)
        tied[several] &= tied[several].cumsum(axis=1) <= free[several, None]
        placed |= tied
        placed &= rows > OUT_OF_THE_RUNNING
        counts += np.bincount(np.nonzero(placed)[1], minlength=classes)
    return counts


def gini(counts: IntArray) -> float:
    """Gini coefficient of the shares of places: 0 for equal shares, near 1 if one class has all.

    sum_i (2 i - n - 1) x_i / (n sum x), i from 1 in rising order of x. NaN without a place.

    >>> gini(np.array([5, 5, 5])), round(gini(np.array([0, 0, 9])), 4)
    (0.0, 0.6667)
    """
    x = np.sort(np.asarray(counts, dtype=float))
    n = len(x)
    return float(quotient(((2 * np.arange(1, n + 1) - n - 1) * x).sum(), n * x.sum()))


def exposure(
    places: IntArray, class_counts: Sequence[int], strata: Sequence[Sequence[int]]
) -> pd.DataFrame:
    """Share of the top places of each stratum of classes, with its share of training examples.

    Args:
        places: As `top_places` gives them. [classes]
        class_counts: Training examples of each class. [classes]
        strata: The classes of each.

    Returns:
        One row per stratum: `stratum` (from 1), `classes`, `training` (share of training examples),
        `places` (share of top places).
    """
    counts = np.asarray(class_counts)
    return pd.DataFrame(
        {
            "stratum": range(1, len(strata) + 1),
            "classes": [len(own) for own in strata],
            "training": _shares(counts, strata),
            "places": _shares(places, strata),
        }
    )


def _shares(counts: IntArray, strata: Sequence[Sequence[int]]) -> FloatArray:
    return quotient([counts[list(own)].sum() for own in strata], counts.sum())


def _logits(table: Predictions) -> Logits:
    if table.logits is None:
        raise ValueError("prediction table lacks column 'logits'; allowed: one array per example")
    return table.logits
