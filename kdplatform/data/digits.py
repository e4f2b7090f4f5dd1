"""Handwritten digits of 8 x 8 pixels that come with scikit-learn: real, small and without groups.

A copy of the test set of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak 1998, UCI
Machine Learning Repository): 1,797 images with 17 grey levels.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from kdplatform.data import Dataset, Split
from kdplatform.data._splits import Rows, fields_that_matter, numbered
from kdplatform.lazy import torch
from kdplatform.settings.schema import DatasetConfig

_GREYEST = 16  # the highest grey level of the original

KNOWN_ATTRIBUTES: tuple[str, ...] = ()


class Config(DatasetConfig):
    """How the digits are split; every split has every digit in its share, and training the rest."""

    name: Literal["digits"] = Field("digits", description="dataset")
    val_fraction: float = Field(
        0.15, ge=0.02, le=0.45, description="share of the images for validation"
    )
    test_fraction: float = Field(
        0.25, ge=0.02, le=0.45, description="share of the images for the test"
    )
    seed: int = Field(0, ge=0, description="seed of the split")


def _split_rows(config: Config, labels: Rows) -> dict[str, Rows]:
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(labels), dtype=np.int64)
    random = np.random.RandomState(np.random.PCG64(config.seed))
    rest, test = train_test_split(
        rows, test_size=config.test_fraction, stratify=labels, random_state=random
    )
    train, val = train_test_split(
        rest,
        test_size=config.val_fraction / (1 - config.test_fraction),
        stratify=labels[rest],
        random_state=random,
    )
    return {"train": train, "val": val, "test": test}


def load(config: Config, folder: Path) -> Dataset:
    """Loads the digits as uint8 [N, 1, 8, 8], grey levels 0 to 16 spread over 0 to 255.

    Ids are row numbers of the original. Nothing is kept in `folder`: the images are part of
    scikit-learn.
    """
    # Here and not above: scikit-learn takes long to import, and naming a dataset does not need it.
    from sklearn.datasets import load_digits

    original = load_digits()
    labels = original.target.astype(np.int64)
    images = np.rint(original.images * (255 / _GREYEST)).astype(np.uint8)[:, None]
    digest = hashlib.sha256(json.dumps(fields_that_matter(config), sort_keys=True).encode())
    digest.update(images.tobytes() + labels.astype("<i8").tobytes())
    examples = numbered(torch.from_numpy(images), labels)
    splits: dict[str, Split] = {}
    for name, rows in _split_rows(config, labels).items():
        # The rows too: the split is scikit-learn's, and another version may draw another one.
        digest.update(name.encode() + rows.astype("<i8").tobytes())
        splits[name] = examples.at(rows)
    return Dataset(
        name="digits",
        digest=digest.hexdigest(),
        class_names=tuple(str(name) for name in original.target_names),
        attributes=KNOWN_ATTRIBUTES,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
    )
