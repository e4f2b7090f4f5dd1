"""The numbers that a fit reports to its caller."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kdplatform.methods import Loss


@dataclass(frozen=True)
class EpochRecord:
    """One epoch in numbers.

    Attributes:
        epoch: counted from 1.
        learning_rate: that of the epoch's last step.
        train_loss: mean over the epoch's images, each at its training step.
        train_accuracy: fraction of these images predicted correctly at their step.
        train_parts: mean of each part of the loss, such as `kl` and `ce`; empty without parts.
        val_loss: cross entropy on the validation split; None if it was not measured.
        val_accuracy: fraction correct on the validation split; None if it was not measured.
        seconds: time of training and validation.
        images_per_second: speed of training without validation.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    train_accuracy: float
    train_parts: dict[str, float]
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    images_per_second: float


class EpochMeter:
    """Sums of an epoch. They stay on the device, so that no step waits for them."""

    def __init__(self, steps: int, device: torch.device) -> None:
        self._steps = steps
        self._device = device
        self._names: tuple[str, ...] = ()
        self._sums = torch.empty(0)
        self._images: list[int] = []

    def add(self, loss: Loss, labels: Tensor) -> None:
        """Adds a step."""
        if not self._images:
            self._names = tuple(loss.parts)
            self._sums = torch.zeros(self._steps, 2 + len(self._names), device=self._device)
        correct = (loss.student.logits.detach().argmax(dim=1) == labels).float()
        rows = torch.stack([loss.rows.detach(), correct, *loss.parts.values()])
        self._sums[len(self._images)] = rows.sum(dim=1)
        self._images.append(len(labels))

    def first_bad_step(self) -> int | None:
        """Returns the epoch's first step with a NaN or infinite loss. Waits for the device."""
        bad = (~torch.isfinite(self._sums[: len(self._images), 0])).nonzero()
        return int(bad[0]) if len(bad) else None

    def loss(self, step: int) -> float:
        """Returns the mean loss of a step of the epoch. Waits for the device."""
        return float(self._sums[step, 0]) / self._images[step]

    def means(self) -> tuple[float, float, dict[str, float]]:
        """Returns loss, accuracy and parts, each the mean over all images so far."""
        sums = self._sums.double().sum(dim=0) / sum(self._images)
        loss, accuracy, *parts = sums.tolist()
        return loss, accuracy, dict(zip(self._names, parts, strict=True))
