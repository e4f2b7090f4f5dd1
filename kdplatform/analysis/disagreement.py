"""Disagreement of two models, compared with the disagreement of two seeds of one model."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.classwise import class_total
from kdplatform.analysis.tables import Stack, quotient, stack_tables
from kdplatform.predictions import FloatArray, Table


def _by_class(
    stack: Stack, first: int, second: int, classes: int
) -> npt.NDArray[np.floating | np.integer]:
    return stack.by_class(stack.predictions[first] != stack.predictions[second], classes)


def disagreement(table_a: Table, table_b: Table) -> float:
    """Share of examples on which two models predict different classes (mean of the paper's CMP)."""
    stack = stack_tables([table_a, table_b])
    differs = stack.predictions[0] != stack.predictions[1]
    return float(np.average(differs, weights=stack.weights))


def disagreement_within(tables: Sequence[Table]) -> float:
    """Mean disagreement of two models of one arm: the noise of seeds; NaN for a single model."""
    pairs = [disagreement(*pair) for pair in combinations(tables, 2)]
    return float(np.mean(pairs)) if pairs else float("nan")


def disagreement_by_class(
    table_a: Table, table_b: Table, n_classes: int | None = None
) -> pd.DataFrame:
    """Disagreement of two models on the examples of each true class.

    It is the mean of CMP(f(x), g(x)), which is 1 if the predictions differ (Mohammadshahi and
    Ioannou 2025).

    Returns:
        One row per class: `class`, `n`, `disagreements` (examples), `disagreement` (their share of
        the class, NaN without examples).
    """
    stack = stack_tables([table_a, table_b])
    classes = class_total(stack, n_classes, predicted=False)
    n = np.bincount(stack.labels, minlength=classes)
    differs = _by_class(stack, 0, 1, classes)
    pairs = stack.predictions[0] != stack.predictions[1]
    return pd.DataFrame(
        {
            "class": np.arange(classes),
            "n": n,
            "disagreements": np.bincount(stack.labels[pairs], minlength=classes),
            "disagreement": quotient(differs, stack.total_by_class(classes)),
        }
    )


def disagreement_matrix(
    table_a: Table, table_b: Table, n_classes: int | None = None
) -> pd.DataFrame:
    """Counts of examples by the class `a` predicts (rows) and the class `b` predicts (columns).

    The diagonal, where the two agree, is set to 0.

    >>> a = pd.DataFrame({"id": [0, 1, 2], "label": [0, 0, 1], "prediction": [0, 0, 1]})
    >>> b = pd.DataFrame({"id": [0, 1, 2], "label": [0, 0, 1], "prediction": [1, 0, 1]})
    >>> disagreement_matrix(a, b).to_numpy().tolist()
    [[0, 1], [0, 0]]
    """
    stack = stack_tables([table_a, table_b])
    classes = class_total(stack, n_classes)
    cells = stack.predictions[0] * classes + stack.predictions[1]
    matrix = np.bincount(cells, minlength=classes**2).reshape(classes, classes)
    np.fill_diagonal(matrix, 0)
    names = np.arange(classes)
    return pd.DataFrame(
        matrix,
        index=pd.Index(names, name="prediction_a"),
        columns=pd.Index(names, name="prediction_b"),
    )


def _mean_over(stack: Stack, pairs: Sequence[tuple[int, int]], classes: int) -> FloatArray:
    """Mean class disagreement over pairs of tables, NaN when there is no pair."""
    if not pairs:
        return np.full(classes, np.nan)
    total = np.sum([_by_class(stack, i, j, classes) for i, j in pairs], axis=0)
    return quotient(total, stack.total_by_class(classes) * len(pairs))


def disagreement_over_seeds(
    tables_a: Sequence[Table],
    tables_b: Sequence[Table],
    n_classes: int | None = None,
) -> pd.DataFrame:
    """Class disagreement of two arms, with the seed-noise baseline of each arm.

    The baseline is the mean disagreement over all pairs of seeds within an arm. Two seeds of one
    model already disagree. Only the excess comes from the difference between the arms.

    Args:
        tables_a: One table per seed.
        tables_b: One table per seed. With as many tables as in `tables_a`, tables i of both are
            taken as the same seed (a student and its own teacher).
        n_classes: Number of classes; the largest label decides when it is not given.

    Returns:
        One row per class: `class`, `n`, `same_seed` (mean over i of a_i against b_i; NaN when the
        arms have different numbers of seeds), `other_seed` (mean over a_i against b_j, i not j; all
        pairs when the numbers differ), `baseline_a`, `baseline_b` (NaN for an arm of one seed).
    """
    stack = stack_tables([*tables_a, *tables_b])
    classes = class_total(stack, n_classes, predicted=False)
    n = np.bincount(stack.labels, minlength=classes)
    in_a, in_b = range(len(tables_a)), range(len(tables_a), len(stack.predictions))
    paired = len(in_a) == len(in_b)
    same = list(zip(in_a, in_b, strict=True)) if paired else []
    other = [(i, j) for i in in_a for j in in_b if not paired or j - i != len(in_a)]
    return pd.DataFrame(
        {
            "class": np.arange(classes),
            "n": n,
            "same_seed": _mean_over(stack, same, classes),
            "other_seed": _mean_over(stack, other, classes),
            "baseline_a": _mean_over(stack, list(combinations(in_a, 2)), classes),
            "baseline_b": _mean_over(stack, list(combinations(in_b, 2)), classes),
        }
    )
