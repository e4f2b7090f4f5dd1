"""Teachers from files: logits by the ids of a dataset's examples, without any network.

A file is Parquet or CSV with the examples' ids (see `Dataset.named_by`), each once, and one of

    logits               a list of one number per class
    log_probabilities    the same, as logarithms of a softmax at `teacher.logits_temperature`
    classes, log_probabilities    the same of the most probable classes alone, and their numbers

Log-probabilities l at temperature T are logits up to a shift: T * l has the same softmax at every
temperature. With the most probable classes alone this holds only at T, because the distribution of
the rest is not known. The rest is divided evenly.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdplatform.data import Dataset, Split
from kdplatform.data._text_files import read_csv
from kdplatform.errors import UserError, one_line
from kdplatform.experiments.graph import Step
from kdplatform.files import user_path
from kdplatform.predictions import are_probabilities
from kdplatform.progress import say
from kdplatform.training import Teacher, TeacherTable

# Key of the classes' names in Parquet files, in the order of the logits.
CLASSES_KEY = b"kdplatform.classes"
_LOGITS, _LOGS, _CLASSES = "logits", "log_probabilities", "classes"
_NAMED = 3
# Largest allowed difference between 1 and the sum of a file's probabilities.
_ROUNDED = 0.01


@dataclass(frozen=True)
class FileLogits:
    """The logits of a dataset in a file.

    Attributes:
        splits: float32 [N, C] by name of a split, for splits with all examples in the file.
        partly: the number of examples that the file has of each other split, if any.
        only_at: the only temperature at which the logits are valid; None: every one.
    """

    splits: Mapping[str, Tensor]
    partly: Mapping[str, int]
    only_at: float | None


def file_teacher(step: Step, dataset: Dataset) -> Teacher:
    """Returns the teacher of a step whose logits are in a file; it has no network."""
    known = file_logits(step, dataset)
    unlabeled = known.splits.get("unlabeled")
    return Teacher(
        TeacherTable(known.splits["train"]),
        None,
        unlabeled=None if unlabeled is None else TeacherTable(unlabeled),
        splits=known.splits,
    )


def file_logits(step: Step, dataset: Dataset) -> FileLogits:
    """Returns the logits of a step's file.

    Raises:
        UserError: the file cannot be read, lacks training examples, or has other classes. The
            message has their number and the first of them.
    """
    [file] = step.training.logits
    path = user_path("teacher.logits", file)
    changed = path.stat().st_mtime_ns
    return _read(file, path, changed, step.training.logits_temperature, _Examples(dataset))


@dataclass(frozen=True)
class _Examples:
    """A dataset that is compared by its digest."""

    dataset: Dataset

    def __hash__(self) -> int:
        return hash(self.dataset.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Examples) and other.dataset.digest == self.dataset.digest


@lru_cache(maxsize=8)
def _read(
    file: str, path: Path, changed: int, temperature: float, examples: _Examples
) -> FileLogits:
    dataset, where = examples.dataset, f"teacher.logits={file!r}"
    table, classes = _table(path, where)
    if classes and classes != dataset.class_names:
        raise UserError(
            f"{where} has the classes {_listed(classes)}, the dataset "
            f"{_listed(dataset.class_names)}; allowed: the same classes in the same order"
        )
    if _LOGITS in table and _LOGS in table:
        raise UserError(f"{where} has both {_LOGITS} and {_LOGS}; allowed: one of them")
    ids = _ids(table, dataset, where)
    logits, only_at = _logits(table, len(dataset.class_names), temperature, where)
    if not (finite := np.isfinite(logits).all(axis=1)).all():
        raise UserError(
            f"{where}: logits of {int((~finite).sum())} examples are NaN or infinite "
            f"({_listed(ids[np.flatnonzero(~finite)])}); allowed: finite numbers"
        )
    splits: dict[str, Tensor] = {}
    partly: dict[str, int] = {}
    used = 0
    for name, split in _splits(dataset).items():
        rows = ids.get_indexer(pd.Index(_names(split)))
        found = rows >= 0
        used += int(found.sum())
        if found.all():
            splits[name] = torch.from_numpy(logits[rows])
        elif name == "train":
            lacking = _names(split)[~found]
            raise UserError(
                f"{where} lacks {len(lacking)} of {len(split)} training examples "
                f"({dataset.named_by} {_listed(lacking)}); allowed: every one of them once"
            )
        elif found.any():
            partly[name] = int(found.sum())
    if unknown := len(ids) - used:
        every = pd.Index(np.concatenate([_names(own) for own in _splits(dataset).values()]))
        others = ids[~ids.isin(every)]
        say(
            f"{where}: {unknown} of {len(ids)} rows are of no example of the dataset "
            f"({dataset.named_by} {_listed(others)}); not used"
        )
    return FileLogits(splits, partly, only_at)


def _splits(dataset: Dataset) -> dict[str, Split]:
    hidden = {} if dataset.unlabeled is None else {"unlabeled": dataset.unlabeled}
    return {**dataset.splits(), **hidden}


def _names(split: Split) -> NDArray[np.generic]:
    return split.ids if split.names is None else split.names


def _listed(values: Iterable[object]) -> str:
    shown = [str(value) for value in values]
    return ", ".join(shown[:_NAMED]) + (", ..." if len(shown) > _NAMED else "")


# ---- reading


def _table(path: Path, where: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns the columns of a file, with lists as arrays, and its classes if it names them."""
    if path.suffix.lower() == ".csv":
        table = read_csv(path)
        for name in (_LOGITS, _LOGS, _CLASSES):
            if name in table:
                lists = [_list(cell, name, where) for cell in table[name]]
                table[name] = pd.Series(lists, dtype=object)
        return table, ()
    try:
        arrow = pq.read_table(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{where} cannot be read as Parquet ({one_line(error)})") from None
    named = (arrow.schema.metadata or {}).get(CLASSES_KEY)
    try:
        classes = tuple(map(str, json.loads(named))) if named else ()
    except (ValueError, TypeError, RecursionError):
        classes = ()
    return arrow.to_pandas(), classes


def _list(cell: str, name: str, where: str) -> NDArray[np.float64]:
    try:
        return np.asarray(json.loads(cell), dtype=np.float64)
    except (ValueError, TypeError, RecursionError):
        raise UserError(
            f"{where}: {name} {cell[:40]!r} are no list of numbers; allowed: [0.5, -1.0]"
        ) from None


def _ids(table: pd.DataFrame, dataset: Dataset, where: str) -> pd.Index:
    """Returns the ids of a file's rows in the dataset's form: whole numbers, or names."""
    name = dataset.named_by
    if name not in table:
        columns = ", ".join(map(str, table.columns))
        raise UserError(
            f"{where} has no column {name!r} (its columns: {columns}); allowed: {name} of every "
            "training example, and logits"
        )
    cells = table[name]
    if dataset.train.names is not None:
        ids: pd.Index = pd.Index(cells.astype(str))
    else:
        numbers = pd.to_numeric(cells, errors="coerce").replace([np.inf, -np.inf], np.nan)
        if numbers.isna().any() or (numbers != numbers.round()).any():
            wrong = cells[numbers.isna() | (numbers != numbers.round())]
            raise UserError(
                f"{where}: {len(wrong)} ids are no whole numbers ({_listed(wrong)}); allowed: the "
                "dataset's ids, as prediction tables have them"
            )
        ids = pd.Index(numbers.astype("int64"))
    if ids.has_duplicates:
        twice = ids[ids.duplicated()]
        raise UserError(
            f"{where}: {len(twice)} ids occur twice ({name} {_listed(twice)}); allowed: each "
            "example once"
        )
    return ids


def _logits(
    table: pd.DataFrame, classes: int, temperature: float, where: str
) -> tuple[NDArray[np.float32], float | None]:
    """Returns logits [N, C], and their temperature if they are valid at only one."""
    if _LOGITS in table:
        if temperature != 1:
            raise UserError(
                f"teacher.logits_temperature={temperature:g} is for {_LOGS}, and {where} has "
                f"{_LOGITS}, which have no temperature; allowed: 1"
            )
        logits = _matrix(table[_LOGITS], _LOGITS, classes, where)
        if are_probabilities(logits):
            raise UserError(
                f"{where}: logits of every row are at least 0 and add up to 1: they are "
                f"probabilities; allowed: logits, or their logarithms as {_LOGS}"
            )
        return logits, None
    if _LOGS not in table:
        raise UserError(
            f"{where} has neither {_LOGITS} nor {_LOGS} (its columns: "
            f"{', '.join(map(str, table.columns))}); allowed: one of them"
        )
    if _CLASSES in table:
        logs = _most_probable(table[_CLASSES], table[_LOGS], classes, where)
        return (temperature * logs).astype(np.float32), temperature
    exact = _matrix(table[_LOGS], _LOGS, classes, where)
    sums = np.exp(exact.astype(np.float64)).sum(axis=1)
    off = np.abs(sums - 1)
    if wrong := int((off > _ROUNDED).sum()):
        raise UserError(
            f"{where}: {_LOGS} of {wrong} rows are those of no distribution (they add up to "
            f"{sums[off.argmax()]:.3g}); allowed: logarithms of a softmax, or {_LOGITS}"
        )
    return np.float32(temperature) * exact, None


def _matrix(column: pd.Series, name: str, classes: int, where: str) -> NDArray[np.float32]:
    """Returns a column of lists as float32 [N, C]."""
    if not len(column):
        raise UserError(f"{where} has no rows; allowed: one for every training example")
    try:
        lengths = {len(cell) for cell in column}
    except TypeError:
        raise UserError(
            f"{where}: column {name} has rows without a list; allowed: one number per class"
        ) from None
    if lengths != {classes}:
        raise UserError(
            f"{where}: {name} of {_listed(sorted(lengths))} numbers, the dataset has {classes} "
            "classes; allowed: one number per class"
        )
    try:
        # Values that are too large for float32 are refused as infinite.
        with np.errstate(over="ignore"):
            return np.stack([np.asarray(cell, dtype=np.float32) for cell in column])
    except (ValueError, TypeError):
        raise UserError(
            f"{where}: {name} hold values that are not numbers; allowed: numbers"
        ) from None


def _most_probable(
    numbers: pd.Series, logs: pd.Series, classes: int, where: str
) -> NDArray[np.float64]:
    """Returns log-probabilities [N, C] of the most probable classes; the rest is divided evenly."""
    full = np.empty((len(logs), classes))
    for row, (own, values) in enumerate(zip(numbers, logs, strict=True)):
        try:
            chosen, known = np.asarray(own), np.asarray(values, float)
            lists = chosen.ndim == known.ndim == 1 and np.issubdtype(chosen.dtype, np.number)
        except (ValueError, TypeError):
            lists = False
        if not lists:
            raise UserError(
                f"{where}, row {row + 1}: {_CLASSES} or {_LOGS} are no list of numbers; allowed: "
                "[3, 0] and [-0.2, -2.1]"
            )
        full[row] = _filled(chosen, known, classes, row, where)
    return full


def _filled(
    own: NDArray[np.generic], logs: NDArray[np.float64], classes: int, row: int, where: str
) -> NDArray[np.float64]:
    chosen = own.astype(np.int64)
    fits = len(chosen) == len(logs) and len(set(chosen.tolist())) == len(chosen) > 0
    if not fits or chosen.min() < 0 or chosen.max() >= classes or (chosen != own).any():
        raise UserError(
            f"{where}, row {row + 1}: {_CLASSES} {own.tolist()!r} do not fit {_LOGS}; allowed: "
            f"different classes from 0 to {classes - 1}, one for each of them"
        )
    rest = 1 - np.exp(logs).sum()
    if rest < -_ROUNDED or not np.isfinite(logs).all():
        raise UserError(
            f"{where}, row {row + 1}: {_LOGS} add up to {1 - rest:.3g}; allowed: at most 1"
        )
    others = classes - len(chosen)
    # If rounding leaves nothing, the rest keeps a probability too small for float32.
    share = max(rest, 1e-12) / max(1, others)
    full = np.full(classes, np.log(share))
    full[chosen] = logs
    return full


# ---- what students can learn from it


def check_file_teacher(
    known: FileLogits, step: Step, *, needs_val: bool, needs_unlabeled: bool
) -> None:
    """Refuses a student that cannot learn from the logits of a file.

    Args:
        step: of the student.
        needs_val: whether its method needs the teacher's logits of the validation split.
        needs_unlabeled: whether it learns from examples without labels.

    Raises:
        UserError: the file lacks logits, or the student changes its inputs.
    """
    method, names = step.method, [f for own in step.teachers.values() for f in own.training.logits]
    where = f"teacher.logits={','.join(names)!r}"
    if step.training.augmentation.active:
        raise UserError(
            f"{where} has logits of the unchanged images, and student.augmentation changes them; "
            "allowed: no augmentation, or a teacher that is a network"
        )
    lacking = [
        name
        for name, needed in (("val", needs_val), ("unlabeled", needs_unlabeled))
        if needed and name not in known.splits
    ]
    if lacking:
        raise UserError(
            f"{where} lacks examples of {lacking[0]}, which method={method.method!r} asks the "
            "teacher about; allowed: a file with all of them"
        )
    if known.only_at is not None and method.softmax_temperature != known.only_at:
        asked = method.softmax_temperature
        raise UserError(
            f"{where} has log-probabilities of the most probable classes alone, at "
            f"T={known.only_at:g}, which are not valid at other temperatures, and "
            f"method={method.method!r} has "
            f"{'no temperature' if asked is None else f'T={asked:g}'}; allowed: that T "
            "(teacher.logits_temperature), or log-probabilities of all classes"
        )


def remark_on_tests(known: FileLogits, names: Sequence[str]) -> None:
    """Prints a line if the student cannot be compared with its teacher."""
    if "test" not in known.splits:
        part = known.partly.get("test", 0)
        has = f"{part} test examples, not all" if part else "no test examples"
        say(f"teacher.logits={','.join(names)!r} has {has}: no comparison with the teacher")
