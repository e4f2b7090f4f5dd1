"""The training split on the device: order, batches and augmentation, without a data loader."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kdplatform.config import AugmentationConfig
from kdplatform.data import Split
from kdplatform.errors import UserError
from kdplatform.objectives import Batch


@dataclass(frozen=True)
class Changes:
    """What augmentation does to each of N images.

    Attributes:
        top: int64 [N], first row of the crop in the padded image, 0 to twice the padding.
        left: int64 [N], first column of the crop.
        flipped: bool [N], whether the crop is mirrored left to right.
    """

    top: Tensor
    left: Tensor
    flipped: Tensor


def draw_changes(count: int, config: AugmentationConfig, generator: torch.Generator) -> Changes:
    """Draws the changes of `count` images: all crops equally likely, half of the images flipped."""
    places = 2 * config.crop_padding + 1
    top, left = torch.randint(places, (2, count), generator=generator)
    flipped = torch.rand(count, generator=generator) < 0.5
    return Changes(top, left, flipped & config.horizontal_flip)


def view_count(config: AugmentationConfig) -> int:
    """Returns how many different images augmentation can make of one: crops times mirrorings."""
    return (2 * config.crop_padding + 1) ** 2 * (1 + config.horizontal_flip)


def view_numbers(changes: Changes, config: AugmentationConfig) -> Tensor:
    """Returns which view each of N changes gives: int64 [N], 0 to `view_count` - 1."""
    crop = changes.top * (2 * config.crop_padding + 1) + changes.left
    return crop * 2 + changes.flipped if config.horizontal_flip else crop


def view_changes(
    view: int, count: int, config: AugmentationConfig, device: torch.device
) -> Changes:
    """Returns the changes that give `count` images their view of this number."""
    crop, flipped = divmod(view, 1 + config.horizontal_flip)
    top, left = divmod(crop, 2 * config.crop_padding + 1)
    return Changes(
        torch.full((count,), top, device=device),
        torch.full((count,), left, device=device),
        torch.full((count,), bool(flipped), device=device),
    )


def pad_images(images: Tensor, padding: int) -> Tensor:
    """Surrounds images [N, C, H, W] by `padding` black pixels (zeros) on every side."""
    return F.pad(images, (padding, padding, padding, padding)) if padding else images


def crop_and_flip(padded: Tensor, rows: Tensor, changes: Changes, padding: int) -> Tensor:
    """Takes the augmented images of a batch out of the padded split in one indexing operation.

    Args:
        padded: [N, H + 2 * padding, W + 2 * padding, C], channels last.
        rows: int64 [B], which images.
        changes: of these B images.
        padding: that of `padded`.

    Returns:
        [B, C, H, W] in channels_last layout.
    """
    height, width = padded.shape[1] - 2 * padding, padded.shape[2] - 2 * padding
    down = torch.arange(height, device=padded.device)
    across = torch.arange(width, device=padded.device).expand(len(rows), width)
    across = torch.where(changes.flipped[:, None], across.flip(1), across)
    y = changes.top[:, None] + down  # [B, H]
    x = changes.left[:, None] + across  # [B, W]
    return padded[rows[:, None, None], y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


class TrainingBatches:
    """Draws the batches of an epoch from a split that lies on the device as one tensor.

    An epoch sees every example once. Its steps are as few as `batch_size` allows and as equal as
    they can be, so that no small remainder of a batch disturbs batch normalisation.

    Args:
        split: the training split.
        batch_size: the most examples of one step.
        generator: draws order and augmentation, on the CPU so that every device sees the same.
        channels_last: memory layout of image batches.

    Raises:
        UserError: augmentation is asked for where the inputs are not images.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        augmentation: AugmentationConfig,
        channels_last: bool,
        device: torch.device,
        generator: torch.Generator,
    ) -> None:
        images = split.inputs.ndim == 4
        if augmentation.active and not images:
            raise UserError(
                "augmentation allowed: for images alone; the inputs of this dataset have shape "
                f"{tuple(split.inputs.shape[1:])}"
            )
        self._augmentation = augmentation
        self._images_last = images and (channels_last or augmentation.active)
        self._channels_last = channels_last
        self._generator = generator
        self._device = device
        inputs = pad_images(split.inputs.to(device), augmentation.crop_padding)
        self._inputs = inputs.permute(0, 2, 3, 1).contiguous() if self._images_last else inputs
        self._labels = split.labels.to(device)
        self._ids = torch.from_numpy(split.ids).to(device)
        self.steps = math.ceil(len(split) / batch_size)

    def epoch(self) -> Iterator[Batch]:
        """Yields the batches of one epoch; draws all its random numbers before the first."""
        count = len(self._labels)
        order = torch.randperm(count, generator=self._generator)
        steps = order.to(self._device).tensor_split(self.steps)
        if not self._augmentation.active:
            for rows in steps:
                yield self._batch(rows, self._rows(rows))
            return
        changes = draw_changes(count, self._augmentation, self._generator)
        columns = (changes.top, changes.left, changes.flipped)
        per_step = zip(*(c.to(self._device).tensor_split(self.steps) for c in columns), strict=True)
        for rows, (top, left, flipped) in zip(steps, per_step, strict=True):
            drawn = Changes(top, left, flipped)
            images = crop_and_flip(self._inputs, rows, drawn, self._augmentation.crop_padding)
            views = view_numbers(drawn, self._augmentation)
            yield self._batch(rows, images if self._channels_last else images.contiguous(), views)

    def _rows(self, rows: Tensor) -> Tensor:
        inputs = self._inputs[rows]
        return inputs.permute(0, 3, 1, 2) if self._images_last else inputs

    def _batch(self, rows: Tensor, inputs: Tensor, views: Tensor | None = None) -> Batch:
        return Batch(inputs, self._labels[rows], self._ids[rows], rows, views)
