"""From labelled examples to a dataset: validation held out, classes checked, digest taken."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.data import Dataset, Inputs, Split, Vocabulary
from kdplatform.errors import UserError
from kdplatform.lazy import pandas as pd
from kdplatform.lazy import torch
from kdplatform.settings.schema import DatasetConfig

Rows = NDArray[np.int64]

HeldOutFraction = Annotated[
    float,
    Field(ge=0.01, le=0.5, description="share of every class's training images for validation"),
]
SplitSeed = Annotated[int, Field(ge=0, description="seed of the validation split")]

# Where data lie and how they are read changes no number: no part of the digest. What skip_bad
# leaves out follows from the files themselves. Hidden labels and a long tail make digests of their
# own.
_WITHOUT_EFFECT = {
    *("root", "file", "storage", "workers", "skip_bad"),
    *("unlabeled_fraction", "unlabeled_seed", "imbalance", "imbalance_seed"),
}


def fields_that_matter(config: DatasetConfig) -> dict[str, Any]:
    """Returns the fields that decide which examples a dataset's splits hold, as JSON values.

    Every dataset's digest takes the configuration from here: fields without effect on the examples
    are left out, and neutral ones at their default.
    """
    return {k: v for k, v in config.matters().items() if k not in _WITHOUT_EFFECT}


def numbered(
    inputs: Inputs,
    labels: Rows,
    columns: pd.DataFrame | None = None,
    names: NDArray[np.str_] | None = None,
) -> Split:
    """Returns examples whose ids count from 0; without columns when there are no attributes."""
    columns = pd.DataFrame(index=range(len(labels))) if columns is None else columns
    ids = np.arange(len(labels), dtype=np.int64)
    return Split(inputs, torch.from_numpy(labels), ids, columns, names)


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


def held_out_of_training(
    labels: Rows, test_count: int, fraction: float, seed: int
) -> dict[str, Rows]:
    """Returns the rows of all splits; training examples come first, then those to test.

    Labels are those of the training examples; for the others see `hold_out`.
    """
    train, val = hold_out(labels, fraction, seed)
    return {"train": train, "val": val, "test": np.arange(test_count) + len(labels)}


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
        found = f"only one class ({class_names[0]!r})" if class_names else "no class"
        raise UserError(f"{where} has {found}; allowed: at least two")
    for split, labels in splits.items():
        counts = np.bincount(labels, minlength=len(class_names))
        empty = [name for name, count in zip(class_names, counts, strict=True) if count < least]
        if empty:
            some = ", ".join(map(repr, empty[:3])) + (", ..." if len(empty) > 3 else "")
            raise UserError(
                f"{where}: {len(empty)} of {len(class_names)} classes have fewer than {least} "
                f"{split} examples ({some}); allowed: at least {least} of every class"
            )


def assembled(
    config: DatasetConfig,
    source_digest: str,
    examples: Split,
    rows: Mapping[str, Rows],
    *,
    class_names: Sequence[str],
    attributes: Sequence[str] = (),
    measured: int | None = None,
    vocabulary: Vocabulary | None = None,
    named_by: str = "id",
) -> Dataset:
    """Returns the dataset of the splits `train`, `val` and `test`.

    Its digest covers the configuration (not the place of the data), the data, and which example is
    in which split with which label.

    Args:
        source_digest: of everything that was read.
        rows: which of the examples, by split.
    """
    settings = [fields_that_matter(config), source_digest]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    splits = {name: examples.at(own) for name, own in rows.items()}
    for name, split in splits.items():
        for values in (split.ids, split.labels.numpy()):
            digest.update(name.encode() + values.astype("<i8").tobytes())
    return Dataset(
        name=config.name,
        digest=digest.hexdigest(),
        class_names=tuple(class_names),
        attributes=tuple(attributes),
        measured=measured,
        vocabulary=vocabulary,
        named_by=named_by,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
    )
