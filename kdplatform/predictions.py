"""Predictions of one model on one split: one schema, checked once, saved as Parquet.

A prediction table has one row per example: `id`, `label`, `prediction`, `logits` (float32, one per
class), and every further column of the split, among them one per attribute. A missing value in an
attribute column means that the example is in none of its groups. Names joined by " + " mean that it
is in several, and it counts in each of them.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kdplatform.columns import RESERVED as RESERVED
from kdplatform.errors import DivergedError, UserError
from kdplatform.files import written_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.data import Split

# The limit for dense tables over classes. A larger label is almost certainly an id or a hash.
MAX_CLASSES = 100_000

# Logits of a row group, 64 MiB, and rows of one without logits.
_LOGITS_AT_ONCE = 1 << 24
_MOST_ROWS = 1 << 20

# How far the sum of probabilities rounded to two digits may be from 1.
_ROUNDED = 0.02

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Logits = npt.NDArray[np.float32]


class ClassOrderError(ValueError):
    """Logits are not in the order of the classes' numbers."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """The checked predictions of one model on the examples of one split.

    Attributes:
        ids: Example ids, each once. [examples]
        labels: True classes. [examples]
        predictions: Predicted classes. [examples]
        logits: None where the table has none. [examples, classes]
        columns: Every further column, in the same order of rows.
        weights: How much each example counts in every rate, finite and not negative; None where
            all count alike. [examples]
    """

    ids: npt.NDArray[np.generic]
    labels: IntArray
    predictions: IntArray
    logits: Logits | None
    columns: pd.DataFrame
    weights: FloatArray | None = None

    def __post_init__(self) -> None:
        largest = max(int(self.labels.max()), int(self.predictions.max()))
        if self.logits is not None and largest >= self.logits.shape[1]:
            allowed = f"0 to {self.logits.shape[1] - 1}"
            raise ValueError(f"class {largest} has no logit; allowed: {allowed}")

    @classmethod
    def of(cls, table: "Table") -> "Predictions":
        """Checks a prediction table. A table that is already checked is returned unchanged.

        Args:
            table: A data frame with the columns `id`, `label` and `prediction`; `logits`, if it is
                there, holds arrays, an Arrow list type, or texts such as `[0.5, -1.0]`.

        Raises:
            ValueError: A column is missing or of the wrong type, the table is empty, an id occurs
                twice, a label or prediction is not a class number, or logits differ in length, are
                not finite, lack a class, are probabilities or are not largest at the prediction.
        """
        if isinstance(table, Predictions):
            return table
        column = table.get("logits")
        logits = None if column is None else _logits(_as_arrow(parsed_logits(column)))
        return cls._checked(table.drop(columns="logits", errors="ignore"), logits)

    @classmethod
    def _checked(cls, table: pd.DataFrame, logits: Logits | None) -> "Predictions":
        missing = [name for name in RESERVED[:3] if name not in table.columns]
        if missing:
            several = "s" if len(missing) > 1 else ""
            there = [*table] if logits is None else [*table, "logits"]
            raise ValueError(
                f"prediction table lacks column{several} {', '.join(map(repr, missing))}; it has "
                f"{there}; rename those that hold them"
            )
        if len(table) == 0:
            raise ValueError("prediction table has 0 rows; allowed: at least 1")
        columns = table.drop(columns=list(RESERVED[:3])).reset_index(drop=True)
        labels, predictions = (_classes(table, name) for name in RESERVED[1:3])
        checked = cls(_ids(table), labels, predictions, logits, columns)
        checked._check_logits()
        return checked

    def _check_logits(self) -> None:
        """Checks logits as far as possible: columns without names are taken by position."""
        if self.logits is None:
            return
        if are_probabilities(self.logits):
            raise ValueError(
                "logits of every row are at least 0 and add up to 1: they are probabilities; "
                "allowed: logits, before the softmax, or the logarithms of the probabilities"
            )
        own = self.logits[np.arange(len(self)), self.predictions]
        if len(wrong := np.flatnonzero(own < self.logits.max(axis=1))):
            row = int(wrong[0])
            raise ClassOrderError(
                f"id {self.ids[row]}: the largest of {self.n_classes} logits is that of class "
                f"{self.logits[row].argmax()}, the prediction is {self.predictions[row]}, so in "
                f"{len(wrong)} of {len(self)} rows; allowed: logits in the order of the classes, "
                "the prediction's the largest"
            )

    @classmethod
    def from_logits(cls, split: "Split", logits: "Tensor") -> "Predictions":
        """Returns the predictions of one model on one split.

        Items that a user took before are out of the running, see `Split.in_the_running`.

        Args:
            logits: float32 [examples, classes], in the order of the split; the prediction is the
                largest.

        Raises:
            DivergedError: A logit is NaN or infinite, so that the model predicts nothing.
            UserError: The model returns probabilities.
        """
        values = split.in_the_running(logits.detach().cpu().float()).numpy()
        if not np.isfinite(values).all():
            raise DivergedError(
                "the trained model's logits are NaN or infinite; "
                "try a lower learning rate, a warm-up or gradient clipping"
            )
        if are_probabilities(values):
            raise UserError(
                "the model's outputs are at least 0 and add up to 1 for every example: they are "
                "probabilities; allowed: a model without softmax, whose outputs are logits"
            )
        return cls(
            np.asarray(split.ids),
            split.labels.cpu().numpy().astype(np.int64),
            values.argmax(axis=1).astype(np.int64),
            values,
            split.columns.reset_index(drop=True),
        )

    @classmethod
    def read(cls, path: Path) -> "Predictions":
        """Reads a Parquet file of predictions.

        Raises:
            ValueError: As `of`.
        """
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            table = file.read([name for name in names if name != "logits"]).to_pandas()
            return cls._checked(table, _stored_logits(file) if "logits" in names else None)

    def write(self, path: Path) -> None:
        """Writes the table; logits become a list column of fixed length."""
        arrow = pa.Table.from_pandas(self._frame(), preserve_index=False)
        if self.logits is not None:
            column = pa.FixedSizeListArray.from_arrays(
                pa.array(self.logits.ravel()), self.logits.shape[1]
            )
            arrow = arrow.add_column(RESERVED.index("logits"), "logits", column)
        with written_atomically(path) as temporary:
            pq.write_table(arrow, temporary, row_group_size=_rows_at_once(self.logits))

    def _frame(self) -> pd.DataFrame:
        """The table without its logits."""
        own: dict[str, npt.NDArray[np.generic]] = {
            "id": self.ids,
            "label": self.labels,
            "prediction": self.predictions,
        }
        if self.weights is not None:
            own |= {"weight": self.weights}
        return pd.concat([pd.DataFrame(own), self.columns], axis=1)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """The digest of the examples, by `examples_digest`."""
        return examples_digest(self.ids, self.labels)

    @cached_property
    def n_classes(self) -> int:
        """Number of classes: of the logits, or one more than the largest class seen."""
        if self.logits is not None:
            return int(self.logits.shape[1])
        return 1 + max(int(self.labels.max()), int(self.predictions.max()))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each prediction equals the label. [examples]."""
        return np.asarray(self.predictions == self.labels)

    @property
    def accuracy(self) -> float:
        """Share of examples, or of their weight, whose prediction equals the label."""
        return float(np.average(self.correct, weights=self.weights))

    def aligned(self, reference: "Predictions") -> "Predictions":
        """Returns the table with its rows in the order of the reference's ids.

        Raises:
            ValueError: Ids or labels differ; the digests are named.
        """
        own = self if np.array_equal(self.ids, reference.ids) else self._ordered_as(reference)
        if not np.array_equal(own.labels, reference.labels):
            raise ValueError(
                f"tables disagree on labels: digest {self.digest} against {reference.digest}; "
                "allowed: one label per id"
            )
        return own

    def _ordered_as(self, reference: "Predictions") -> "Predictions":
        rows = pd.Index(self.ids).get_indexer(pd.Index(reference.ids))
        if len(self) != len(reference) or rows.min() < 0:
            raise ValueError(
                f"tables hold different examples: digest {self.digest} ({len(self)} rows) against "
                f"{reference.digest} ({len(reference)} rows); allowed: the same ids"
            )
        return Predictions(
            reference.ids,
            self.labels[rows],
            self.predictions[rows],
            None if self.logits is None else self.logits[rows],
            self.columns.iloc[rows].reset_index(drop=True),
            None if self.weights is None else self.weights[rows],
        )


