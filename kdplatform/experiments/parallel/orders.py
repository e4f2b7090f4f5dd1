"""The orders that rank 0 gives to the other ranks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from kdplatform.data import Dataset, Split
from kdplatform.errors import UserError
from kdplatform.experiments.graph import Step
from kdplatform.experiments.logits_files import file_teacher
from kdplatform.experiments.model_state import ModelState
from kdplatform.experiments.workspace import build_loss_kernels
from kdplatform.files import is_whole, load_arrays
from kdplatform.methods import build_method
from kdplatform.settings.schema import AugmentationConfig, ProjectConfig
from kdplatform.training import (
    Ranks,
    Teacher,
    TeacherTable,
    fit,
    resolve_precision,
    view_logits,
)

ValueT = TypeVar("ValueT")


class Order(Protocol):
    """Work that all ranks carry out at the same time. Orders cross processes."""

    def follow(self, ranks: Ranks, dataset: Dataset, device: torch.device) -> None:
        """Does the part of a rank other than 0."""
        ...


class Tables(NamedTuple, Generic[ValueT]):
    """A teacher's logits of the training split, and of the examples without labels, if any."""

    train: ValueT | None = None
    unlabeled: ValueT | None = None


@dataclass(frozen=True)
class TeacherState:
    """The values from which a rank builds a teacher.

    Attributes:
        step: the step that trained it, or that names a file of logits.
        model: its network; None for a file of logits.
        tables: files of its logits; None if the network is used.
    """

    step: Step
    model: ModelState | None
    tables: Tables[Path]

    def teacher(self, ranks: Ranks, dataset: Dataset, device: torch.device) -> Teacher:
        """Returns the teacher, on a rank other than 0."""
        model, logits = self.model, shared_tables(ranks, self.tables, Tables())
        if model is None:
            return file_teacher(self.step, dataset)
        return Teacher(
            teacher_table(dataset.train, logits.train),
            lambda: model.model(dataset),
            resolve_precision(self.step.training, device),
            unlabeled=teacher_table(dataset.unlabeled, logits.unlabeled),
        )


def shared_tables(ranks: Ranks, files: Tables[Path], own: Tables[Tensor]) -> Tables[Tensor]:
    """Returns a teacher's logits on every rank; a rank without the file gets those of rank 0.

    Args:
        own: the logits that rank 0, this rank, has read.
    """
    return Tables(*(_shared(ranks, *both) for both in zip(files, own, strict=True)))


def teacher_table(split: Split | None, logits: Tensor | None) -> TeacherTable | None:
    """Returns a table of a split's logits; None without a split or logits."""
    if split is None or logits is None:
        return None
    _, places = split.distinct()
    return TeacherTable(logits, places)


def read_table(path: Path) -> Tensor:
    """Returns the logits of a complete file; views are mapped from disk."""
    if path.suffix == ".npz":
        arrays = load_arrays(path)
        assert arrays is not None, path
        return torch.from_numpy(arrays["logits"])
    # Copy-on-write, because torch has no read-only memory; nothing writes to it.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _shared(ranks: Ranks, path: Path | None, own: Tensor | None) -> Tensor | None:
    if path is None:
        return None
    if all(ranks.collected(own is not None or is_whole(path))):
        return read_table(path) if own is None else own
    return ranks.told(own)


@dataclass(frozen=True)
class Instruction:
    """An order, with the project of its data."""

    config: ProjectConfig
    folder: Path
    order: Order


@dataclass(frozen=True)
class Fit:
    """Trains a model; rank 0 has checkpoints and the tracking store."""

    step: Step
    start: ModelState
    teachers: Sequence[TeacherState]
    reference: TeacherState | None

    def follow(self, ranks: Ranks, dataset: Dataset, device: torch.device) -> None:
        """Trains the model."""
        build_loss_kernels()  # which rank 0 has built on its own machine
        step = self.step
        teachers = [own.teacher(ranks, dataset, device) for own in self.teachers]
        asked = self.reference
        fit(
            self.start.model(dataset),
            dataset.train,
            build_method(step.method),
            step.training,
            seed=step.seed,
            role=step.role,
            device=device,
            teacher=teachers,
            reference=None if asked is None else asked.teacher(ranks, dataset, device),
            validation=dataset.val,
            unlabeled=dataset.unlabeled,
            class_names=dataset.class_names,
            ranks=ranks,
        )


@dataclass(frozen=True)
class Predict:
    """Computes a model's logits of a split.

    Attributes:
        distinct: whether only its distinct inputs are used, see `Split.distinct`.
    """

    model: ModelState
    split: str
    distinct: bool = False

    def follow(self, ranks: Ranks, dataset: Dataset, device: torch.device) -> None:
        """Computes this rank's share."""
        split = split_of(dataset, self.split)
        inputs = split.distinct()[0] if self.distinct else split.inputs
        ranks.predict_logits(self.model.model(dataset), inputs, device=device)


@dataclass(frozen=True)
class PredictViews:
    """Computes a teacher's logits of all views of the training images."""

    model: ModelState
    augmentation: AugmentationConfig

    def follow(self, ranks: Ranks, dataset: Dataset, device: torch.device) -> None:
        """Computes this rank's share of each view."""
        images = dataset.train.inputs
        assert isinstance(images, Tensor)
        model = self.model.model(dataset)
        for _ in view_logits(model, images, self.augmentation, device=device, ranks=ranks):
            pass


def split_of(dataset: Dataset, name: str) -> Split:
    """Returns a split of a dataset by its name."""
    split: Split = getattr(dataset, name)
    return split


def agree_on(ranks: Ranks, dataset: Dataset) -> None:
    """Compares the datasets of all ranks.

    Raises:
        UserError: they differ; raised on every rank.
    """
    digests = ranks.collected(dataset.digest)
    for rank, digest in enumerate(digests):
        if digest != digests[0]:
            raise UserError(
                f"rank {rank} has other data than rank 0 (digests {digest[:8]} and "
                f"{digests[0][:8]}); allowed: equal files in the data folders of all machines"
            )
