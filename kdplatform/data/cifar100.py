"""CIFAR-100: photographs of 32 x 32 pixels, a hundred classes.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". 50,000 training and 10,000
test images; validation is held out of the former. No attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._published_arrays import PublishedConfig, load_cifar
from kdplatform.data._sources import Archive, given_archive

ARCHIVE = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
    name="cifar-100-python.tar.gz",
    md5="eb9058c3a382ffc7106e4002c42a8d85",
    folder="cifar-100-python",
)

KNOWN_ATTRIBUTES: tuple[str, ...] = ()


class Config(PublishedConfig):
    """The place of CIFAR-100, and how validation is held out."""

    name: Literal["cifar100"] = Field("cifar100", description="dataset")


def check(config: Config) -> None:
    """Checks that the user's folder holds the archive or its content; see `given_archive`."""
    if config.root:
        given_archive(ARCHIVE, config.root)


def load(config: Config, folder: Path) -> Dataset:
    """Loads the dataset; see `load_cifar` for what it raises."""
    return load_cifar(config, folder, ARCHIVE, "CIFAR100")
