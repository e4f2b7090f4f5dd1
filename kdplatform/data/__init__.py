"""Datasets with groups: one file per dataset, one small protocol.

A dataset is a module of this package. Its name is the module's; it defines `Config`, a subclass of
`DatasetConfig` with the dataset's own fields, and `load(config, folder)`, which returns a
`Dataset` and keeps what it makes or downloads below `folder`.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdplatform.data._facts import DataFacts, Vocabulary, image_facts
from kdplatform.data._streams import StreamedInputs
from kdplatform.errors import unknown_name
from kdplatform.settings.schema import DatasetConfig

__all__ = [
    "DataFacts",
    "Dataset",
    "Inputs",
    "Split",
    "StreamedInputs",
    "Vocabulary",
    "check_dataset",
    "dataset_config_class",
    "dataset_names",
    "image_facts",
    "load_dataset",
]

Inputs = Tensor | StreamedInputs


@dataclass(frozen=True)
class Split:
    """The examples of one split.

    Attributes:
        inputs: uint8 images [N, channels, height, width], float32 features [N, ...] or int64 token
            ids [N, length], 0 where a text has ended, in memory; or images that are decoded from
            their files when they are needed.
        labels: int64 [N], 0 to number of classes - 1.
        ids: int64 [N], unique over all splits of the dataset.
        columns: N rows: the attributes' groups as strings, and whatever else of an example is to
            be kept beside its prediction.
    """

    inputs: Inputs
    labels: Tensor
    ids: NDArray[np.int64]
    columns: pd.DataFrame

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Dataset:
    """Three splits with their class names, the attributes that form groups, and a digest.

    Attributes:
        digest: hexadecimal; equal on every machine for equal data, and part of every run's key.
        vocabulary: of datasets whose inputs are token ids.
        measured: how many training inputs, evenly spread, channel statistics are taken from; None:
            all. Given for image files, which may be too many to be decoded for this.
    """

    name: str
    digest: str
    class_names: tuple[str, ...]
    attributes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    vocabulary: Vocabulary | None = None
    measured: int | None = None
    unlabeled: Split | None = None

    def facts(self) -> DataFacts:
        """Returns what a model needs to know to be built for this dataset."""
        shape = tuple(self.train.inputs.shape[1:])
        return DataFacts(shape, self.class_names, self.vocabulary)

    def splits(self) -> dict[str, Split]:
        """Returns the splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    def channel_statistics(self) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation per channel of the training inputs.

        Both float32 [channels]; uint8 inputs count as fractions of 255.
        """
        return self._channel_statistics

    @cached_property
    def _channel_statistics(self) -> tuple[Tensor, Tensor]:
        inputs = self.train.inputs
        count = min(len(inputs), self.measured or len(inputs))
        if isinstance(inputs, StreamedInputs) or count < len(inputs):
            rows = torch.linspace(0, len(inputs) - 1, count, dtype=torch.float64).long()
            inputs = _taken(inputs, rows)
        scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
        flat = inputs.transpose(0, 1).flatten(1).to(torch.float64) / scale
        std = flat.std(dim=1, correction=0)
        # A constant channel carries nothing; dividing by its zero deviation would make it NaN.
        std = torch.where(std > 0, std, torch.ones_like(std))
        return flat.mean(dim=1).float(), std.float()


def _taken(inputs: Inputs, rows: Tensor) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs[rows]
    return torch.cat(list(inputs.batches(torch.split(rows, 128))))


@cache
def dataset_names() -> tuple[str, ...]:
    """Returns the names of all datasets: the modules of this package."""
    modules = pkgutil.iter_modules(__path__)
    return tuple(sorted(m.name for m in modules if not m.name.startswith("_") and not m.ispkg))


def _module(name: str) -> Any:
    if name not in dataset_names():
        raise unknown_name("dataset.name", name, dataset_names())
    return importlib.import_module(f"{__name__}.{name}")


def dataset_config_class(name: str) -> type[DatasetConfig]:
    """Returns the configuration class of a dataset.

    Raises:
        UserError: there is no dataset of this name.
    """
    config_class: type[DatasetConfig] = _module(name).Config
    return config_class


def check_dataset(config: DatasetConfig) -> None:
    """Checks what a dataset can be asked before it is loaded, such as that its files are there.

    Raises:
        UserError: something is missing.
    """
    check = getattr(_module(config.name), "check", None)
    if check is not None:
        check(config)


def load_dataset(config: DatasetConfig, folder: Path) -> Dataset:
    """Loads a dataset, making or downloading it below `folder` when it is not there yet."""
    dataset: Dataset = _module(config.name).load(config, folder)
    return dataset
