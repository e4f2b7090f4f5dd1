"""Your own table: a CSV or Parquet file with one example per row.

Numbers are standardised and names become one column per category, both from the training split. A
missing number becomes the training mean, and a further column marks it. A missing name becomes the
category `missing`. A spelling of numbers is read if it fits a whole column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from kdplatform.columns import (
    MISSING,
    check_attribute_names,
    check_attributes,
    decides_label,
    is_index,
    is_label,
    spelled_once,
)
from kdplatform.data import Dataset
from kdplatform.data._numbers import Numbers, looks_like_a_date, read_numbers
from kdplatform.data._splits import Rows, assembled, check_classes, hold_out, numbered
from kdplatform.data._text_files import composed, read_csv, read_header
from kdplatform.errors import UserError, one_line, unknown_name
from kdplatform.files import file_digest, not_there, user_path
from kdplatform.lazy import pandas as pd
from kdplatform.lazy import torch
from kdplatform.progress import say
from kdplatform.settings.schema import NEUTRAL, DatasetConfig, Names, Optional
from kdplatform.settings.words import plain_text

# Cells that say nothing; an empty one is what all of them become.
MISSING_CELLS = ("", "?", "NA", "N/A", "NaN", "nan", "null", "NULL")
# Raised whenever equal files would give other features; part of the digest.
FEATURES_VERSION = 2
_MOST_CLASSES = 1000
_SEPARATORS = ("\t", ";", "|", ",")
# Formats that pandas reads and this module does not: read as text, such files would be other
# tables.
_OTHER_KINDS = frozenset(
    (
        *(".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".feather", ".arrow", ".orc"),
        *(".gz", ".bz2", ".xz", ".zst", ".zip", ".pkl", ".sav", ".dta"),
    )
)
# Of a list of columns in a remark, in characters.
_LONGEST_LIST = 80


def _separator(value: object) -> object:
    """Returns a tab for the two characters that a shell hands over."""
    return "\t" if value == r"\t" else value


class Config(DatasetConfig):
    """Which file, and what its columns are: the label, attributes, and otherwise features."""

    name: Literal["table"] = Field("table", description="dataset")
    file: str = Field(
        "", description="CSV file in UTF-8 with a line of column names, or Parquet file"
    )
    separator: Annotated[str, BeforeValidator(_separator)] = Field(
        ",",
        min_length=1,
        max_length=1,
        description="character between the cells of a CSV file; \\t: a tab",
    )
    label: str = Field("label", description="column to be predicted")
    attributes: Names = Field(
        (),
        description="sensitive columns; their groups are compared, unless the project's attributes "
        "names others",
    )
    attributes_as_features: bool = Field(False, description="let models see these columns too")
    categorical: Names = Field((), description="columns of numbers that are names, such as codes")
    leave_out: Names = Field((), description="columns to be ignored, such as row numbers")
    id: Annotated[str | None, Optional] = Field(
        None,
        description="column that names the rows in files of logits, and is no feature; none: row "
        "numbers",
        json_schema_extra=NEUTRAL,
    )
    most_categories: int = Field(
        100, ge=2, le=10_000, description="a column with more different names is refused"
    )
    val_fraction: float = Field(
        0.15, ge=0.01, le=0.5, description="share of every class's rows for validation"
    )
    test_fraction: float = Field(
        0.25, ge=0.01, le=0.5, description="share of every class's rows for the test"
    )
    seed: int = Field(0, ge=0, description="seed of the splits")


def check(config: Config) -> None:
    """Checks that the file is a table with the columns that are named, by its head alone.

    Raises:
        UserError: the file cannot be read, or a column does not exist; says which.
    """
    columns = _column_names(_path(config), config.separator)
    if config.label not in columns and len(columns) == 1:
        others = [s for s in _SEPARATORS if s != config.separator and s in columns[0]]
        hint = f", such as dataset.separator={others[0]!r}" if others else ""
        raise UserError(
            f"dataset.file={config.file!r} has one column ({columns[0]!r}) when split at "
            f"dataset.separator={config.separator!r}; allowed: another separator{hint}"
        )
    asked = {
        "label": (config.label,),
        "attributes": config.attributes,
        "categorical": config.categorical,
        "leave_out": config.leave_out,
        "id": () if config.id is None else (config.id,),
    }
    for parameter, names in asked.items():
        for name in names:
            if name not in columns:
                raise unknown_name(f"dataset.{parameter}", name, columns)
            if name == config.label and parameter != "label":
                raise UserError(
                    f"dataset.{parameter}={name!r} is not allowed; allowed: other columns than "
                    f"dataset.label={config.label!r}"
                )
    check_attribute_names(config.attributes, f"dataset.file={config.file!r}")
    _check_types(config)


def load(config: Config, folder: Path) -> Dataset:
    """Loads a table as float32 features [N, F]; ids are row numbers from 0.

    Nothing is kept in `folder`.

    Raises:
        UserError: the file cannot be read, a column does not exist or cannot be used, a class has
            too few rows; says which and what is allowed.
    """
    check(config)
    path = _path(config)
    table, readings = _without_index(config, _read(path, config.separator))
    for name in (config.label, *config.attributes):
        kind = "label" if name == config.label else "attribute"
        table[name], joined = spelled_once(table[name], f"table: {kind} {name!r}")
        readings += [f"{name}: {texts}" for texts in joined]
    where = f"dataset.file={config.file!r}"
    names = None if config.id is None else _names(table[config.id], config.id)
    labels, class_names = _labels(config, table, where)
    check_classes({"training, validation and test": labels}, class_names, where, least=3)
    attributes = _attributes(config, table)
    check_attributes(attributes, labels, config.attributes, where)
    rest, test = hold_out(labels, config.test_fraction, 2 * config.seed)
    kept, held = hold_out(
        labels[rest], config.val_fraction / (1 - config.test_fraction), 2 * config.seed + 1
    )
    rows = {"train": rest[kept], "val": rest[held], "test": test}
    check_classes({name: labels[own] for name, own in rows.items()}, class_names, where)
    features, others = _features(config, table, labels, rows["train"], where)
    # A file whose cells are read as written keeps its usual digest.
    digest = "/".join([file_digest(path), str(FEATURES_VERSION), *readings, *others])
    say(
        f"table: validation and test are held out of all rows: {config.val_fraction:g} and "
        f"{config.test_fraction:g} of every class"
    )
    dataset = assembled(
        config,
        digest,
        numbered(torch.from_numpy(features), labels, attributes, names),
        rows,
        class_names=class_names,
        attributes=config.attributes,
        named_by=config.id or "id",
    )
    return replace(dataset, cells=table.iloc[rows["test"]].drop(columns=config.label))


def _names(cells: pd.Series, column: str) -> NDArray[np.str_]:
    """Returns what names the rows.

    Raises:
        UserError: a row has no name, or another's.
    """
    for what, wrong in (("no name", cells == ""), ("the name of another", cells.duplicated())):
        if wrong.any():
            row = int(wrong.to_numpy().argmax()) + 1
            raise UserError(
                f"dataset.id={column!r}: row {row} has {what}, one of {int(wrong.sum())} such rows;"
                " allowed: a column that names every row once"
            )
    return cells.to_numpy().astype(str)


def _path(config: Config) -> Path:
    if not config.file:
        raise UserError("dataset.file is not given; allowed: the path of a CSV or Parquet file")
    path = user_path("dataset.file", config.file)
    if not path.is_file():
        raise not_there("dataset.file", config.file, path, "a CSV or Parquet file")
    if path.suffix.lower() in _OTHER_KINDS:
        raise UserError(
            f"dataset.file={config.file!r} is of kind {path.suffix}; allowed: a CSV file in UTF-8 "
            "or a Parquet file (.parquet), as pandas writes them"
        )
    return path


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in {".parquet", ".pq"}


@contextmanager
def _parquet_errors(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"dataset.file={str(path)!r} cannot be read as Parquet ({one_line(error)})"
        ) from None


def _column_names(path: Path, separator: str) -> list[str]:
    if not _is_parquet(path):
        return read_header(path, separator)
    import pyarrow.parquet

    with _parquet_errors(path), pyarrow.parquet.ParquetFile(path) as file:
        names, rows = file.schema_arrow.names, file.metadata.num_rows
    if not rows:
        raise UserError(f"dataset.file={str(path)!r} has no rows")
    # pandas writes an index without a name as a column without a name.
    return [composed(n) for n in names if not re.fullmatch(r"__index_level_\d+__", n)]


def _check_types(config: Config) -> None:
    """Raises a UserError where a column of a Parquet file is neither numbers, texts nor dates."""
    path = _path(config)
    if not _is_parquet(path):
        return
    import pyarrow.parquet

    with _parquet_errors(path):
        schema = pyarrow.parquet.read_schema(path)
    kinds = pyarrow.types
    odd = (kinds.is_nested, kinds.is_binary, kinds.is_large_binary, kinds.is_duration)
    for column in schema:
        if column.name not in (*config.leave_out, config.id) and any(
            kind(column.type) for kind in odd
        ):
            raise UserError(
                f"dataset.file={config.file!r}: column {column.name!r} is of type {column.type}; "
                "allowed: numbers, texts, truth values, dates, or its name in dataset.leave_out"
            )


def _read(path: Path, separator: str) -> pd.DataFrame:
    """Reads all cells as texts; missing ones are empty."""
    if _is_parquet(path):
        with _parquet_errors(path):
            typed = pd.read_parquet(path)
        # pandas makes an index of columns that were one when the file was written.
        named = [level for level, name in enumerate(typed.index.names) if name is not None]
        typed = typed.reset_index(level=named) if named else typed
        texts = {composed(str(name)): typed[name].astype(object) for name in typed}
        table = pd.DataFrame(
            {
                name: [
                    composed(text.strip()) for text in cells.where(cells.notna(), "").astype(str)
                ]
                for name, cells in texts.items()
            },
            dtype=str,
        )
    else:
        table = read_csv(path, separator)
    return table.mask(table.isin(MISSING_CELLS), "")


def _without_index(config: Config, table: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Leaves out the indexes that pandas wrote, unless the configuration names them."""
    named = {config.label, *config.attributes, *config.categorical, *config.leave_out, config.id}
    names = [str(name) for name in table if name not in named]
    found = [name for name in names if is_index(name, table[name])]
    if found:
        say(f"table: left out, an index as pandas writes it: {', '.join(found)}")
    return table.drop(columns=found), [f"index {name}" for name in found]


