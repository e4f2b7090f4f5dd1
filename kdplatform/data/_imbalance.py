"""A long tail: training examples left out so that class frequencies fall exponentially."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from kdplatform.data._dataset import Dataset
from kdplatform.errors import UserError


def with_imbalance(dataset: Dataset, ratio: float, seed: int) -> Dataset:
    """Returns the dataset with exponential class frequencies in its training split.

    Class c of C keeps n * ratio^(-c / (C - 1)) examples, rounded, in the order of the classes: the
    long-tailed CIFAR of Cui et al. 2019 (arXiv 1901.05555). n is as large as the classes allow; of
    balanced data it is the size of a class. Validation and test stay as they are.

    Args:
        ratio: examples of the first class over those of the last.
        seed: chooses which examples stay.

    Raises:
        UserError: a class would keep no example.
    """
    labels = dataset.train.labels.numpy()
    counts = np.bincount(labels, minlength=len(dataset.class_names))
    shares = ratio ** -np.linspace(0, 1, len(counts))
    kept = np.rint(min(counts / shares) * shares).astype(np.int64)
    if emptied := [name for name, n in zip(dataset.class_names, kept, strict=True) if not n]:
        raise UserError(
            f"dataset.imbalance={ratio:g} leaves {len(emptied)} of {len(kept)} classes without a "
            f"training example ({emptied[0]!r}); allowed: a smaller ratio, which leaves every "
            "class at least one"
        )
    chosen = [
        # A stream per class: another class's size changes nothing here.
        np.random.default_rng((seed, label)).permutation(np.flatnonzero(labels == label))[:count]
        for label, count in enumerate(kept)
    ]
    train = dataset.train.at(np.sort(np.concatenate(chosen)))
    digest = hashlib.sha256(f"{dataset.digest} of which in training".encode())
    digest.update(train.ids.astype("<i8").tobytes())
    return replace(dataset, digest=digest.hexdigest(), train=train)
