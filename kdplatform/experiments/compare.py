"""The tool `compare`: two groups of runs, or of prediction files, held against each other."""

import json
import re
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from kdplatform.errors import UserError
from kdplatform.files import user_path, writable_folder
from kdplatform.predictions import RESERVED, Predictions, Table
from kdplatform.reporting.sides import Side
from kdplatform.study.factors import GENERATING_FACTORS

PAGE = "comparison.html"
USAGE = "A B, each run ids or prediction files (.parquet, .csv), comma-separated"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_SUFFIXES = (".parquet", ".csv")
# A column of more values than this is an id or a measurement, not an attribute with groups.
_MOST_GROUPS = 20
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
    first, second = _sides(sides)
    # Statistics and figures take seconds to load; a file that is no prediction table needs neither.
    from kdplatform.reporting.comparison import build_comparison, comparison_text
    from kdplatform.reporting.study_page import write_report

    asked, alike = (None if t is None else names_in(t) for t in (attributes, similar_by))
    try:
        found = _attributes(asked, first, second)
        comparison = build_comparison(
            first,
            second,
            [*found, *_intersections(asked, found)],
            _similar_by(alike, first, second),
            size,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    print(comparison_text(comparison))
    if folder is not None:
        write_report(comparison.report, writable_folder("out", folder), PAGE)
        print(f"\nread it: {folder / PAGE}")


def _group_size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"min_group_size={text!r} is not allowed; allowed: integer >= 1")
    return int(text)


def names_in(text: str) -> tuple[str, ...]:
    """Returns the names of a text such as `a,b`."""
    return tuple(filter(None, text.split(",")))


class _Read(NamedTuple):
    name: str
    table: Table
    attributes: tuple[str, ...]


def _sides(given: Sequence[str]) -> list[Side]:
    """Reads the sides: every run or file is one seed of its side."""
    read = [[_read(name) for name in _names(words)] for words in given]
    classes = _class_names([each for side in read for each in side])
    return [_side(side, classes) for side in read]


def _names(words: str) -> list[str]:
    names = [name.strip() for name in words.split(",") if name.strip()]
    if not names:
        raise UserError(f"side {words!r} is empty; allowed: {USAGE}")
    if len(set(names)) != len(names):
        raise UserError(f"side {words!r} names the same predictions twice")
    return names


def _class_names(read: Sequence[_Read]) -> tuple[str, ...]:
    """Returns the names of all classes, sorted; none where classes are numbers.

    Raises:
        UserError: only some of the tables name their classes.
    """
    named = [each for each in read if any(_is_text(column) for column in _class_columns(each))]
    if not named:
        return ()
    for each in read:
        if not all(_is_text(column) for column in _class_columns(each)):
            raise UserError(
                f"{named[0].name} has names of classes and {each.name} has numbers; allowed: the "
                "same in label and prediction of all tables"
            )
    columns = [column.dropna() for each in read for column in _class_columns(each)]
    return tuple(sorted({str(name) for column in columns for name in column}))


def _class_columns(read: _Read) -> list[pd.Series]:
    """Returns labels and predictions as a file has them; those of runs are checked already."""
    if isinstance(read.table, Predictions):
        return [pd.Series(read.table.labels), pd.Series(read.table.predictions)]
    return [read.table[name] for name in ("label", "prediction") if name in read.table.columns]


def _is_text(column: pd.Series) -> bool:
    return pd.api.types.infer_dtype(column, skipna=True) == "string"


def _side(read: Sequence[_Read], classes: tuple[str, ...]) -> Side:
    tables = [_checked(each, classes) for each in read]
    first, *others = (each.attributes for each in read)
    attributes = tuple(name for name in first if all(name in other for other in others))
    return Side(_title([each.name for each in read]), tables, attributes, classes)


def _checked(read: _Read, classes: tuple[str, ...]) -> Predictions:
    """Returns the predictions with their classes as numbers."""
    table = read.table
    if classes and isinstance(table, pd.DataFrame):
        numbers = {name: number for number, name in enumerate(classes)}
        columns = {str(column.name): column.map(numbers) for column in _class_columns(read)}
        table = table.assign(**{name: column.astype("Int64") for name, column in columns.items()})
    try:
        return Predictions.of(table)
    except ValueError as error:
        raise UserError(f"{read.name}: {error}") from None