def _labels(config: Config, table: pd.DataFrame, where: str) -> tuple[Rows, list[str]]:
    """Returns the labels and the classes' names: in the order of numbers, or of the alphabet."""
    cells = table[config.label]
    if empty := int((cells == "").sum()):
        first = int((cells == "").to_numpy().argmax()) + 1
        raise UserError(
            f"{where}: label {config.label!r} is missing in {empty} rows, the first of them row "
            f"{first}; allowed: rows with a label"
        )
    names = sorted(set(cells))
    if len(names) > _MOST_CLASSES:
        raise UserError(
            f"{where}: label {config.label!r} has {len(names)} different values; allowed: at most "
            f"{_MOST_CLASSES} classes"
        )
    numbers = pd.to_numeric(pd.Series(names), errors="coerce")
    if numbers.notna().all():
        names = [names[row] for row in np.argsort(numbers.to_numpy(), kind="stable")]
    number = {name: label for label, name in enumerate(names)}
    return cells.map(number).to_numpy().astype(np.int64), names


def _attributes(config: Config, table: pd.DataFrame) -> pd.DataFrame:
    """Returns the groups of every row; an empty cell is the group `missing`."""
    chosen = table[list(config.attributes)]
    for name in config.attributes:
        groups = chosen[name].nunique()
        if groups > config.most_categories:
            raise UserError(
                f"dataset.attributes: column {name!r} has {groups} groups; allowed: at most "
                f"dataset.most_categories={config.most_categories}: put numbers into ranges "
                "first"
            )
        if empty := int((chosen[name] == "").sum()):
            say(f"table: {name} is missing in {empty} rows: group 'missing'")
    return chosen.replace("", MISSING)


