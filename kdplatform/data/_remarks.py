"""What a dataset holds, in the few lines that a command says before it trains."""

from __future__ import annotations

from collections.abc import Sequence

from kdplatform.data._dataset import SEVERAL, Dataset

_MOST_NAMED = 5


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
    lines += [f"{attribute}, test: {_groups(dataset, attribute)}" for attribute in compared]
    if others := [name for name in dataset.attributes if name not in compared]:
        lines.append(f"attributes that are not compared: {_first(others)}")
    return [f"{dataset.name}: {line}" for line in lines]


def _first(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _groups(dataset: Dataset, attribute: str) -> str:
    """Returns the groups of the test split with their sizes, the largest first."""
    column = dataset.test.columns[attribute]
    groups = column.dropna().astype(str).str.split(SEVERAL, regex=False).explode()
    sizes = groups.value_counts().sort_index().sort_values(ascending=False, kind="stable")
    words = [f"{name} {count:,}" for name, count in sizes.items()]
    if outside := int(column.isna().sum()):
        words.append(f"in none {outside:,}")
    return _first(words)