def _title(names: Sequence[str]) -> str:
    short = [name[:8] if _RUN_ID.fullmatch(name) else Path(name).name for name in names]
    return ", ".join(short) if len(short) <= 3 else f"{short[0]} and {len(short) - 1} more"


def _read(name: str) -> _Read:
    path = user_path("side", name)
    if path.suffix.lower() in _SUFFIXES:
        table = _read_file(path)
        return _Read(name, table, _groups_in(table))
    if _RUN_ID.fullmatch(name):
        # MLflow takes seconds to load; files need none of it.
        from kdplatform.experiments.stored_predictions import read_run

        test, measured = read_run(name)
        return _Read(name, test, measured)
    raise UserError(f"{name!r} is neither a run id nor a prediction file; allowed: {USAGE}")


def _read_file(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        # Only an empty cell is a missing value: a group may be called NA or None. In one piece,
        # since pandas would give each piece of a long column a type of its own.
        table = pd.read_csv(
            path, skipinitialspace=True, keep_default_na=False, na_values=[""], low_memory=False
        )
        names = pd.read_csv(
            path, skipinitialspace=True, header=None, nrows=1, dtype=str, keep_default_na=False
        ).iloc[0]
        if twice := names[names.duplicated()].tolist():
            raise UserError(f"{path} has column {twice[0]!r} twice; allowed: every column once")
    except FileNotFoundError:
        raise UserError(f"{path} is no file; allowed: {USAGE}") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as a prediction file ({reason})") from None
    if "logits" in table.columns:
        logits = [_logits(path, text) for text in table["logits"]]
        table["logits"] = pd.Series(logits, dtype=object)
    return table


def _logits(path: Path, text: object) -> np.ndarray:
    """Reads a cell such as `[0.5, -1.0]`."""
    try:
        return np.asarray(json.loads(str(text)), dtype=np.float32)
    except (ValueError, TypeError):
        raise UserError(
            f"{path}: logits {str(text)[:40]!r} are not a list of numbers; allowed: [0.5, -1.0]"
        ) from None


def _groups_in(table: pd.DataFrame) -> tuple[str, ...]:
    """Returns the columns of a file that look like attributes.

    They have few values, are no measurements and are not the label under another name.
    """
    found = []
    labels = table["label"].nunique() if "label" in table.columns else 0
    for name in table.columns:
        column = table[name]
        if name in RESERVED or pd.api.types.is_float_dtype(column.dtype):
            continue
        try:
            groups = column.nunique()
        except TypeError:  # lists and the like
            continue
        renamed = groups == labels and groups == len(table[["label", name]].drop_duplicates())
        if 2 <= groups <= _MOST_GROUPS and not renamed:
            found.append(str(name))
    return tuple(found)


def _attributes(given: tuple[str, ...] | None, first: Side, second: Side) -> tuple[str, ...]:
    """Returns the attributes asked for, or those that both sides have."""
    if given is None:
        return tuple(name for name in first.attributes if name in second.attributes)
    _check_columns("attributes", given, first, second)
    return given


def _intersections(
    given: tuple[str, ...] | None, attributes: tuple[str, ...]
) -> list[tuple[str, str]]:
    """Returns the pairs of attributes; none of many that were only found in a file."""
    if given is None and len(attributes) > _MOST_FOUND_ATTRIBUTES:
        return []
    return list(combinations(attributes, 2))


def _similar_by(given: tuple[str, ...] | None, first: Side, second: Side) -> tuple[str, ...]:
    """Returns the columns asked for, or the generating factors of a dataset that both sides have.

    Those are recognised by their names.
    """
    if given is not None:
        _check_columns("similar_by", given, first, second)
        return given
    tables = [*first.tables, *second.tables]
    for factors in GENERATING_FACTORS.values():
        if all(set(factors) <= set(table.columns) for table in tables):
            return factors
    return ()


def _check_columns(parameter: str, given: Sequence[str], first: Side, second: Side) -> None:
    for name in given:
        for side in (first, second):
            for table in side.tables:
                if name not in table.columns:
                    known = ", ".join(map(str, table.columns)) or "none"
                    raise UserError(
                        f"{parameter}={name!r} is not a column of {side.title}; known: {known}"
                    )
