"""SVHN: house numbers from street views, 32 x 32 pixels around one digit each.

Netzer et al. 2011, "Reading Digits in Natural Images with Unsupervised Feature Learning". 73,257
training and 26,032 test images of the cropped format; validation is held out of the former, and the
additional 531,131 easier images are not used. No attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._published_arrays import PublishedConfig, from_arrays
from kdplatform.data._sources import given_root
from kdplatform.downloads import check_published, download, md5_of
from kdplatform.files import locked

_HOLDING = "train_32x32.mat and test_32x32.mat"

KNOWN_ATTRIBUTES: tuple[str, ...] = ()


class Config(PublishedConfig):
    """The place of SVHN, and how validation is held out."""

    name: Literal["svhn"] = Field("svhn", description="dataset")


def check(config: Config) -> None:
    """Checks that the user's folder exists; see `given_root`."""
    if config.root:
        given_root(config.root, _HOLDING)


def load(config: Config, folder: Path) -> Dataset:
    """Loads SVHN as uint8 [N, 3, 32, 32], downloading it when no root is given.

    Raises:
        UserError: the user's folder does not hold the published files.
        MachineError: they cannot be downloaded.
    """
    # Here and not above: torchvision takes long to import, and naming a dataset does not need it.
    from torchvision.datasets import SVHN

    published = [SVHN.split_list[split] for split in ("train", "test")]
    root = given_root(config.root, _HOLDING) if config.root else folder / "svhn"
    if not config.root:
        with locked(root / "lock", "waiting for another process that downloads SVHN"):
            for url, name, md5 in published:
                if not ((root / name).is_file() and md5_of(root / name) == md5):
                    download(url, root / name, md5)
    for url, name, md5 in published:
        check_published(root / name, md5, url)
    parts = [SVHN(root, split=split) for split in ("train", "test")]
    train, test = (
        (np.ascontiguousarray(part.data), part.labels.astype(np.int64)) for part in parts
    )
    return from_arrays(config, train, test, [str(digit) for digit in range(10)])
