"""Checks of a user's columns: labels, attributes and features, whatever their source.

Loaders and the comparison of prediction files share these checks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import ArrayLike

from kdplatform.errors import UserError
from kdplatform.lazy import pandas as pd
from kdplatform.progress import say

# Columns of the prediction tables, in the order of the file. No attribute may have these names.
RESERVED = ("id", "label", "prediction", "logits")
# The group and the category of an empty cell.
MISSING = "missing"

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_TRUTH = {"true": True, "false": False, "1": True, "0": False}
# pandas' name for a column without one, such as the index that `to_csv` writes.
_UNNAMED = re.compile(r"Unnamed: \d+(\.\d+)*")
_SEPARATORS = re.compile(r"(?<=\w)[\s_-]+(?=\w)")
_MOST_SHOWN = 3


# ---- attributes and features against the label


def check_attribute_names(attributes: Sequence[str], where: str) -> None:
    """Checks that prediction tables can have columns of these names.

    Raises:
        UserError: a name is taken by another column.
    """
    if taken := [attribute for attribute in attributes if attribute in RESERVED]:
        raise UserError(
            f"{where}: attribute {taken[0]!r} has a name that predictions use for something else; "
            f"allowed: any but {', '.join(RESERVED)}"
        )


def check_attributes(
    columns: pd.DataFrame, labels: ArrayLike, attributes: Sequence[str], where: str
) -> None:
    """Checks that attributes differ from the label.

    Raises:
        UserError: an attribute has only one group, or its groups are the classes.
    """
    for attribute in attributes:
        if fault := fault_of(columns[attribute], labels):
            raise UserError(f"{where}: attribute {attribute!r} {fault}")


def fault_of(groups: pd.Series, labels: ArrayLike) -> str:
    """Says why groups cannot be compared, and what is allowed; nothing if they can."""
    names = groups.dropna().unique()
    if len(names) < 2:
        found = f"one group ({str(names[0])!r})" if len(names) else "no group"
        return f"has {found}; allowed: at least two"
    if is_label(groups, labels):
        return (
            "is the label under another name; allowed: attributes whose groups hold several classes"
        )
    return ""


def usable_attributes(
    columns: pd.DataFrame, labels: ArrayLike, attributes: Sequence[str], dataset: str
) -> list[str]:
    """Returns the attributes of a published dataset that can be compared, and explains the others.

    The others are not refused, because the user may not have asked for them.
    """
    faults = {name: fault_of(columns[name], labels) for name in attributes}
    for fault in dict.fromkeys(filter(None, faults.values())):
        own = [name for name in attributes if faults[name] == fault]
        reason, _, _ = fault.partition(";")
        say(f"{dataset}: left out: {', '.join(own)}, which {reason}")
    return [name for name in attributes if not faults[name]]


def is_label(column: pd.Series, labels: ArrayLike) -> bool:
    """Returns whether a column is the label under another name: one value for one class.

    Missing values, and values called `missing`, are ignored if they are less than half.
    """
    present = (column.notna() & ~column.isin(["", MISSING])).to_numpy()
    if 2 * present.sum() <= len(column):
        return False
    values, names = pd.factorize(column[present])
    classes = np.asarray(labels)
    pairs = pd.DataFrame({"value": values, "label": classes[present]}).drop_duplicates()
    return len(pairs) == len(names) == len(np.unique(classes)) > 1


def decides_label(column: pd.Series, labels: ArrayLike) -> bool:
    """Returns whether a column alone determines the class of every row.

    That is so if each value has one class, with at least ten rows per value, or if each class has
    its own range of numbers.
    """
    classes = pd.Series(np.asarray(labels))
    values = column.reset_index(drop=True)
    if 10 * values.nunique() <= len(values):
        return bool((classes.groupby(values, dropna=False).nunique() == 1).all())
    if not pd.api.types.is_numeric_dtype(values) or values.isna().any():
        return False
    ranges = values.groupby(classes).agg(["min", "max"]).sort_values("min").to_numpy()
    return bool((ranges[:-1, 1] < ranges[1:, 0]).all())


# ---- one spelling per meaning


def is_index(name: str, cells: pd.Series[str]) -> bool:
    """Returns whether a column is an index written by pandas: no name, whole numbers."""
    return _UNNAMED.fullmatch(name) is not None and bool(cells.str.fullmatch(r"\d+(\.0)?").all())


def one_spelling(cells: pd.Series[str]) -> tuple[pd.Series[str], list[list[str]]]:
    """Returns texts with one spelling per meaning, and the spellings that were joined.

    In a column of numbers, equal numbers are joined (`0` and `0.0`). In a column of truth values,
    equal ones are joined (`True`, `true` and, beside such words, `1`). Nothing else is joined.
    """
    spellings = sorted(set(cells) - {"", MISSING}, key=lambda text: (len(text), text))
    meanings: dict[object, list[str]] = {}
    if all(_NUMBER.fullmatch(text) for text in spellings):
        for text in spellings:
            meanings.setdefault(Decimal(text), []).append(text)
    elif all(text.lower() in _TRUTH for text in spellings):
        values = {text: _TRUTH[text.lower()] for text in spellings}
        if len(spellings) > len(set(values.values())):
            meanings = {value: [str(value)] for value in values.values()}
        for text, value in values.items():
            if text != str(value):
                meanings.setdefault(value, []).append(text)
    joined = [texts for texts in meanings.values() if len(texts) > 1]
    return cells.replace({text: first for first, *rest in joined for text in rest}), joined


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Returns names that differ only in case, spaces, a full stop or their Unicode form."""
    alike: dict[object, list[str]] = {}
    for name in sorted(set(names)):
        alike.setdefault(_folded(name), []).append(name)
    return [found for found in alike.values() if len(found) > 1]


def _folded(name: str) -> object:
    if _NUMBER.fullmatch(name):
        return Decimal(name)
    text = unicodedata.normalize("NFKC", name).casefold().strip(" \t.,;:")
    return _SEPARATORS.sub(" ", text)


def spelled_once(cells: pd.Series[str], what: str) -> tuple[pd.Series[str], list[list[str]]]:
    """Returns the result of `one_spelling`, and reports joined values and names that look alike.

    Args:
        what: the column, as the remark names it.
    """
    cells, joined = one_spelling(cells)
    if joined:
        say(f"{what}: {_shown(joined, ' = ')} are read as one value")
    say_look_alikes(cells.unique(), what)
    return cells, joined


def say_look_alikes(names: Iterable[str], what: str) -> None:
    """Reports names that may be spellings of one name. They stay separate."""
    if alike := look_alikes(names):
        say(
            f"{what}: {_shown(alike, ' and ')} look alike and stay separate; one spelling would "
            "join them"
        )


def _shown(found: Sequence[Sequence[str]], between: str) -> str:
    shown = ", ".join(between.join(map(repr, names)) for names in found[:_MOST_SHOWN])
    rest = len(found) - _MOST_SHOWN
    return shown + (f" and {rest} more" if rest > 0 else "")
