"""The tool `compare`: two groups of runs, or of prediction files, held against each other."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from kdplatform.analysis.tables import Attribute, attribute_groups, listed
from kdplatform.columns import RESERVED, check_attributes, is_label, look_alikes
from kdplatform.data._text_files import read_csv
from kdplatform.errors import UserError, one_line, unknown_name
from kdplatform.files import user_path, writable_folder
from kdplatform.predictions import ClassOrderError, Predictions, Table
from kdplatform.progress import show
from kdplatform.settings.schema import names
from kdplatform.study.factors import GENERATING_FACTORS
from kdplatform.study.sides import Side
from kdplatform.text import visible

PAGE = "comparison.html"
USAGE = "A B, each run ids or prediction files (.parquet, .csv), comma-separated"
# A run, or what it predicts under one of its conditions.
_RUN_ID = re.compile(r"([0-9a-f]{32})(?:@([A-Za-z0-9_.-]+))?")
_SUFFIXES = (".parquet", ".csv")
# A column of more values than this is an id or a measurement, not an attribute with groups.
_MOST_GROUPS = 20
# Up to here fractions hold every whole number.
_LONGEST_WHOLE = 2**53
# Pairs of more attributes than this are compared only when the attributes are named.
_MOST_FOUND_ATTRIBUTES = 4


def run_compare(
    sides: Sequence[str],
    *,
    attributes: str | None = None,
    similar_by: str | None = None,
    min_group_size: str = "30",
    out: str | None = None,
) -> None:
    """Compares two sides and prints what differs; writes tables and a page where asked to.

    Args:
        sides: run ids or prediction files, comma-separated, of either side.
        attributes: columns whose groups are compared, comma-separated; None: what looks like one.
        similar_by: columns that say how alike two examples are.
        min_group_size: groups smaller than this are listed and not measured.
        out: folder for the page and its tables.

    Raises:
        UserError: a side cannot be read, or the sides cannot be compared.
    """
    folder = None if out is None else user_path("out", out)
    size = _group_size(min_group_size)
    read = _sides(sides)
    # Statistics and figures take seconds to load; a file that is no prediction table needs neither.
    from kdplatform.reporting.comparison import build_comparison, comparison_text
    from kdplatform.reporting.study_page import write_report

    given = {"attributes": attributes, "similar_by": similar_by}
    asked, alike = (None if t is None else _names_in(n, t) for n, t in given.items())
    try:
        found = _attributes(asked, read)
        compared = [*found, *_intersections(asked, found)]
        comparison = build_comparison(
            read.first,
            read.second,
            compared,
            _similar_by(alike, read),
            size,
            remarks=list(_remarks(asked, read, compared)),
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    show(comparison_text(comparison))
    if folder is not None:
        write_report(comparison.report, writable_folder("out", folder), PAGE)
        show(f"\nread it: {folder / PAGE}")


def _group_size(text: str) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,17}", text):
        raise UserError(f"min_group_size={text!r} is not allowed; allowed: integer >= 1")
    return int(text)


def _names_in(parameter: str, text: str) -> tuple[str, ...]:
    """Returns the names of a text such as `a,b`; one with a comma stands in quotes."""
    try:
        found = names(text)
    except ValueError as error:
        raise UserError(f"{parameter}={text!r} is not allowed; allowed: {error}") from None
    assert isinstance(found, tuple)
    return found


class _Read(NamedTuple):
    """What a run or a file holds.

    Attributes:
        left_out: columns that are no attributes, with the reason.
        class_names: of class 0, 1, ...; empty for a file, which has them in its columns.
    """

    name: str
    table: Table
    attributes: tuple[str, ...]
    left_out: Mapping[str, str]
    class_names: tuple[str, ...] = ()


class _Sides(NamedTuple):
    """Both sides, with the attributes that all of their tables have."""

    first: Side
    second: Side
    attributes: tuple[str, ...]
    left_out: Mapping[str, str]


def _sides(given: Sequence[str]) -> _Sides:
    """Reads the sides: every run or file is one seed of its side."""
    read = [[_read(name) for name in _predictions_of(side)] for side in given]
    every = [each for side in read for each in side]
    classes = _class_names(every)
    first, second = (
        Side(
            _title([each.name for each in side]),
            [_checked(each, classes) for each in side],
            classes,
        )
        for side in read
    )
    found = dict.fromkeys(name for each in every for name in (*each.attributes, *each.left_out))
    left_out = {name: reason for name in found if (reason := _reason(name, every))}
    attributes = tuple(name for name in found if name not in left_out)
    return _Sides(first, second, attributes, left_out)


def _reason(name: str, read: Sequence[_Read]) -> str:
    """Says why a column is no attribute of all tables; nothing where it is."""
    for each in read:
        if name not in each.attributes:
            return each.left_out.get(name, f"not in {_title([each.name])}")
    return ""


def _predictions_of(side: str) -> tuple[str, ...]:
    """Returns the runs or files of a side."""
    found = _names_in("side", side)
    if not found:
        raise UserError(f"side {side!r} is empty; allowed: {USAGE}")
    if len(set(map(os.path.normpath, found))) != len(found):
        raise UserError(f"side {side!r} names the same predictions twice")
    return found


def _class_names(read: Sequence[_Read]) -> tuple[str, ...]:
    """Returns the names of all classes, as runs number them, or else sorted; none without names.

    Raises:
        UserError: only some of the tables name their classes, they spell one in two ways, or runs
            have other classes or another order of them.
    """
    known = {each.class_names: each.name for each in read if each.class_names}
    if len(known) > 1:
        (first, run), (second, other), *_ = known.items()
        raise UserError(
            f"run {run} has the classes {listed(first)}, run {other} {listed(second)}; allowed: "
            "the same classes in the same order"
        )
    numbered = next(iter(known), ())
    named = [each for each in read if any(_is_text(column) for column in _class_columns(each))]
    if not named:
        return numbered
    for each in read:
        if not (each.class_names or all(_is_text(column) for column in _class_columns(each))):
            raise UserError(
                f"{named[0].name} has names of classes and {each.name} has numbers; allowed: the "
                "same in label and prediction of all tables"
            )
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
        raise unknown_name("class", unknown[0], numbered)
    return numbered or tuple(spelled)


def _class_columns(read: _Read) -> list[pd.Series]:
    """Returns labels and predictions as a file has them; those of runs are checked already."""
    if isinstance(read.table, Predictions):
        return [pd.Series(read.table.labels), pd.Series(read.table.predictions)]
    return [read.table[name] for name in ("label", "prediction") if name in read.table.columns]


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.infer_dtype(column, skipna=True) == "string"


def _checked(read: _Read, classes: tuple[str, ...]) -> Predictions:
    """Returns the predictions with their classes as numbers."""
    table = read.table
    if classes and isinstance(table, pd.DataFrame):
        numbers = {name: number for number, name in enumerate(classes)}
        columns = {str(own.name): own.map(numbers) for own in _class_columns(read) if _is_text(own)}
        table = table.assign(**{name: column.astype("Int64") for name, column in columns.items()})
    order = f"; {len(classes)} classes are named, in this order: {listed(classes)}" * bool(classes)
    try:
        checked = Predictions.of(table)
    except ClassOrderError as error:
        raise UserError(f"{read.name}: {error}{order}") from None
    except ValueError as error:
        raise UserError(f"{read.name}: {error}") from None
    if classes and checked.logits is not None and checked.n_classes != len(classes):
        raise UserError(
            f"{read.name}: {checked.n_classes} logits, and the tables name {len(classes)} classes "
            f"({listed(classes)}), so it is not known which logit is whose; allowed: a logit of "
            "each of these in this order, classes as numbers, or no logits"
        )
    if not np.isin(checked.predictions, checked.labels).any():
        raise UserError(
            f"{read.name}: no prediction is one of the labels; allowed: the same names or numbers "
            "in both columns"
        )
    return checked


def _title(names: Sequence[str]) -> str:
    runs = [_RUN_ID.fullmatch(name) for name in names]
    short = [
        Path(name).name if run is None else f"{run[1][:8]}{f'@{run[2]}' if run[2] else ''}"
        for name, run in zip(names, runs, strict=True)
    ]
    return visible(", ".join(short) if len(short) <= 3 else f"{short[0]} and {len(short) - 1} more")


def _read(name: str) -> _Read:
    path = user_path("side", name)
    if path.suffix.lower() in _SUFFIXES:
        table = _read_file(path)
        reasons = {name: _no_attribute(table, name) for name in map(str, table)}
        found = tuple(column for column, reason in reasons.items() if not reason)
        left_out = {
            column: why for column, why in reasons.items() if why and column not in RESERVED
        }
        return _Read(name, table, found, left_out)
    if run := _RUN_ID.fullmatch(name):
        # MLflow takes seconds to load; files need none of it.
        from kdplatform.experiments.stored_predictions import read_run

        test, measured, class_names = read_run(run[1], "" if run[2] in (None, "clean") else run[2])
        others = {c: "not measured by its run" for c in map(str, test.columns) if c not in measured}
        return _Read(name, test, measured, others, class_names)
    raise UserError(f"{name!r} is neither a run id nor a prediction file; allowed: {USAGE}")


def _read_file(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"{path} is no file; allowed: {USAGE}")
    if path.suffix.lower() == ".csv":
        cells = read_csv(path)
        table = pd.DataFrame({name: _typed(cells[name]) for name in cells})
        if "logits" in table.columns:
            logits = [_logits(path, text) for text in cells["logits"]]
            table["logits"] = pd.Series(logits, dtype=object)
        return table
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as a prediction file ({one_line(error)})") from None
    if any(table.index.names):  # pandas keeps such an index beside the columns
        table = table.reset_index()
    columns = [str(name).strip() for name in table]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise UserError(f"{path} has column {twice[0]!r} twice; allowed: every column once")
    return pd.DataFrame({str(name).strip(): _tidied(table[name]) for name in table})


def _typed(cells: pd.Series) -> pd.Series:
    """Returns a column of texts as numbers where all of its cells are; empty ones are missing."""
    present = cells.where(cells != "")
    numbers = pd.to_numeric(present, errors="coerce")
    # Long numbers are names, which a fraction would round.
    text = numbers.isna().sum() > present.isna().sum() or (
        pd.api.types.is_float_dtype(numbers.dtype) and (numbers.abs() > _LONGEST_WHOLE).any()
    )
    return _tidied(present if text else numbers)


def _tidied(column: pd.Series) -> pd.Series:
    """Returns a column without blanks around its texts; whole numbers with gaps stay whole.

    pandas keeps whole numbers as fractions where one is missing.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if _is_text(column):
        stripped = column.str.strip()
        return stripped.where(stripped != "")
    if pd.api.types.is_float_dtype(column.dtype):
        known = column.dropna()
        if (known.abs() <= _LONGEST_WHOLE).all() and (known == known.round()).all():
            return column.astype("Int64" if len(known) < len(column) else "int64")
    return column