@dataclass(frozen=True)
class _Columns:
    """The features that one column becomes.

    Attributes:
        values: float32 [N, number of features], perhaps none.
        readings: the columns read from another spelling; part of the digest.
        decides: whether the column alone decides the label.
    """

    kind: Literal["numeric", "categorical", "nothing"]
    values: NDArray[np.float32]
    readings: Sequence[str] = ()
    decides: bool = False


def _features(
    config: Config, table: pd.DataFrame, labels: Rows, train: Rows, where: str
) -> tuple[NDArray[np.float32], list[str]]:
    """Returns the features of all rows, and what was read in another spelling than its own."""
    ignored = {config.label, *config.leave_out, config.id}
    if not config.attributes_as_features:
        ignored |= set(config.attributes)
    names = [str(name) for name in table.columns if name not in ignored]
    columns = {name: _column(config, table[name], labels, train, where) for name in names}
    missing = {name: int((table[name] == "").sum()) for name in names}
    if any(missing.values()):
        counts = ", ".join(f"{name} {count}" for name, count in missing.items() if count)
        say(
            f"table: missing cells: {counts}; a missing number becomes the training mean, and a "
            "further column marks it; a missing name becomes the category 'missing'"
        )
    if useless := [name for name, column in columns.items() if column.kind == "nothing"]:
        say(f"table: left out, equal in all training rows: {', '.join(useless)}")
    if len(useless) == len(columns):
        raise UserError(f"{where} has no column that models could learn from")
    features = np.concatenate([column.values for column in columns.values()], axis=1)
    used = [name for name, column in columns.items() if column.kind != "nothing"]
    kinds = [columns[name].kind for name in used]
    say(
        f"table: {kinds.count('numeric')} numeric and {kinds.count('categorical')} categorical "
        f"columns make {features.shape[1]} features: {_listed(used)}"
    )
    numeric = [name for name in used if columns[name].kind == "numeric"]
    _say_doubts(config, "counts the rows", [n for n in numeric if _counts_rows(table[n])])
    _say_doubts(
        config, "looks like dates in digits", [n for n in numeric if _is_date_in_digits(table[n])]
    )
    _say_doubts(
        config, "alone decides the label of every row", [n for n in used if columns[n].decides]
    )
    return features, [reading for column in columns.values() for reading in column.readings]


