"""Text files that come with a dataset, with errors that say where the problem is."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from kdplatform.errors import UserError
from kdplatform.lazy import pandas as pd


def read_text(path: Path, encoding: str = "utf-8-sig") -> str:
    """Reads a file in UTF-8, without its byte order mark.

    Args:
        encoding: another that the file is published in, such as latin-1.

    Raises:
        UserError: the file is missing, cannot be read, or has another encoding; says where.
    """
    try:
        return path.read_text(encoding=encoding)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{str(path)!r}, line {line}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
            "allowed: text saved as UTF-8"
        ) from None
    except FileNotFoundError:
        raise UserError(f"{str(path)!r} is missing") from None
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read ({error.strerror})") from None


def read_lines(path: Path) -> list[str]:
    """Reads the lines of a file, without white space at their ends; see `read_text`."""
    return [line.rstrip() for line in read_text(path).splitlines()]


def read_csv(path: Path, separator: str = ",") -> pd.DataFrame:
    """Reads a table whose first line names its columns; all cells are texts without outer spaces.

    A first column without a name, such as the index that pandas writes, is `Unnamed: 0`. Letters
    with accents have one code in names and cells, however the file composes them.

    Raises:
        UserError: as `read_text`; a line has more or fewer cells than there are columns, another
            column has no name or another's, or there is no line of data; says which.
    """
    names, *rows = _lines_of_cells(path, io.StringIO(read_text(path)), separator)
    return pd.DataFrame(rows, columns=names, dtype=str)


def read_header(path: Path, separator: str = ",") -> list[str]:
    """Reads the names of a table's columns, from its first lines alone; see `read_csv`."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            lines = _lines_of_cells(path, file, separator)
            names, _ = next(lines), next(lines)
            return names
    except (UnicodeDecodeError, OSError):
        read_text(path)  # which says what is wrong, and where
        raise


def composed(text: str) -> str:
    """Returns a text in which every letter has one code: Unicode's NFC."""
    return unicodedata.normalize("NFC", text)


def _lines_of_cells(path: Path, file: Iterable[str], separator: str) -> Iterator[list[str]]:
    """Yields the names of the columns, then the cells of every line that is not empty."""
    # Behind a comma and a blank a quote is a quote all the same.
    blanks = separator != " "
    reader = csv.reader(file, delimiter=separator, strict=True, skipinitialspace=blanks)
    try:
        names = [composed(name.strip()) for name in next(reader, [])]
        if len(names) > 1 and not names[0]:
            names[0] = "Unnamed: 0"
        yield _checked_names(path, names)
        count = 0
        for row in filter(None, reader):
            if len(row) != len(names):
                other = f", or another separator than {separator!r}" if len(names) == 1 else ""
                raise UserError(
                    f"{str(path)!r}, line {reader.line_num}: {len(row)} cells; allowed: "
                    f"{len(names)}, one per column{other}"
                )
            yield [composed(cell.strip()) for cell in row]
            count += 1
    except csv.Error as error:
        raise UserError(f"{str(path)!r}, line {reader.line_num}: no valid CSV ({error})") from None
    if not count:
        raise UserError(f"{str(path)!r} has no lines of data below its first")


def _checked_names(path: Path, names: list[str]) -> list[str]:
    if all(names) and len(set(names)) == len(names):
        return names
    twice = [name for name in names if names.count(name) > 1]
    problem = f"column {twice[0]!r} twice" if any(twice) else "a column without a name"
    raise UserError(f"{str(path)!r} has {problem}; allowed: a first line of different names")
