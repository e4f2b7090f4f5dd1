"""The sides of a comparison: runs, prediction files or data frames, read and checked together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kdplatform.analysis.tables import listed
from kdplatform.columns import RESERVED, is_label, look_alikes
from kdplatform.errors import UserError, unknown_name
from kdplatform.experiments.prediction_files import (
    SUFFIXES,
    USAGE,
    check_classes,
    is_text,
    read_prediction_file,
    tidied_table,
)
from kdplatform.experiments.run_names import named_run
from kdplatform.experiments.weight_column import WEIGHT, check_equal_weights, with_weights
from kdplatform.files import user_path
from kdplatform.predictions import ClassOrderError, IntArray, Predictions, Table
from kdplatform.progress import say
from kdplatform.study.sides import Side
from kdplatform.text import visible

# Where predictions come from: a run id, the path of a prediction file, or a table in memory.
Source = str | Path | pd.DataFrame | Predictions

# A column with more values than this is an id or a measurement, not an attribute with groups.
_MOST_GROUPS = 20
# Reasons why a column of numbers is no attribute.
FRACTIONS, MANY_VALUES = "fractions", "{} values"


class _Read(NamedTuple):
    """The content of a run or a file.

    Attributes:
        left_out: columns that are not attributes, with the reason.
        class_names: of class 0, 1, ...; empty for a file, which has them in its columns.
        seed: the seed of a run; None for a file.
    """

    name: str
    table: Table
    attributes: tuple[str, ...]
    left_out: Mapping[str, str]
    class_names: tuple[str, ...] = ()
    seed: int | None = None


class Sides(NamedTuple):
    """Both sides, with the attributes that all of their tables have."""

    first: Side
    second: Side
    attributes: tuple[str, ...]
    left_out: Mapping[str, str]


def read_sides(given: Sequence[Sequence[Source]]) -> Sides:
    """Reads the sides: every run, file or table is one seed of its side.

    Raises:
        UserError: a file cannot be read, is not a table, or differs from another in classes or
            weights.
    """
    read = [
        [
            _read(source, _table_name(side, place, len(sources)))
            for place, source in enumerate(sources)
        ]
        for side, sources in zip("ab", given, strict=True)
    ]
    read = _paired_by_seed(read)
    every = [each for side in read for each in side]
    classes = _class_names(every)
    first, second = (
        Side(
            title_of([each.name for each in side]),
            [_checked(each, classes) for each in side],
            classes,
        )
        for side in read
    )
    tables = [table for side in (first, second) for table in side.tables]
    check_equal_weights({each.name: table for each, table in zip(every, tables, strict=True)})
    found = dict.fromkeys(name for each in every for name in (*each.attributes, *each.left_out))
    left_out = {name: reason for name in found if (reason := _reason(name, every))}
    attributes = tuple(name for name in found if name not in left_out)
    return Sides(first, second, attributes, left_out)


def _paired_by_seed(read: list[list[_Read]]) -> list[list[_Read]]:
    """Orders the runs of both sides by their seeds, so that models of one seed are paired.

    Sides with different seeds, or with files among them, keep the given order.
    """
    first, second = ([each.seed for each in side] for side in read)
    if len(first) < 2 or None in first or len(set(first)) < len(first):
        return read
    if sorted(map(str, first)) == sorted(map(str, second)):
        if first != second:
            say("the runs of each side are ordered by their seeds: models of one seed are paired")
        return [sorted(side, key=lambda each: each.seed or 0) for side in read]
    if len(first) == len(second) and None not in second:
        say(
            f"the sides' runs have seeds {', '.join(map(str, first))} and "
            f"{', '.join(map(str, second))}: they are paired in the order given"
        )
    return read


def _reason(name: str, read: Sequence[_Read]) -> str:
    """Returns why a column is not an attribute of all tables; empty if it is one."""
    for each in read:
        if name not in each.attributes:
            return each.left_out.get(name, f"not in {title_of([each.name])}")
    return ""


def _class_names(read: Sequence[_Read]) -> tuple[str, ...]:
    """Returns the names of all classes, in the runs' order or sorted; empty without names.

    Raises:
        UserError: only some of the tables name their classes, a class has two spellings, or runs
            have other classes or another order.
    """
    known = {each.class_names: each.name for each in read if each.class_names}
    if len(known) > 1:
        (first, run), (second, other), *_ = known.items()
        raise UserError(
            f"run {run} has the classes {listed(first)}, run {other} {listed(second)}; allowed: "
            "the same classes in the same order"
        )
    numbered = next(iter(known), ())
    named = [each for each in read if any(is_text(column) for column in _class_columns(each))]
    if not named:
        return numbered
    for each in read:
        if not (each.class_names or all(is_text(column) for column in _class_columns(each))):
            apart = f"{named[0].name} has names of classes and {each.name} has numbers"
            if any(each is other for other in named):
                apart = f"{each.name} has names of classes in one column and numbers in the other"
            raise UserError(f"{apart}; allowed: the same in label and prediction of all tables")
    columns = [column.dropna() for each in named for column in _class_columns(each)]
    spelled = sorted({str(name) for column in columns for name in column})
    labels = set(numbered) or {str(name) for name in columns[0]}
    for alike in look_alikes({*spelled, *numbered}):
        if not labels.issuperset(alike):
            raise UserError(
                f"classes {' and '.join(map(repr, alike))} look alike, and not all of them are "
                f"labels of {read[0].name}; allowed: one spelling of a class in all tables"
            )
    if numbered and (unknown := sorted(set(spelled) - set(numbered))):
        [where, *_] = (
            each.name
            for each in named
            if any((column == unknown[0]).any() for column in _class_columns(each))
        )
        raise unknown_name(f"{where}: class", unknown[0], numbered)
    return numbered or tuple(spelled)


def _class_columns(read: _Read) -> list[pd.Series]:
    """Returns labels and predictions of a file unchanged; those of runs are checked already."""
    if isinstance(read.table, Predictions):
        return [pd.Series(read.table.labels), pd.Series(read.table.predictions)]
    return [read.table[name] for name in ("label", "prediction") if name in read.table.columns]


def _checked(read: _Read, classes: tuple[str, ...]) -> Predictions:
    """Returns the predictions with their classes as numbers."""
    table = read.table
    if classes and isinstance(table, pd.DataFrame):
        numbers = {name: number for number, name in enumerate(classes)}
        columns = {str(own.name): own.map(numbers) for own in _class_columns(read) if is_text(own)}
        table = table.assign(**{name: column.astype("Int64") for name, column in columns.items()})
    order = f"; {len(classes)} classes are named, in this order: {listed(classes)}" * bool(classes)
    if isinstance(table, pd.DataFrame):
        check_classes(table, read.name)
    try:
        checked = Predictions.of(table)
    except ClassOrderError as error:
        raise UserError(f"{read.name}: {error}{order}") from None
    except ValueError as error:
        raise UserError(f"{read.name}: {error}") from None
    if classes and checked.logits is not None and checked.n_classes != len(classes):
        raise UserError(
            f"{read.name}: {checked.n_classes} logits, and the tables name {len(classes)} classes "
            f"({listed(classes)}), so the class of each logit is unknown; allowed: a logit of "
            "each of these in this order, classes as numbers, or no logits"
        )
    if not np.isin(checked.predictions, checked.labels).any():
        raise UserError(
            f"{read.name}: no prediction is one of the labels; allowed: the same names or numbers "
            "in both columns"
        )
    return checked if isinstance(table, Predictions) else with_weights(checked, read.name)


def title_of(names: Sequence[str]) -> str:
    """Names a side by its runs or files."""
    short = []
    for name in names:
        run = named_run(name)
        under = f"@{run.condition}" if run and run.condition else ""
        short.append(Path(name).name if run is None else f"{run.run_id[:8]}{under}")
    return visible(", ".join(short) if len(short) <= 3 else f"{short[0]} and {len(short) - 1} more")


def _table_name(side: str, place: int, several: int) -> str:
    """Names a table in memory."""
    return f"table {side}" if several == 1 else f"table {side}[{place}]"


def _read(source: Source, table_name: str) -> _Read:
    if isinstance(source, Predictions):
        return _Read(table_name, source, *_columns_of(source.columns, source.labels))
    if isinstance(source, pd.DataFrame):
        table = tidied_table(source, table_name)
        return _Read(table_name, table, *_columns_of(table, table.get("label")))
    name, path = str(source), user_path("side", str(source))
    if path.suffix.lower() in SUFFIXES:
        table = read_prediction_file(path)
        return _Read(name, table, *_columns_of(table, table.get("label")))
    if run := named_run(name):
        # MLflow takes seconds to load; files do not need it.
        from kdplatform.experiments.stored_predictions import read_run

        test, measured, class_names, seed = read_run(run.run_id, run.condition)
        others = {c: "not measured by its run" for c in map(str, test.columns) if c not in measured}
        return _Read(name, test, measured, others, class_names, seed)
    raise UserError(f"{name!r} is neither a run id nor a prediction file; allowed: {USAGE}")


def _columns_of(
    table: pd.DataFrame, labels: "pd.Series[Any] | IntArray | None"
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the columns that are used as attributes, and the reasons for the others."""
    reasons = {name: _no_attribute(table, name, labels) for name in map(str, table)}
    found = tuple(column for column, reason in reasons.items() if not reason)
    of_format = (*RESERVED, WEIGHT)
    return found, {c: why for c, why in reasons.items() if why and c not in of_format}


def _no_attribute(
    table: pd.DataFrame, name: str, labels: "pd.Series[Any] | IntArray | None"
) -> str:
    """Returns why a column of a file is not used as an attribute; empty if it is."""
    column = table[name]
    if name in (*RESERVED, WEIGHT):
        return "a column of the format"
    try:
        groups = column.nunique()
    except TypeError:  # lists and the like
        return "neither text nor numbers"
    if pd.api.types.is_float_dtype(column.dtype):
        return FRACTIONS
    if groups < 2:
        return "fewer than two values"
    if groups > _MOST_GROUPS:
        return MANY_VALUES.format(groups)
    if labels is not None and is_label(column, labels):
        return "the label under another name"
    return ""
