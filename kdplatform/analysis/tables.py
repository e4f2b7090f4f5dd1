"""Prediction tables: what a valid one is, and the plain arrays the statistics are computed on.

A prediction table has one row per example: `id`, `label`, `prediction`, `logits`, and one column
per attribute. A missing value in an attribute column means that the example is in none of its
groups; names joined by " + " mean that it is in several, and it counts in each of them.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Attribute = str | Sequence[str]

# Dense tables over classes are made up to here; a larger label is almost surely an id or a hash.
MAX_CLASSES = 100_000
INTERSECTION = " & "
SEVERAL = " + "


@dataclass(frozen=True)
class Stack:
    """Several prediction tables on the same examples, in the order of the first one.

    Attributes:
        ids: Example ids. [examples]
        labels: True classes. [examples]
        predictions: Predicted classes. [tables, examples]
    """

    ids: npt.NDArray[np.generic]
    labels: IntArray
    predictions: IntArray

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction equals the label, of shape [tables, examples]."""
        return np.asarray(self.predictions == self.labels)


@dataclass(frozen=True)
class Groups:
    """The groups of one attribute, or of the intersection of several.

    Attributes:
        attribute: The attribute's name; names of an intersection are joined by " & ".
        names: One name per group, sorted.
        codes: Index into the rows of `members`, -1 for an example that belongs to no group.
            [examples]
        members: Whether the examples of a code belong to a group: a code per group, in the same
            order, unless an example belongs to several. [codes, groups]
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


def _integers(table: pd.DataFrame, column: str) -> IntArray:
    series = table[column]
    if series.hasnans:
        row = int(np.flatnonzero(series.isna())[0]) + 1
        raise ValueError(f"column {column!r} has no value in row {row}; allowed: integers from 0")
    if not pd.api.types.is_integer_dtype(series.dtype):
        raise ValueError(f"column {column!r} has type {series.dtype}; allowed: integers")
    values = series.to_numpy(dtype=np.int64)
    if values.min() < 0 or values.max() >= MAX_CLASSES:
        wrong = values.min() if values.min() < 0 else values.max()
        raise ValueError(f"column {column!r} holds {wrong}; allowed: 0 to {MAX_CLASSES - 1}")
    return values


def _ids(table: pd.DataFrame) -> npt.NDArray[np.generic]:
    index = pd.Index(table["id"])
    if index.inferred_type.startswith("mixed"):
        raise ValueError("column 'id' holds values of several types; allowed: numbers or text")
    if index.hasnans:
        raise ValueError("column 'id' has missing values; allowed: one id per example")
    if index.has_duplicates:
        twice = index[index.duplicated()][0]
        raise ValueError(f"id {twice} occurs more than once; allowed: unique ids")
    return np.asarray(index.to_numpy())


def quotient(numerator: npt.ArrayLike, denominator: npt.ArrayLike) -> FloatArray:
    """Element-wise quotient that is NaN, without a warning, where the denominator is 0."""
    top, bottom = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.asarray(top / bottom)
    ratio[np.broadcast_to(bottom == 0, ratio.shape)] = np.nan
    return ratio


def check_table(table: pd.DataFrame) -> None:
    """Refuses a table that is not a prediction table.

    Raises:
        ValueError: A column is missing or of the wrong type, the table is empty, an id occurs
            twice, or a label or prediction is not a class number.
    """
    stack_tables([table])


def examples_digest(table: pd.DataFrame) -> str:
    """Names the examples of a table: 12 hexadecimal digits of a hash of its ids and labels.

    The order of the rows does not matter.
    """
    return digest_of(_ids(table), _integers(table, "label"))


def digest_of(ids: npt.NDArray[np.generic], labels: IntArray) -> str:
    """The digest of `examples_digest`, from arrays."""
    order = np.argsort(ids, kind="stable")
    text = "\n".join(f"{i}\t{label}" for i, label in zip(ids[order], labels[order], strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _rows_in_order(
    table: pd.DataFrame, ids: npt.NDArray[np.generic], labels: IntArray
) -> IntArray | None:
    """Positions that bring a table into the order of `ids`; None when it already is."""
    own = np.asarray(table["id"].to_numpy())
    if own.shape == ids.shape and bool(np.all(own == ids)):
        return None
    own = _ids(table)
    rows = np.asarray(pd.Index(own).get_indexer(pd.Index(ids)), dtype=np.int64)
    if len(own) != len(ids) or rows.min() < 0:
        mine = digest_of(own, _integers(table, "label"))
        raise ValueError(
            f"tables hold different examples: digest {mine} ({len(own)} rows) against "
            f"{digest_of(ids, labels)} ({len(ids)} rows); allowed: the same ids"
        )
    return rows


def _check_columns(table: pd.DataFrame) -> None:
    missing = [name for name in ("id", "label", "prediction") if name not in table.columns]
    if missing:
        raise ValueError(f"prediction table lacks column {missing[0]!r}; it has {list(table)}")
    if len(table) == 0:
        raise ValueError("prediction table has 0 rows; allowed: at least 1")


def stack_tables(tables: Sequence[pd.DataFrame]) -> Stack:
    """Checks tables and puts their labels and predictions into arrays, aligned by id.

    Args:
        tables: One or more prediction tables of the same examples, in any order of rows.

    Raises:
        ValueError: A table is not a valid prediction table, or ids or labels differ between tables.
    """
    if len(tables) == 0:
        raise ValueError("got 0 prediction tables; allowed: at least 1")
    for table in tables:
        _check_columns(table)
    ids, labels = _ids(tables[0]), _integers(tables[0], "label")
    predictions = np.empty((len(tables), len(ids)), dtype=np.int64)
    for i, table in enumerate(tables):
        rows = _rows_in_order(table, ids, labels)
        own_labels, own = _integers(table, "label"), _integers(table, "prediction")
        if rows is not None:
            own_labels, own = own_labels[rows], own[rows]
        if not np.array_equal(own_labels, labels):
            raise ValueError(
                f"tables disagree on labels: digest {digest_of(ids, own_labels)} against "
                f"{digest_of(ids, labels)}; allowed: one label per id"
            )
        predictions[i] = own
    return Stack(ids, labels, predictions)


def align_table(table: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """Returns the table with its rows in the order of the reference's ids.

    Raises:
        ValueError: Either table is invalid, or their ids or labels differ.
    """
    stack = stack_tables([reference, table])
    rows = _rows_in_order(table, stack.ids, stack.labels)
    return table if rows is None else table.iloc[rows]


def logits_matrix(table: pd.DataFrame) -> npt.NDArray[np.float32]:
    """Returns the logits as one matrix of shape [examples, classes].

    Args:
        table: A prediction table whose `logits` column holds arrays or an Arrow list type.

    Raises:
        ValueError: There is no such column, rows differ in length or have fewer than two classes,
            or a logit is not finite.
    """
    if "logits" not in table.columns:
        raise ValueError(f"prediction table lacks column 'logits'; it has {list(table)}")
    column = table["logits"]
    if column.hasnans:
        raise ValueError("column 'logits' has missing values; allowed: one array per example")
    if isinstance(column.dtype, pd.ArrowDtype):
        lengths = column.list.len().to_numpy(dtype=np.int64)
        flat = column.list.flatten().to_numpy(dtype=np.float32, na_value=np.nan)
    else:
        rows = [np.asarray(row, dtype=np.float32).ravel() for row in column]
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.float32)
    if len(lengths) == 0 or lengths.min() != lengths.max() or lengths[0] < 2:
        seen = sorted({int(length) for length in lengths})[:3]
        raise ValueError(f"logits have lengths {seen}; allowed: one length, at least 2")
    matrix = flat.reshape(len(lengths), int(lengths[0]))
    if not np.isfinite(matrix).all():
        row = int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise ValueError(f"logits of row {row} are not finite; allowed: finite numbers")
    return np.asarray(matrix)


def attribute_name(attribute: Attribute) -> str:
    """Names an attribute, or an intersection given as several attributes."""
    return attribute if isinstance(attribute, str) else INTERSECTION.join(attribute)


def attribute_groups(table: pd.DataFrame, attribute: Attribute) -> Groups:
    """Reads the groups of an attribute, or of the intersection of several.

    Args:
        table: A table with the attribute's column.
        attribute: A column name, or several for their intersection: an example that has no group
            in one of them has none in the intersection, and one that has several in one of them is
            in several intersections.

    Raises:
        ValueError: A column is missing, or no example belongs to any group.
    """
    columns = [attribute] if isinstance(attribute, str) else list(attribute)
    if not columns:
        raise ValueError("attribute is empty; allowed: a column name or several")
    groups = _column_groups(table, columns[0])
    for column in columns[1:]:
        groups = _intersected(groups, _column_groups(table, column))
    if not groups.names:
        raise ValueError(
            f"attribute {groups.attribute!r} has no group; allowed: at least one value"
        )
    return groups


def _column_groups(table: pd.DataFrame, column: str) -> Groups:
    reserved = ("id", "label", "prediction", "logits")
    if column not in table.columns or column in reserved:
        allowed = [name for name in table if name not in reserved]
        raise ValueError(f"attribute {column!r} is not in the table; allowed: {allowed}")
    try:
        codes, values = pd.factorize(table[column])
    except TypeError:
        kind = type(table[column].iloc[0]).__name__
        raise ValueError(
            f"attribute {column!r} holds values of type {kind}; allowed: text, numbers"
        ) from None
    texts = [str(value) for value in values]
    names = sorted({name for text in texts for name in text.split(SEVERAL)})
    place = {name: number for number, name in enumerate(names)}
    members = np.zeros((len(texts), len(names)), dtype=bool)
    for row, text in enumerate(texts):
        members[row, [place[name] for name in text.split(SEVERAL)]] = True
    return _tidied(column, names, codes.astype(np.int64), members)


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
    # Descending, so that without shared examples a code is the number of its group.
    distinct, number = np.unique(~merged, axis=0, return_inverse=True)
    renumbered = np.full(len(codes), -1, dtype=np.int64)
    renumbered[inside] = number.reshape(-1)[inverse]
    return Groups(attribute, tuple(map(str, kept)), renumbered, ~distinct)