# The input of every statistic. A data frame is checked on entry.
Table = pd.DataFrame | Predictions


def examples_digest(ids: npt.NDArray[np.generic], labels: IntArray) -> str:
    """Identifies examples in any order: 12 hexadecimal digits of a hash of ids and labels."""
    order = np.argsort(ids, kind="stable")
    text = "\n".join(f"{i}\t{label}" for i, label in zip(ids[order], labels[order], strict=True))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _classes(table: pd.DataFrame, column: str) -> IntArray:
    series = table[column]
    if series.hasnans:
        row = int(np.flatnonzero(series.isna())[0]) + 1
        raise ValueError(
            f"column {column!r} has no value in row {row}; allowed: a class in every row"
        )
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


def are_probabilities(logits: Logits) -> bool:
    """Tells whether rows [N, C] are probabilities that may have been rounded, and no logits."""
    return bool((logits >= 0).all() and (np.abs(logits.sum(axis=1) - 1) <= _ROUNDED).all())


def parsed_logits(column: pd.Series) -> pd.Series:
    """Returns a column of texts such as `[0.5, -1.0]`, as CSV has them, as lists of numbers.

    Raises:
        ValueError: A text is no list of numbers.
    """
    if pd.api.types.infer_dtype(column, skipna=True) != "string":
        return column
    return pd.Series([_parsed(cell) for cell in column], index=column.index, dtype=object)


