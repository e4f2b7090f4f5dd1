"""CIFAR-10: photographs of 32 x 32 pixels, ten classes.

Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". 50,000 training and 10,000
test images; validation is held out of the former. No attributes.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._cifar import load_cifar
from kdplatform.data._published_arrays import PublishedConfig


class Config(PublishedConfig):
    """Where CIFAR-10 lies, and how validation is held out."""

    name: Literal["cifar10"] = Field("cifar10", description="dataset")


def load(config: Config, folder: Path) -> Dataset:
    """Loads the dataset; see `load_cifar` for what it raises."""
    # Here and not above: torchvision takes long to import, and naming a dataset needs none of it.
    from torchvision.datasets import CIFAR10

    return load_cifar(config, folder, CIFAR10)
