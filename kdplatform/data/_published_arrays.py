"""Small published image datasets that torchvision reads: whole in memory, training and test."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._sources import Archive, obtained
from kdplatform.data._splits import (
    HeldOutFraction,
    SplitSeed,
    assembled,
    check_classes,
    held_out_of_training,
    numbered,
)
from kdplatform.downloads import check_published
from kdplatform.lazy import torch
from kdplatform.settings.schema import DatasetConfig

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class PublishedConfig(DatasetConfig):
    """The place of the published files, and how validation is held out of their training images."""

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


def load_cifar(config: PublishedConfig, folder: Path, archive: Archive, name: str) -> Dataset:
    """Loads CIFAR-10 or CIFAR-100 as uint8 [N, 3, 32, 32], downloading it when no root is given.

    Its files are pickles, which could run anything. None is opened unless its MD5 is the published
    one.

    Args:
        folder: parent of the dataset's folder of downloads.
        name: of torchvision's class, which has the sums of the files.

    Raises:
        UserError: the user's folder does not hold the published files.
        MachineError: they cannot be downloaded.
    """
    published = getattr(importlib.import_module("torchvision.datasets"), name)
    root = obtained(archive, config.root, folder / config.name)
    files = [*published.train_list, *published.test_list]
    for file, md5 in [*files, (published.meta["filename"], published.meta["md5"])]:
        check_published(root / archive.folder / file, md5, archive.url)
    parts = [published(root, train=train) for train in (True, False)]
    train, test = (
        (
            np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)),
            np.asarray(part.targets, dtype=np.int64),
        )
        for part in parts
    )
    return from_arrays(config, train, test, list(parts[0].classes))
