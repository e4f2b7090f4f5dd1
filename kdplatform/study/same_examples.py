"""Checks that both sides of a comparison have the same examples."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.predictions import Predictions
from kdplatform.study.sides import Side

_MOST_IDS = 3


def check_examples(a: Side, b: Side) -> None:
    """Checks that both sides hold the same examples, and logits of the same classes.

    Raises:
        ValueError: they do not; the message names the examples, or the numbers of classes.
    """
    first, every = a.tables[0], [*a.tables, *b.tables]
    classes = next((table.n_classes for table in every if table.logits is not None), None)
    for side in (a, b):
        for table in side.tables:
            if table.logits is not None and table.n_classes != classes:
                raise ValueError(
                    f"{side.title} has logits of {table.n_classes} classes, another table of "
                    f"{classes}; allowed: the same classes in all tables"
                )
            if table.digest != first.digest:
                raise ValueError(_different_examples(a.title, first, side.title, table))


def _different_examples(
    title: str, first: Predictions, other_title: str, other: Predictions
) -> str:
    """Says how the examples of two tables differ, and names a few of them."""
    digests = (
        f"{title} has digest {first.digest} ({len(first)} rows), {other_title} has {other.digest} "
        f"({len(other)} rows)"
    )
    differ = []
    for one, own, another in ((title, first, other), (other_title, other, first)):
        alone = own.ids[~np.isin(own.ids, another.ids)]
        if len(alone):
            where = "the other" if title == other_title else _not_in(one, title, other_title)
            differ.append(f"{len(alone)} ids of {one} are not in {where} ({_some(alone)})")
    if not differ:
        rows = pd.Index(other.ids).get_indexer(pd.Index(first.ids))
        apart = first.ids[other.labels[rows] != first.labels]
        differ.append(f"{len(apart)} ids have another label ({_some(apart)})")
    allowed = "allowed: the same ids and labels on both sides"
    return f"different examples: {digests}; {'; '.join(differ)}; {allowed}"


def _not_in(one: str, title: str, other_title: str) -> str:
    return other_title if one == title else title


def _some(ids: npt.NDArray[np.generic]) -> str:
    return f"such as {', '.join(map(str, ids[:_MOST_IDS]))}"


def with_ids_of_one_kind(a: Side, b: Side) -> tuple[Side, Side]:
    """Turns ids into text if one file has them as numbers and another as text."""
    kinds = {table.ids.dtype for side in (a, b) for table in side.tables}
    if len(kinds) == 1:
        return a, b

    def as_text(side: Side) -> Side:
        return replace(side, tables=[replace(t, ids=t.ids.astype(str)) for t in side.tables])

    return as_text(a), as_text(b)
