"""From labelled examples to a dataset: validation held out, classes checked, digest taken."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from kdplatform.data import Dataset, Inputs, Split, Vocabulary
from kdplatform.errors import UserError
from kdplatform.settings.schema import DatasetConfig

Rows = NDArray[np.int64]

# Where data lie and how they are read changes no number: no part of the digest. What skip_bad
# leaves out follows from the files themselves.
_WITHOUT_EFFECT = {"root", "file", "storage", "workers", "skip_bad"}

# Columns of prediction tables.
_TAKEN = ("id", "label", "prediction", "logits")


@dataclass(frozen=True)
class Examples:
    """What is known of some examples besides their inputs.

    Attributes:
        labels: int64 [N].
        ids: int64 [N], unique over the dataset.
        columns: N rows: attributes and whatever else is to stand beside a prediction.
    """

    labels: Rows
    ids: Rows
    columns: pd.DataFrame

    def at(self, rows: Rows) -> "Examples":
        """Returns the examples at these rows."""
        columns = self.columns.iloc[rows].reset_index(drop=True)
        return Examples(self.labels[rows], self.ids[rows], columns)

    def __len__(self) -> int:
        return len(self.labels)


def plain_examples(labels: Rows, first_id: int) -> Examples:
    """Returns examples without attributes, with ids that count on from `first_id`."""
    ids = np.arange(first_id, first_id + len(labels), dtype=np.int64)
    return Examples(labels.astype(np.int64), ids, pd.DataFrame(index=range(len(labels))))


def hold_out(labels: Rows, fraction: float, seed: int) -> tuple[Rows, Rows]:
    """Splits rows into those that stay and those held out; both in rising order.

    Every class gives its share, rounded, but at least one example and never its last.

    Args:
        labels: int64 [N].
        fraction: share to be held out.
        seed: chooses which of a class.
    """
    held: list[Rows] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        # A stream per class: another class's size changes nothing here.
        held.append(np.random.default_rng((seed, int(label))).permutation(rows)[:count])
    chosen = np.sort(np.concatenate(held)) if held else np.empty(0, dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(labels)), chosen)
    return rest.astype(np.int64), chosen.astype(np.int64)


def check_classes(
    splits: Mapping[str, Rows], class_names: Sequence[str], where: str, least: int = 1
) -> None:
    """Checks that every class can be trained and tested.

    Args:
        splits: labels by what the split is called in the message (`training`, `test`).
        where: the parameter that named the data, and its value.
        least: how many examples of every class a split must have.

    Raises:
        UserError: there is only one class, or one has no examples in a split; names them.
    """
    if len(class_names) < 2:
        found = f"only one ({class_names[0]!r})" if class_names else "none"
        raise UserError(f"{where} has {found} class; allowed: at least two")
    for split, labels in splits.items():
        counts = np.bincount(labels, minlength=len(class_names))
        empty = [name for name, count in zip(class_names, counts, strict=True) if count < least]
        if empty:
            some = ", ".join(map(repr, empty[:3])) + (", ..." if len(empty) > 3 else "")
            raise UserError(
                f"{where}: {len(empty)} of {len(class_names)} classes have fewer than {least} "
                f"{split} examples ({some}); allowed: at least {least} of every class"
            )


def check_attributes(examples: Examples, attributes: Sequence[str], where: str) -> None:
    """Checks that attributes say something else than the label.

    Raises:
        UserError: an attribute has one group only, its groups are the classes, or its name is taken
            by a column of prediction tables.
    """
    for attribute in attributes:
        if attribute in _TAKEN:
            raise UserError(
                f"{where}: attribute {attribute!r} has a name that predictions use for something "
                f"else; allowed: any but {', '.join(_TAKEN)}"
            )
        groups, names = pd.factorize(examples.columns[attribute])
        if len(names) < 2:
            raise UserError(
                f"{where}: attribute {attribute!r} has one group ({str(names[0])!r}); "
                "allowed: at least two"
            )
        pairs = pd.DataFrame({"group": groups, "label": examples.labels}).drop_duplicates()
        if len(pairs) == len(names) == len(np.unique(examples.labels)):
            raise UserError(
                f"{where}: attribute {attribute!r} is the label under another name; "
                "allowed: attributes whose groups hold several classes"
            )


def assembled(
    config: DatasetConfig,
    source_digest: str,
    splits: Mapping[str, tuple[Inputs, Examples]],
    *,
    class_names: Sequence[str],
    attributes: Sequence[str] = (),
    measured: int | None = None,
    vocabulary: Vocabulary | None = None,
) -> Dataset:
    """Returns the dataset of the splits `train`, `val` and `test`.

    Its digest covers the configuration (not where the data lie), what was read, and which example
    is in which split with which label.

    Args:
        source_digest: of everything that was read.
        measured: see `Dataset`.
        vocabulary: see `Dataset`.
    """
    settings = config.model_dump(mode="json", exclude=_WITHOUT_EFFECT)
    digest = hashlib.sha256(json.dumps([settings, source_digest], sort_keys=True).encode())
    made: dict[str, Split] = {}
    for name, (inputs, examples) in splits.items():
        for values in (examples.ids, examples.labels):
            digest.update(name.encode() + values.astype("<i8").tobytes())
        labels = torch.from_numpy(examples.labels)
        made[name] = Split(inputs, labels, examples.ids, examples.columns)
    return Dataset(
        name=config.name,
        digest=digest.hexdigest(),
        class_names=tuple(class_names),
        attributes=tuple(attributes),
        train=made["train"],
        val=made["val"],
        test=made["test"],
        measured=measured,
        vocabulary=vocabulary,
    )