def _parsed(cell: object) -> Logits | None:
    if not isinstance(cell, str):
        return None
    try:
        return np.asarray(json.loads(cell), dtype=np.float32)
    except (ValueError, TypeError, RecursionError):
        raise ValueError(
            f"logits {cell[:40]!r} are not a list of numbers; allowed: [0.5, -1.0]"
        ) from None


def _as_arrow(column: pd.Series) -> pa.Array:
    kind = None if isinstance(column.dtype, pd.ArrowDtype) else pa.list_(pa.float32())
    try:
        return pa.Array.from_pandas(column, type=kind)
    except (pa.ArrowException, TypeError, ValueError):
        raise ValueError(
            f"column 'logits' holds {str(column.iloc[0])[:40]!r}; allowed: lists of numbers"
        ) from None


def _rows_at_once(logits: Logits | None) -> int:
    """Rows of a row group; a file is read a row group at a time."""
    return _MOST_ROWS if logits is None else max(1, _LOGITS_AT_ONCE // logits.shape[1])


def _stored_logits(file: pq.ParquetFile) -> Logits:
    """Reads the logits of a file into one matrix, some rows at a time. [examples, classes].

    A table of Arrow beside the matrix would double the memory of the largest column there is.
    """
    rows, start, matrix = file.metadata.num_rows, 0, None
    first = next(file.iter_batches(1, columns=["logits"]), None)
    classes = len(first.column(0)[0]) if first and first.column(0)[0].is_valid else 1
    for batch in file.iter_batches(max(1, _LOGITS_AT_ONCE // classes), columns=["logits"]):
        part = _logits(batch.column(0), start)
        if matrix is None:
            matrix = np.empty((rows, part.shape[1]), dtype=np.float32)
        if part.shape[1] != matrix.shape[1]:
            lengths = sorted((part.shape[1], matrix.shape[1]))
            raise ValueError(f"logits have lengths {lengths}; allowed: one length, at least 2")
        matrix[start : start + len(part)] = part
        start += len(part)
    return np.empty((0, 2), dtype=np.float32) if matrix is None else matrix


def _logits(column: pa.Array | pa.ChunkedArray, start: int = 0) -> Logits:
    """Returns a list column as one matrix, `start` being its first row. [examples, classes]."""
    if column.null_count:
        raise ValueError("column 'logits' has missing values; allowed: one array per example")
    lengths = sorted(set(pc.unique(pc.list_value_length(column)).to_pylist()))
    if len(lengths) != 1 or lengths[0] < 2:
        raise ValueError(f"logits have lengths {lengths[:3]}; allowed: one length, at least 2")
    flat = np.asarray(pc.list_flatten(column), dtype=np.float32)
    matrix = flat.reshape(len(column), lengths[0])
    if not np.isfinite(matrix).all():
        row = start + int(np.flatnonzero(~np.isfinite(matrix).all(axis=1))[0])
        raise ValueError(f"logits of row {row} are not finite; allowed: finite numbers")
    return matrix