def _logits(path: Path, text: object) -> np.ndarray:
    """Reads a cell such as `[0.5, -1.0]`."""
    try:
        return np.asarray(json.loads(str(text)), dtype=np.float32)
    except (ValueError, TypeError, RecursionError):
        raise UserError(
            f"{path}: logits {str(text)[:40]!r} are not a list of numbers; allowed: [0.5, -1.0]"
        ) from None


def _no_attribute(table: pd.DataFrame, name: str) -> str:
    """Says why a column of a file is not taken for an attribute; nothing where it is."""
    column = table[name]
    if name in RESERVED:
        return "a column of the format"
    try:
        groups = column.nunique()
    except TypeError:  # lists and the like
        return "neither text nor numbers"
    if pd.api.types.is_float_dtype(column.dtype):
        return "fractions"
    if groups < 2:
        return "fewer than two values"
    if groups > _MOST_GROUPS:
        return f"{groups} values"
    if "label" in table.columns and is_label(column, table["label"]):
        return "the label under another name"
    return ""


def _attributes(given: tuple[str, ...] | None, sides: _Sides) -> tuple[str, ...]:
    """Returns the attributes asked for, or those that all tables have."""
    if given is None:
        return sides.attributes
    _check_columns("attributes", given, sides)
    reference = sides.first.tables[0]
    for name in given:
        attribute_groups(reference, name)  # refuses what is neither text nor numbers
    check_attributes(reference.columns, reference.labels, given, f"attributes={','.join(given)!r}")
    return given


