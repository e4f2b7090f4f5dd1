"""What an objective is: what it is given, what it returns, and when it is called."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from kdplatform.config import TrainingConfig
from kdplatform.data import Split


class Output(NamedTuple):
    """What a model says about a batch.

    Attributes:
        logits: floating point [B, C].
    """

    logits: Tensor


@dataclass(frozen=True)
class Batch:
    """The examples of one step, on the device.

    Attributes:
        inputs: [B, ...], augmented, not yet normalised: the model's argument.
        labels: int64 [B].
        ids: int64 [B], the examples' ids.
        rows: int64 [B], the examples' positions in the training split: what is kept per example,
            such as a teacher's logits or a group, is indexed by them.
        views: int64 [B], which of the augmentation's views of its example each row is, as
            `training.batches` numbers them; None when inputs are not augmented.
    """

    inputs: Tensor
    labels: Tensor
    ids: Tensor
    rows: Tensor
    views: Tensor | None = None


@dataclass
class TrainingState:
    """Where a fit is.

    Attributes:
        model: the model being trained.
        split: the training split, as the dataset gave it.
        epoch: finished epochs.
        step: finished steps, over all epochs.
        steps_per_epoch: steps of one epoch.
    """

    model: nn.Module
    split: Split
    config: TrainingConfig
    device: torch.device
    steps_per_epoch: int
    epoch: int = 0
    step: int = 0


class LossParts(NamedTuple):
    """What an objective returns, one value per row.

    Attributes:
        loss: [B]; its mean is minimised.
        parts: [B] each, detached and unweighted: the terms of the loss that are worth a curve.
    """

    loss: Tensor
    parts: Mapping[str, Tensor]


class Objective(nn.Module):
    """What a model is trained for: per-row losses, and three hooks around the steps.

    A subclass overrides `forward` and the hooks it needs; the loop knows no method. It is a module
    so that what it keeps (buffers, parameters, submodules) moves to the device, is saved in the
    checkpoints and, where it is a parameter, is trained along with the model.

    Attributes:
        needs_teacher: whether `forward` is given a teacher's output.
    """

    needs_teacher: ClassVar[bool] = False

    def before_fit(self, state: TrainingState) -> None:
        """Called once, before the first step and before a checkpoint is restored."""

    def before_batch(self, batch: Batch, state: TrainingState) -> Batch:
        """Returns the batch to train on: the one given, or another in its place."""
        return batch

    def after_step(self, state: TrainingState) -> None:
        """Called after the optimiser has changed the weights."""

    def forward(
        self, student: Output, teacher: Output | None, batch: Batch, state: TrainingState
    ) -> LossParts:
        """Returns the loss of each row of the batch; logits are float32."""
        raise NotImplementedError
