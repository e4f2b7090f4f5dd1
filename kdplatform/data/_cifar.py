"""What CIFAR-10 and CIFAR-100 share: the layout of their archives."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from kdplatform.data import Dataset
from kdplatform.data._published_arrays import PublishedConfig, from_arrays
from kdplatform.data._sources import Archive, obtained
from kdplatform.downloads import check_published


def load_cifar(config: PublishedConfig, folder: Path, archive: Archive, name: str) -> Dataset:
    """Loads one of the two as uint8 [N, 3, 32, 32], downloading it when no root is given.

    Its files are pickles, which could run anything: none is opened whose MD5 is not the published
    one, whoever put it there.

    Args:
        folder: where what is downloaded is kept, below a folder of the dataset's own.
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
