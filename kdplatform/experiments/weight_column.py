"""The column `weight` of a prediction file: how much each example counts in every rate."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from kdplatform.analysis.tables import Attribute, attribute_groups
from kdplatform.errors import UserError
from kdplatform.predictions import FloatArray, Predictions

WEIGHT = "weight"
_ALLOWED = "allowed: numbers >= 0, one per example"
_MOST_NAMED = 3


def with_weights(table: Predictions, name: str) -> Predictions:
    """Uses the column `weight` as the weights of the examples, if there is one.

    Args:
        name: name of the file, for error messages.

    Raises:
        UserError: a weight is missing, negative or not a number, or all weights are 0.
    """
    if WEIGHT not in table.columns:
        return table
    column = table.columns[WEIGHT]
    if column.isna().any():
        at = table.ids[int(np.flatnonzero(column.isna())[0])]
        raise UserError(f"{name}: column {WEIGHT!r} has no value at id {at}; {_ALLOWED}")
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    wrong = np.flatnonzero(~np.isfinite(numbers) | (numbers < 0))
    if len(wrong) or pd.api.types.is_bool_dtype(column.dtype):
        row = int(wrong[0]) if len(wrong) else 0
        raise UserError(
            f"{name}: column {WEIGHT!r} holds {str(column.iloc[row])[:40]!r} at id "
            f"{table.ids[row]}; {_ALLOWED}; a column that is no weight needs another name"
        )
    if not numbers.any():
        raise UserError(f"{name}: every weight is 0; allowed: some above 0")
    return replace(table, weights=numbers, columns=table.columns.drop(columns=WEIGHT))


def check_equal_weights(tables: Mapping[str, Predictions]) -> None:
    """Checks that an example has the same weight in all tables.

    Args:
        tables: the tables by their names for the user.

    Raises:
        UserError: only some tables have weights, or a weight differs.
    """
    weighted = [name for name, table in tables.items() if table.weights is not None]
    if not weighted:
        return
    for name, table in tables.items():
        if table.weights is None:
            raise UserError(
                f"{weighted[0]} has a column {WEIGHT!r} and {name} has none; allowed: the same "
                "weights in all tables, or none"
            )
    (first, reference), *others = ((name, _by_id(table)) for name, table in tables.items())
    for name, own in others:
        if set(own.index) != set(reference.index):
            continue  # other examples are refused when the tables are aligned
        # Text files may differ in the last digits of a number.
        apart = ~np.isclose(own.reindex(reference.index), reference, rtol=1e-9, atol=0)
        if apart.any():
            ids = ", ".join(map(str, reference.index[apart][:_MOST_NAMED]))
            raise UserError(
                f"{first} and {name} weigh {int(apart.sum())} examples differently, such as id "
                f"{ids}; allowed: one weight per example"
            )


def _by_id(table: Predictions) -> "pd.Series[float]":
    return pd.Series(table.weights, index=table.ids.astype(str), dtype=float)


def check_weighted_groups(table: Predictions, attributes: Iterable[Attribute]) -> None:
    """Checks that every group has an example with weight; intersections may have none.

    Raises:
        UserError: all examples of a group have weight 0.
    """
    if table.weights is None:
        return
    for attribute in attributes:
        if not isinstance(attribute, str):
            continue
        groups = attribute_groups(table, attribute)
        inside = groups.codes >= 0
        by_code = np.bincount(
            groups.codes[inside], table.weights[inside], minlength=len(groups.members)
        )
        for name, total in zip(groups.names, by_code @ groups.members, strict=True):
            if not total > 0:
                raise UserError(
                    f"every example of {groups.attribute} {name!r} has weight 0; allowed: a weight "
                    "above 0 in every group"
                )


def weight_note(weights: FloatArray) -> str:
    """Returns the note that examples are weighted, with the effective sample size.

    The effective sample size is that of Kish (1965): (sum of w)² / sum of w².
    """
    effective = float(weights.sum() ** 2 / (weights**2).sum())
    unweighted = int((weights == 0).sum())
    none = f"; {unweighted} have weight 0" if unweighted else ""
    return (
        f"Weighted by column {WEIGHT!r}: {len(weights)} examples are worth {effective:.0f} of "
        f"equal weight{none}. Rates, accuracies, scores and their intervals use the weights. n, "
        "McNemar's tests and their counts, I(f), consistency and warnings count examples."
    )
