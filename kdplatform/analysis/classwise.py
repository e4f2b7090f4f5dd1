"""Accuracy overall, by class and in the worst class; class accuracies of an arm over its seeds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.tables import Stack, quotient, stack_tables
from kdplatform.predictions import (
    FloatArray,
    IntArray,
    Table,
    examples_digest,
)


class WorstClass(NamedTuple):
    """The class with the lowest accuracy (the first of several)."""

    label: int
    accuracy: float
    n: int


@dataclass(frozen=True)
class ArmAccuracies:
    """Class accuracies of one arm (a role at one setting), one row per seed.

    Attributes:
        ids: Example ids. [examples]
        labels: True classes. [examples]
        n: Examples per class, zero for a class that is absent. [classes]
        accuracy: Class accuracies, NaN for a class without examples. [seeds, classes]
        overall: Overall accuracies. [seeds]
    """

    ids: npt.NDArray[np.generic]
    labels: IntArray
    n: IntArray
    accuracy: FloatArray
    overall: FloatArray


Arm = Sequence[Table] | ArmAccuracies


def class_total(stack: Stack, n_classes: int | None = None, *, predicted: bool = True) -> int:
    """Number of classes: the one given, or one more than the largest class seen.

    Args:
        n_classes: Number of classes when it is known; classes nobody saw then get a row as well.
        predicted: Whether predicted classes count as seen, beside the true ones.

    Raises:
        ValueError: A class seen is not below `n_classes`.
    """
    seen = int(stack.labels.max()) + 1
    if predicted:
        seen = max(seen, int(stack.predictions.max()) + 1)
    if n_classes is None:
        return seen
    if n_classes < seen:
        raise ValueError(f"n_classes is {n_classes}; allowed: at least {seen}, the classes seen")
    return n_classes


def class_table(table: Table, n_classes: int | None = None) -> pd.DataFrame:
    """Accuracy of each class of one model.

    Accuracy of class c is the share of examples of label c, or of their weight, that are predicted
    c (its recall).

    Args:
        n_classes: Number of classes; the largest class seen decides when it is not given.

    Returns:
        One row per class: `class`, `n` (examples), `predicted` (times predicted), `accuracy` (NaN
        without examples) and `note` ("absent", "never predicted" or empty).

    >>> frame = pd.DataFrame({"id": [0, 1, 2], "label": [0, 0, 2], "prediction": [0, 2, 2]})
    >>> class_table(frame)[["class", "n", "predicted", "accuracy", "note"]].values.tolist()
    [[0, 2, 1, 0.5, ''], [1, 0, 0, nan, 'absent'], [2, 1, 2, 1.0, '']]
    """
    stack = stack_tables([table])
    classes = class_total(stack, n_classes)
    n = np.bincount(stack.labels, minlength=classes)
    predicted = np.bincount(stack.predictions[0], minlength=classes)
    right = stack.by_class(stack.correct[0], classes)
    note = np.where(n == 0, "absent", np.where(predicted == 0, "never predicted", ""))
    return pd.DataFrame(
        {
            "class": np.arange(classes),
            "n": n,
            "predicted": predicted,
            "accuracy": quotient(right, stack.total_by_class(classes)),
            "note": note,
        }
    )


def worst_class(table: Table) -> WorstClass:
    """The class with the lowest accuracy among the classes that have examples.

    >>> frame = pd.DataFrame({"id": [0, 1, 2], "label": [0, 0, 1], "prediction": [0, 1, 1]})
    >>> worst_class(frame)
    WorstClass(label=0, accuracy=0.5, n=2)
    """
    by_class = class_table(table)
    row = int(np.nanargmin(by_class["accuracy"].to_numpy()))
    return WorstClass(row, float(by_class["accuracy"].iloc[row]), int(by_class["n"].iloc[row]))


def arm_accuracies(tables: Arm, n_classes: int | None = None) -> ArmAccuracies:
    """Class accuracies of an arm's tables, one per seed: the input of all tests over seeds.

    Args:
        tables: The arm's prediction tables, one per seed, or what this function returned.
        n_classes: Number of classes; the largest label decides when it is not given.
    """
    if isinstance(tables, ArmAccuracies):
        return tables
    stack = stack_tables(tables)
    classes = class_total(stack, n_classes, predicted=False)
    n = np.bincount(stack.labels, minlength=classes)
    correct = stack.correct
    right = np.stack([stack.by_class(row, classes) for row in correct])
    overall = np.average(correct, axis=1, weights=stack.weights)
    accuracy = quotient(right, stack.total_by_class(classes))
    return ArmAccuracies(stack.reference.ids, stack.labels, n, accuracy, overall)


def check_same_examples(first: ArmAccuracies, second: ArmAccuracies) -> None:
    """Refuses to compare arms that were measured on different examples.

    Raises:
        ValueError: Ids or labels differ (in any order of rows); the digests are named.
    """
    if np.array_equal(first.ids, second.ids) and np.array_equal(first.labels, second.labels):
        return
    a, b = examples_digest(first.ids, first.labels), examples_digest(second.ids, second.labels)
    if a != b:
        raise ValueError(
            f"arms were measured on different examples: digest {a} ({len(first.ids)} rows) against "
            f"{b} ({len(second.ids)} rows); allowed: the same ids and labels"
        )


def class_table_over_seeds(tables: Arm, n_classes: int | None = None) -> pd.DataFrame:
    """Mean and standard deviation of each class's accuracy over the seeds of an arm.

    Returns:
        One row per class: `class`, `n`, `seeds`, `accuracy` (mean), `accuracy_sd` (n - 1 in the
        denominator; NaN for one seed), `relative_accuracy` (mean over seeds of class accuracy over
        overall accuracy).
    """
    arm = arm_accuracies(tables, n_classes)
    seeds = len(arm.overall)
    spread = (
        arm.accuracy.std(axis=0, ddof=1) if seeds > 1 else np.full(arm.n.shape, np.nan, dtype=float)
    )
    relative = quotient(arm.accuracy, arm.overall[:, None]).mean(axis=0)
    return pd.DataFrame(
        {
            "class": np.arange(len(arm.n)),
            "n": arm.n,
            "seeds": seeds,
            "accuracy": arm.accuracy.mean(axis=0),
            "accuracy_sd": spread,
            "relative_accuracy": relative,
        }
    )
