"""Reading of prediction files: CSV or Parquet, from anywhere."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from kdplatform.data._text_files import read_csv
from kdplatform.errors import UserError, one_line
from kdplatform.predictions import parsed_logits

USAGE = "two sides, each run ids or prediction files (.parquet, .csv), comma-separated"
SUFFIXES = (".parquet", ".csv")
# Up to this number float64 represents every whole number.
_LONGEST_WHOLE = 2**53


def read_prediction_file(path: Path) -> pd.DataFrame:
    """Reads a prediction file as a table whose columns have types and no outer blanks.

    Raises:
        UserError: the file does not exist, or is not a table.
    """
    if not path.is_file():
        raise UserError(f"{path} is no file; allowed: {USAGE}")
    if path.suffix.lower() == ".csv":
        cells = read_csv(path)
        table = pd.DataFrame({name: _typed(cells[name]) for name in cells})
        if "logits" in table.columns:
            try:
                table["logits"] = parsed_logits(cells["logits"])
            except ValueError as error:
                raise UserError(f"{path}: {error}") from None
        _check_several_columns(table, path)
        return table
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} cannot be read as a prediction file ({one_line(error)})") from None
    _check_several_columns(table, path)
    return tidied_table(table, str(path))


def tidied_table(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns a table in the form of a prediction file: no outer blanks, ids as a column.

    Args:
        name: name of the table, for error messages.

    Raises:
        UserError: two columns have one name.
    """
    if any(table.index.names):  # pandas keeps such an index beside the columns
        index = table.index.to_frame(index=False)
        table = pd.concat([index, table.reset_index(drop=True)], axis=1)
    columns = [str(column).strip() for column in table]
    if twice := [column for column in columns if columns.count(column) > 1]:
        raise UserError(f"{name} has column {twice[0]!r} twice; allowed: every column once")
    tidied = pd.DataFrame({str(each).strip(): _tidied(table[each]) for each in table})
    for column in ("label", "prediction"):
        if column in tidied and pd.api.types.is_bool_dtype(tidied[column].dtype):
            tidied[column] = tidied[column].astype(str)  # as in CSV: the names True and False
    return tidied.reset_index(drop=True)


def _check_several_columns(table: pd.DataFrame, path: Path) -> None:
    if len(table.columns) + sum(name is not None for name in table.index.names) < 2:
        found = ", ".join(repr(str(name)[:60]) for name in table.columns) or "none"
        raise UserError(
            f"{path} has one column ({found}); allowed: id, label and prediction at least, with "
            "commas between them"
        )


def check_classes(table: pd.DataFrame, name: str) -> None:
    """Refuses labels and predictions that are measurements.

    Raises:
        UserError: a label or prediction is a fraction.
    """
    for column in ("label", "prediction"):
        values = table.get(column)
        if values is None or not pd.api.types.is_float_dtype(values.dtype):
            continue
        fractions = values[values.notna() & (values != values.round())]
        if len(fractions):
            raise UserError(
                f"{name}: column {column!r} holds {fractions.iloc[0]:g}: scores of a regression "
                "are not compared; allowed: classes, as names or as integers from 0"
            )


def _typed(cells: pd.Series) -> pd.Series:
    """Returns a column of texts as numbers if all cells are numbers; empty cells are missing."""
    present = cells.where(cells != "")
    numbers = pd.to_numeric(present, errors="coerce")
    # Long numbers are treated as names, because float64 would round them.
    text = numbers.isna().sum() > present.isna().sum() or (
        pd.api.types.is_float_dtype(numbers.dtype) and (numbers.abs() > _LONGEST_WHOLE).any()
    )
    return _tidied(present if text else numbers)


def _tidied(column: pd.Series) -> pd.Series:
    """Returns a column without outer blanks; whole numbers with missing values stay whole.

    pandas stores whole numbers as fractions if a value is missing.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)
    if is_text(column):
        stripped = column.str.strip()
        return stripped.where(stripped != "")
    if pd.api.types.is_float_dtype(column.dtype):
        known = column.dropna()
        if (known.abs() <= _LONGEST_WHOLE).all() and (known == known.round()).all():
            return column.astype("Int64" if len(known) < len(column) else "int64")
    return column


def is_text(column: pd.Series) -> bool:
    """Returns whether a column contains only texts and missing values."""
    return pd.api.types.infer_dtype(column, skipna=True) == "string"