def _say_doubts(config: Config, doubt: str, names: list[str]) -> None:
    """Says which features may be none, and what leaves them out."""
    if names:
        say(
            f"table: {_listed(names)} {doubt} and is a feature; "
            f"dataset.leave_out={plain_text([*config.leave_out, *names])} leaves it out"
        )


def _listed(names: list[str]) -> str:
    """Returns as many names as fit a line, and how many more there are."""
    fitting = len(names)
    while fitting > 1 and len(", ".join(names[:fitting])) > _LONGEST_LIST:
        fitting -= 1
    rest = len(names) - fitting
    return ", ".join(names[:fitting]) + (f" and {rest} more" if rest else "")


def _counts_rows(cells: pd.Series[str]) -> bool:
    """Tells whether the cells are consecutive whole numbers, in any order."""
    numbers = np.sort(pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64))
    return numbers[0].is_integer() and np.array_equal(numbers, numbers[0] + np.arange(len(numbers)))


def _is_date_in_digits(cells: pd.Series[str]) -> bool:
    """Tells whether all cells are dates such as 20210304, or months such as 202103."""
    present = cells[cells != ""]
    return any(
        present.str.fullmatch(r"(19|20)\d{2}(0[1-9]|1[0-2])" + day).all()
        for day in ("", r"([0-2]\d|3[01])")
    )


def _column(
    config: Config, cells: pd.Series[str], labels: Rows, train: Rows, where: str
) -> _Columns:
    name = str(cells.name)
    present = (cells != "").to_numpy()
    numbers = read_numbers(cells)
    values: pd.Series
    if name in config.categorical or 2 * numbers.alike.sum() < present.sum():
        values, joined = spelled_once(cells, f"table: column {name!r}")
        column = _categories(config, values, train, where)
        readings = [f"{name}: {texts}" for texts in joined]
    else:
        _check_numbers(cells, numbers, present, where)
        column = _standardised(numbers.values, present, train)
        _check_bounds(column, cells, where)
        readings = _stated(cells, numbers)
        values = pd.Series(np.where(present, numbers.values, np.nan))
    if column.kind != "nothing" and is_label(values, labels):
        raise UserError(
            f"{where}: column {name!r} is the label under another name; allowed: features that do "
            f"not give the answer; dataset.leave_out={plain_text([*config.leave_out, name])} leaves"
            " it out"
        )
    return replace(column, readings=readings, decides=decides_label(values, labels))


