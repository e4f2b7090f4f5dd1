"""What a dataset is: three splits of examples with labels, ids and groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdplatform.data._facts import DataFacts, Vocabulary
from kdplatform.data._streams import StreamedInputs
from kdplatform.lazy import pandas as pd
from kdplatform.lazy import torch

# Quoted: the real union would load torch.
Inputs: TypeAlias = "torch.Tensor | StreamedInputs"
# Between the names of an attribute's groups, for an example that is in several of them.
SEVERAL = " + "


@dataclass(frozen=True)
class Split:
    """The examples of one split.

    Attributes:
        inputs: uint8 images [N, channels, height, width], float32 features [N, ...] or int64 token
            ids [N, length], 0 where a text has ended, in memory; or images that are decoded from
            their files when they are needed.
        labels: int64 [N], 0 to number of classes - 1; -1 throughout where they are hidden.
        ids: int64 [N], unique over all splits of the dataset.
        columns: N rows: the attributes' groups as strings, and whatever else of an example is to
            be kept beside its prediction.
        names: text [N], by which files of the user's name the examples; None: their ids do.
    """

    inputs: Inputs
    labels: torch.Tensor
    ids: NDArray[np.int64]
    columns: pd.DataFrame
    names: NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: NDArray[np.int64]) -> Split:
        """Returns the examples at these rows."""
        return Split(
            inputs_at(self.inputs, rows),
            self.labels[torch.from_numpy(rows)],
            self.ids[rows],
            self.columns.iloc[rows].reset_index(drop=True),
            None if self.names is None else self.names[rows],
        )


def inputs_at(inputs: Inputs, rows: NDArray[np.int64]) -> Inputs:
    """Returns the inputs at these rows, streamed ones as a stream."""
    return inputs.at(rows) if isinstance(inputs, StreamedInputs) else inputs[torch.from_numpy(rows)]


@dataclass(frozen=True)
class Dataset:
    """Three splits with their class names, the attributes that form groups, and a digest.

    Attributes:
        digest: hexadecimal; equal on every machine for equal data, and part of every run's key.
        vocabulary: of datasets whose inputs are token ids.
        measured: how many training inputs, evenly spread, channel statistics are taken from; None:
            all. Given for image files, which may be too many to be decoded for this.
        unlabeled: training examples whose labels are hidden, none of them in `train`; None where
            the configuration hides none.
        named_by: the column of the user's files that has the names of the examples, or their ids.
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
    named_by: str = "id"

    def facts(self) -> DataFacts:
        """Returns what a model needs to know to be built for this dataset."""
        shape = tuple(self.train.inputs.shape[1:])
        return DataFacts(shape, self.class_names, self.vocabulary)

    def splits(self) -> dict[str, Split]:
        """Returns the labelled splits by name."""
        return {"train": self.train, "val": self.val, "test": self.test}

    @cached_property
    def channel_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation per channel of the labelled training inputs.

        Both float32 [channels]; uint8 inputs count as fractions of 255.
        """
        inputs = self.train.inputs
        count = min(len(inputs), self.measured or len(inputs))
        if isinstance(inputs, StreamedInputs) or count < len(inputs):
            rows = torch.linspace(0, len(inputs) - 1, count, dtype=torch.float64).long()
            if isinstance(inputs, StreamedInputs):
                inputs = torch.cat(list(inputs.batches(torch.split(rows, 128))))
            else:
                inputs = inputs[rows]
        scale = 255.0 if inputs.dtype == torch.uint8 else 1.0
        flat = inputs.transpose(0, 1).flatten(1).to(torch.float64) / scale
        std = flat.std(dim=1, correction=0)
        # A constant channel carries nothing; dividing by its zero deviation would make it NaN.
        std = torch.where(std > 0, std, torch.ones_like(std))
        return flat.mean(dim=1).float(), std.float()
