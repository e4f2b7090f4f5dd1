"""Small published image datasets that torchvision reads: whole in memory, training and test."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._downloads import md5_of
from kdplatform.data._splits import assembled, check_classes, hold_out, plain_examples
from kdplatform.errors import UserError
from kdplatform.settings.schema import DatasetConfig

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]


class PublishedConfig(DatasetConfig):
    """Where the published files lie, and how validation is held out of their training images."""

    root: str = Field("", description="folder with the published files; empty: downloaded")
    val_fraction: float = Field(
        0.1, ge=0.01, le=0.5, description="share of every class's training images for validation"
    )
    seed: int = Field(0, ge=0, description="seed of the validation split")


def check_published(folder: Path, files: dict[str, str], url: str) -> None:
    """Checks files against the MD5 sums of their publisher, before anything reads them.

    Args:
        files: MD5 by path below the folder.
        url: where to get them.

    Raises:
        UserError: one is missing or another; names it, what was expected, and where to get it.
    """
    for name, md5 in files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{str(path)!r} is missing; allowed: all files of {url}")
        if (found := md5_of(path)) != md5:
            raise UserError(
                f"{str(path)!r} is not the published file (md5 {found}, expected {md5}): cut short "
                f"or altered; allowed: the file of {url}; delete it to get it anew"
            )


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
    known = plain_examples(train[1], first_id=0)
    rest, held = hold_out(known.labels, config.val_fraction, config.seed)
    return assembled(
        config,
        digest.hexdigest(),
        {
            "train": (torch.from_numpy(train[0][rest]), known.at(rest)),
            "val": (torch.from_numpy(train[0][held]), known.at(held)),
            "test": (torch.from_numpy(test[0]), plain_examples(test[1], len(known))),
        },
        class_names=class_names,
    )
