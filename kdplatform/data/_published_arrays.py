"""Small published image datasets that torchvision reads: whole in memory, training and test."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._splits import (
    HeldOutFraction,
    SplitSeed,
    assembled,
    check_classes,
    held_out_of_training,
    numbered,
)
from kdplatform.lazy import torch
from kdplatform.settings.schema import DatasetConfig

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class PublishedConfig(DatasetConfig):
    """Where the published files lie, and how validation is held out of their training images."""

    root: str = Field("", description="folder with the published files; empty: downloaded")
    val_fraction: HeldOutFraction = 0.1
    seed: SplitSeed = 0


def from_arrays(
    config: PublishedConfig,
    train: tuple[Images, Labels],
    test: tuple[Images, Labels],
    class_names: list[str],
) -> Dataset:
    """Returns the dataset of images uint8 [N, 3, H, W]; ids count through training, then test.

    Raises:
        UserError: a class has too few images.
    """
    digest = hashlib.sha256()
    for images, labels in (train, test):
        digest.update(images.tobytes() + labels.astype("<i8").tobytes())
    where = f"dataset.root={config.root!r}"
    check_classes({"training": train[1]}, class_names, where, least=2)
    check_classes({"test": test[1]}, class_names, where)
    return assembled(
        config,
        digest.hexdigest(),
        numbered(
            torch.from_numpy(np.concatenate([train[0], test[0]])),
            np.concatenate([train[1], test[1]]),
        ),
        held_out_of_training(train[1], len(test[1]), config.val_fraction, config.seed),
        class_names=class_names,
    )
