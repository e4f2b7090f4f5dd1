"""Several prediction tables on the same examples, and the groups that examples belong to."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.data import SEVERAL
from kdplatform.predictions import FloatArray, IntArray, Predictions, Table
from kdplatform.text import visible

Attribute = str | Sequence[str]

INTERSECTION = " & "
_MOST_NAMED = 10


@dataclass(frozen=True)
class Stack:
    """Several prediction tables on the same examples, in the order of the first one.

    Attributes:
        reference: The first table.
        predictions: Predicted classes. [tables, examples]
    """

    reference: Predictions
    predictions: IntArray

    @property
    def labels(self) -> IntArray:
        """True classes. [examples]."""
        return self.reference.labels

    @property
    def weights(self) -> FloatArray | None:
        """How much each example counts; None if all count alike. [examples]."""
        return self.reference.weights

    def by_class(
        self, chosen: npt.NDArray[np.bool_], classes: int
    ) -> npt.NDArray[np.floating | np.integer]:
        """Number of the chosen examples of each class, or their weight. [classes]."""
        weights = None if self.weights is None else self.weights[chosen]
        return np.bincount(self.labels[chosen], weights, minlength=classes)

    def total_by_class(self, classes: int) -> npt.NDArray[np.floating | np.integer]:
        """Number of examples of each class, or their weight: the denominators. [classes]."""
        return np.bincount(self.labels, self.weights, minlength=classes)

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction equals the label. [tables, examples]."""
        return np.asarray(self.predictions == self.labels)


@dataclass(frozen=True)
class Groups:
    """The groups of one attribute, or of the intersection of several.

    Attributes:
        attribute: The attribute's name; names of an intersection are joined by " & ".
        names: One name per group, sorted.
        codes: Index into the rows of `members`, -1 for an example that belongs to no group.
            [examples]
        members: Whether the examples of a code belong to a group. There is one code per group in
            the same order, unless an example belongs to several groups. [codes, groups]
    """

    attribute: str
    names: tuple[str, ...]
    codes: IntArray
    members: npt.NDArray[np.bool_]

    @property
    def shared(self) -> int:
        """Number of examples that belong to several groups."""
        several = self.members.sum(axis=1) > 1
        return int(several[self.codes[self.codes >= 0]].sum())


def quotient(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Element-wise quotient; NaN without a warning where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(top / bottom)
    ratio[np.broadcast_to(bottom == 0, ratio.shape)] = np.nan
    return ratio


def aligned_tables(tables: Sequence[Table]) -> list[Predictions]:
    """Checks tables and brings their rows into the order of the first one.

    Args:
        tables: One or more prediction tables of the same examples, in any order of rows.

    Raises:
        ValueError: A table is not a valid prediction table, or ids or labels differ between tables.
    """
    if len(tables) == 0:
        raise ValueError("got 0 prediction tables; allowed: at least 1")
    first, *others = (Predictions.of(table) for table in tables)
    return [first, *(other.aligned(first) for other in others)]


def stack_tables(tables: Sequence[Table]) -> Stack:
    """Puts the predictions of tables into one array, aligned by id as by `aligned_tables`."""
    checked = aligned_tables(tables)
    return Stack(checked[0], np.stack([each.predictions for each in checked]))


def listed(words: Sequence[str]) -> str:
    """Names the first few words, and how many more there are."""
    more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
    return ", ".join(words[:_MOST_NAMED]) + more


def attribute_name(attribute: Attribute) -> str:
    """Names an attribute, or an intersection given as several attributes."""
    return visible(attribute if isinstance(attribute, str) else INTERSECTION.join(attribute))


def attribute_groups(table: Table, attribute: Attribute) -> Groups:
    """Reads the groups of an attribute, or of the intersection of several.

    Args:
        attribute: A column name, or several for their intersection. An example without a group in
            one of the columns is in no intersection. An example with several groups in one of them
            is in several intersections.

    Raises:
        ValueError: A column is missing, or no example belongs to any group.
    """
    columns = [attribute] if isinstance(attribute, str) else list(attribute)
    if not columns:
        raise ValueError("attribute is empty; allowed: a column name or several")
    known = Predictions.of(table).columns
    groups = _column_groups(known, columns[0])
    for column in columns[1:]:
        groups = _intersected(groups, _column_groups(known, column))
    if not groups.names:
        raise ValueError(
            f"attribute {groups.attribute!r} has no group; allowed: at least one value"
        )
    return groups


def _column_groups(table: pd.DataFrame, column: str) -> Groups:
    if column not in table.columns:
        raise ValueError(f"attribute {column!r} is not in the table; allowed: {list(table)}")
    try:
        codes, values = pd.factorize(table[column])
    except TypeError:
        kind = type(table[column].iloc[0]).__name__
        raise ValueError(
            f"attribute {column!r} holds values of type {kind}; allowed: text, numbers"
        ) from None
    texts = [visible(value) for value in values]
    names = sorted({name for text in texts for name in text.split(SEVERAL)})
    place = {name: number for number, name in enumerate(names)}
    members = np.zeros((len(texts), len(names)), dtype=bool)
    for row, text in enumerate(texts):
        members[row, [place[name] for name in text.split(SEVERAL)]] = True
    return _tidied(visible(column), names, codes.astype(np.int64), members)


def _intersected(one: Groups, other: Groups) -> Groups:
    absent = (one.codes < 0) | (other.codes < 0)
    codes = np.where(absent, -1, one.codes * len(other.members) + other.codes)
    names = [f"{name}{INTERSECTION}{more}" for name in one.names for more in other.names]
    attribute = attribute_name([one.attribute, other.attribute])
    return _tidied(attribute, names, codes, np.kron(one.members, other.members))


def _tidied(
    attribute: str, names: Sequence[str], codes: IntArray, members: npt.NDArray[np.bool_]
) -> Groups:
    """Sorts the groups that occur by name, and gives equal memberships one code."""
    inside = codes >= 0
    occurring, inverse = np.unique(codes[inside], return_inverse=True)
    members = members[occurring]
    columns = [int(column) for column in np.flatnonzero(members.any(axis=0))]
    kept, place = np.unique([names[column] for column in columns], return_inverse=True)
    merged = np.zeros((len(members), len(kept)), dtype=bool)
    for column, target in zip(columns, place, strict=True):
        merged[:, target] |= members[:, column]
    # Sorted in descending order, so that without shared examples a code is the number of its group.
    distinct, number = np.unique(~merged, axis=0, return_inverse=True)
    renumbered = np.full(len(codes), -1, dtype=np.int64)
    renumbered[inside] = number.reshape(-1)[inverse]
    return Groups(attribute, tuple(map(str, kept)), renumbered, ~distinct)