def _check_numbers(
    cells: pd.Series[str], numbers: Numbers, present: NDArray[np.bool_], where: str
) -> None:
    """Raises a UserError where a column of numbers or dates has cells in another spelling."""
    name, odd = str(cells.name), np.flatnonzero(present & ~np.isfinite(numbers.values))
    if not len(odd):
        return
    first, row = cells.iloc[odd[0]], odd[0] + 1
    if looks_like_a_date(first) and len(odd) == present.sum():
        raise UserError(
            f"{where}: column {name!r} has dates or times such as {first!r} (row {row}), which are "
            "no categories, and whose parts have no known order; allowed: dates as 2021-03-04, "
            "numbers, or its name in dataset.categorical or dataset.leave_out"
        )
    spelled = f" spelled as {cells[np.isfinite(numbers.values)].iloc[0]!r}" if numbers.rule else ""
    raise UserError(
        f"{where}: column {name!r} has numbers{spelled} and, in {len(odd)} rows, other cells, the "
        f"first of them {first!r} in row {row}; allowed: finite numbers in one spelling (missing: "
        f"{', '.join(filter(None, MISSING_CELLS))} or nothing), or its name in dataset.categorical"
    )


def _stated(cells: pd.Series[str], numbers: Numbers) -> list[str]:
    """Says how a spelling was read, with the longest cell; nothing for plain numbers."""
    if not numbers.rule:
        return []
    row = int(cells.str.len().to_numpy().argmax())
    unit = " days since 1970" if numbers.rule == "date" else ""
    say(f"table: {cells.name}: {cells.iloc[row]!r} is read as {numbers.values[row]:.12g}{unit}")
    return [f"{cells.name}: {numbers.rule}"]


def _check_bounds(column: _Columns, cells: pd.Series[str], where: str) -> None:
    unbounded = np.flatnonzero(~np.isfinite(column.values).all(axis=1))
    if len(unbounded):
        raise UserError(
            f"{where}: column {str(cells.name)!r} has {cells.iloc[unbounded[0]]!r} in row "
            f"{unbounded[0] + 1}, too far from the training rows for float32; allowed: numbers "
            "whose distance from the training mean is below 3e38 standard deviations"
        )


def _standardised(
    numbers: NDArray[np.float64], present: NDArray[np.bool_], train: Rows
) -> _Columns:
    """Returns numbers as standard deviations from their mean; infinite where float32 ends."""
    seen = numbers[train][present[train]]
    values = []
    with np.errstate(over="ignore"):
        if len(seen) and seen.min() < seen.max():
            # Squares must not overflow. A power of two moves no digit.
            _, exponent = np.frexp(np.abs(seen).max())
            seen = np.ldexp(seen, -exponent)
            filled = np.where(present, np.ldexp(numbers, -exponent), seen.mean())
            values.append((filled - seen.mean()) / seen.std())
        if 0 < len(seen) < len(train):
            values.append(~present)
        if not values:
            return _Columns("nothing", np.empty((len(numbers), 0), dtype=np.float32))
        return _Columns("numeric", np.stack(values, axis=1).astype(np.float32))


def _categories(config: Config, cells: pd.Series[str], train: Rows, where: str) -> _Columns:
    """Returns one column of 0 and 1 per category of the training rows; all 0 for any other."""
    texts = cells.to_numpy(dtype=object)
    known = sorted(set(texts[train]))
    if len(known) > config.most_categories:
        raise UserError(
            f"{where}: column {str(cells.name)!r} has {len(known)} different names in training; "
            f"allowed: at most dataset.most_categories={config.most_categories}, or its name in "
            "dataset.leave_out"
        )
    if len(known) < 2:
        return _Columns("nothing", np.empty((len(texts), 0), dtype=np.float32))
    values = np.stack([texts == name for name in known], axis=1)
    return _Columns("categorical", values.astype(np.float32))
