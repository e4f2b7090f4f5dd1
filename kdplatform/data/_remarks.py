"""What a dataset holds, in the few lines that a command says before it trains."""

from __future__ import annotations

from collections.abc import Sequence

from kdplatform.data._dataset import SEVERAL, Dataset
from kdplatform.lazy import pandas as pd

_MOST_NAMED = 5
# Of how many times the examples of the rarest class the most frequent one is said to be larger.
_UNEQUAL = 2


def remarks(dataset: Dataset, compared: Sequence[str]) -> list[str]:
    """Says the sizes of the splits, the classes, and the groups that are compared, one a line.

    Args:
        compared: the attributes whose groups the command compares.
    """
    sizes = [f"{name} {len(split):,}" for name, split in dataset.splits().items()]
    if dataset.unlabeled is not None:
        sizes.append(f"without labels {len(dataset.unlabeled):,}")
    names = dataset.class_names
    lines = [f"{', '.join(sizes)} examples; {len(names)} classes: {_first(names)}"]
    counts = dataset.train.labels.bincount(minlength=len(names))
    if counts.max() >= _UNEQUAL * counts.min():
        lines.append(f"training examples of a class: {counts.min():,} to {counts.max():,}")
    for attribute in compared:
        lines.append(f"{attribute}, test: {_groups(dataset, attribute)}")
        if lacking := _lacking(dataset, attribute):
            lines.append(
                f"{attribute}: test has no {_first(lacking)}: a group without positives has no "
                "TPR, and an EOD needs two groups that have one"
            )
    if others := [name for name in dataset.attributes if name not in compared]:
        how = "" if compared else f"; --attributes {others[0]} compares its groups"
        lines.append(f"attributes that are not compared: {_first(others)}{how}")
    return [f"{dataset.name}: {line}" for line in lines]


def _lacking(dataset: Dataset, attribute: str) -> list[str]:
    """Returns which groups of the test split lack which class; of two classes, the positive one."""
    names = dataset.class_names
    groups = _memberships(dataset, attribute)
    labels = dataset.test.labels.numpy()[groups.index.to_numpy()]
    first = 1 if len(names) == 2 else 0
    return [
        f"{group!r} in class {name!r}"
        for group in sorted(groups.unique())
        for number, name in enumerate(names[first:], start=first)
        if not (labels[(groups == group).to_numpy()] == number).any()
    ]


def _memberships(dataset: Dataset, attribute: str) -> pd.Series:
    """Returns the group of every test example, by its row; one in several has several lines."""
    column = dataset.test.columns[attribute].reset_index(drop=True).dropna().astype(str)
    return column.str.split(SEVERAL, regex=False).explode()


def _first(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _groups(dataset: Dataset, attribute: str) -> str:
    """Returns the groups of the test split with their sizes, the largest first."""
    sizes = _memberships(dataset, attribute).value_counts().sort_index()
    sizes = sizes.sort_values(ascending=False, kind="stable")
    words = [f"{name} {count:,}" for name, count in sizes.items()]
    if outside := int(dataset.test.columns[attribute].isna().sum()):
        words.append(f"in no group {outside:,}")
    return _first(words)
