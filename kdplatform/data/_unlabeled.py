"""Training examples whose labels are hidden, for methods that learn from unlabeled batches."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from kdplatform.data._dataset import Dataset
from kdplatform.errors import UserError
from kdplatform.lazy import torch


def with_hidden_labels(dataset: Dataset, fraction: float, seed: int) -> Dataset:
    """Returns the dataset with the labels of a share of its training split hidden.

    The hidden examples leave `train` and become `unlabeled`, in the order they had. Of their
    columns only the attributes stay, because others may tell the label.

    Args:
        fraction: above 0, below 1; at least one example is hidden.
        seed: chooses which.

    Raises:
        UserError: a class would keep no labelled example; names it.
    """
    count = len(dataset.train)
    order = np.random.default_rng(seed).permutation(count)
    hidden = np.zeros(count, dtype=bool)
    hidden[order[: max(1, round(fraction * count))]] = True
    train = dataset.train.at(np.flatnonzero(~hidden))
    kept = np.bincount(train.labels.numpy(), minlength=len(dataset.class_names))
    if emptied := [name for name, n in zip(dataset.class_names, kept, strict=True) if not n]:
        raise UserError(
            f"dataset.unlabeled_fraction={fraction} leaves {len(emptied)} of {len(kept)} classes "
            f"without a labelled training example ({emptied[0]!r}); allowed: at least one of every "
            "class, by a smaller share or another dataset.unlabeled_seed"
        )
    rest = dataset.train.at(np.flatnonzero(hidden))
    digest = hashlib.sha256(f"{dataset.digest} without the labels of".encode())
    digest.update(rest.ids.astype("<i8").tobytes())
    return replace(
        dataset,
        digest=digest.hexdigest(),
        train=train,
        unlabeled=replace(
            rest,
            labels=torch.full_like(rest.labels, -1),
            columns=rest.columns[list(dataset.attributes)],
        ),
    )
