"""What a dataset is: three splits of examples with labels, ids and groups."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kdplatform.data._facts import DataFacts, Interactions, Vocabulary
from kdplatform.data._streams import StreamedInputs
from kdplatform.lazy import pandas as pd
from kdplatform.lazy import torch

# Quoted: the real union would load torch.
Inputs: TypeAlias = "torch.Tensor | StreamedInputs"
# Between the names of an attribute's groups, for an example that is in several of them.
SEVERAL = " + "
# The logit of a class that is out of the running: its probability is 0 at every temperature up to
# a million, and unlike minus infinity it survives a product with 0.
OUT_OF_THE_RUNNING = -1e9


@dataclass(frozen=True)
class Seen:
    """What the users behind the examples of a split have taken before: items are classes.

    Attributes:
        users: int64 [N], the user of each example.
        table: bool [users, C], the items of each user that are out of the running. In the training
            split they include the split's own examples. In the others they never include an
            example's own label.
    """

    users: torch.Tensor
    table: torch.Tensor

    def at(self, rows: torch.Tensor) -> Seen:
        """Returns the items that the users of these examples have taken."""
        return Seen(self.users[rows], self.table)

    def of(self, rows: torch.Tensor) -> torch.Tensor:
        """Returns the items that the users of these examples have taken: bool [B, C]."""
        return self.table[self.users[rows]]


@dataclass(frozen=True)
class Split:
    """The examples of one split.

    Attributes:
        inputs: uint8 images [N, channels, height, width], float32 features [N, ...], int64 token
            ids [N, length], 0 where a text has ended, or int64 numbers of users [N, 1], in memory;
            or images that are decoded from their files when they are needed.
        labels: int64 [N], 0 to number of classes - 1; -1 throughout where they are hidden.
        ids: int64 [N], unique over all splits of the dataset.
        columns: N rows: the attributes' groups as strings, and further values of an example to be
            kept beside its prediction.
        names: text [N], the examples' names in the user's files; None: their ids.
        seen: of datasets whose inputs are users and whose classes are items; None for any other.
    """

    inputs: Inputs
    labels: torch.Tensor
    ids: NDArray[np.int64]
    columns: pd.DataFrame
    names: NDArray[np.str_] | None = None
    seen: Seen | None = None

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
            None if self.seen is None else self.seen.at(torch.from_numpy(rows)),
        )

    def in_the_running(self, logits: torch.Tensor) -> torch.Tensor:
        """Returns logits [N, C] of the split, without the items that its users took before.

        Those become `OUT_OF_THE_RUNNING`; logits of other data stay as they are.
        """
        if self.seen is None:
            return logits
        taken = self.seen.table[self.seen.users].to(logits.device)
        return logits.masked_fill(taken, OUT_OF_THE_RUNNING)

    def distinct(self) -> tuple[Inputs, torch.Tensor | None]:
        """Returns inputs that are all different, and which of them each example has: int64 [N].

        Users have many examples each. Of other data the inputs themselves, and None.
        """
        if self.seen is None:
            return self.inputs, None
        return torch.arange(len(self.seen.table)).unsqueeze(1), self.seen.users


def inputs_at(inputs: Inputs, rows: NDArray[np.int64]) -> Inputs:
    """Returns the inputs at these rows, streamed ones as a stream."""
    return inputs.at(rows) if isinstance(inputs, StreamedInputs) else inputs[torch.from_numpy(rows)]


@dataclass(frozen=True)
class Dataset:
    """Three splits with their class names, the attributes that form groups, and a digest.

    Attributes:
        digest: hexadecimal; equal on every machine for equal data, and part of every run's key.
        vocabulary: of datasets whose inputs are token ids.
        measured: the number of evenly spread training inputs for channel statistics; None: all. It
            is set for image files, which may be too many to decode for this.
        unlabeled: training examples whose labels are hidden, none of them in `train`; None if the
            configuration hides none.
        cells: for a table, the cells of the test split as in its file.
        named_by: the column of the user's files with the names of the examples, or their ids.
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
    cells: pd.DataFrame | None = None
    named_by: str = "id"

    def facts(self) -> DataFacts:
        """Returns the facts that a model for this dataset is built from."""
        shape, seen = tuple(self.train.inputs.shape[1:]), self.train.seen
        taken = None
        if seen is not None:
            taken = Interactions(len(seen.table), seen.users, self.train.labels)
        return DataFacts(shape, self.class_names, self.vocabulary, taken)

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