def _intersections(
    given: tuple[str, ...] | None, attributes: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Returns the pairs of attributes; none of many that were only found in a file."""
    if given is None and len(attributes) > _MOST_FOUND_ATTRIBUTES:
        return []
    return list(combinations(attributes, 2))


def _remarks(
    given: tuple[str, ...] | None, sides: _Sides, attributes: Sequence[Attribute]
) -> Iterator[str]:
    """Says what is not compared by group, and why."""
    if given is None and sides.left_out:
        columns = ", ".join(f"{name} ({reason})" for name, reason in sides.left_out.items())
        yield f"Not compared by group: {columns}; --attributes names columns that are."
    if len(attributes) == len(sides.attributes) > _MOST_FOUND_ATTRIBUTES:
        yield (
            f"Pairs of the {len(attributes)} attributes are not compared; --attributes names the "
            "attributes whose pairs are."
        )


def _similar_by(given: tuple[str, ...] | None, sides: _Sides) -> tuple[str, ...]:
    """Returns the columns asked for, or the generating factors of a dataset that both sides have.

    Those are recognised by their names.
    """
    if given is not None:
        _check_columns("similar_by", given, sides)
        return given
    tables = [*sides.first.tables, *sides.second.tables]
    for factors in GENERATING_FACTORS.values():
        if all(set(factors) <= set(table.columns) for table in tables):
            return factors
    return ()


def _check_columns(parameter: str, given: Sequence[str], sides: _Sides) -> None:
    for name in given:
        if given.count(name) > 1:
            raise UserError(f"{parameter} has {name!r} twice; allowed: every column once")
        for side in (sides.first, sides.second):
            for table in side.tables:
                if name not in table.columns:
                    known = ", ".join(map(str, table.columns)) or "none"
                    raise UserError(
                        f"{parameter}={name!r} is not a column of {side.title}; known: {known}"
                    )
