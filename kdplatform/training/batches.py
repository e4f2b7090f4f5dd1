"""Batches of the training split, with equal order and augmentation from memory and files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from kdplatform import interruption
from kdplatform.data import Split, StreamedInputs
from kdplatform.data._streams import RandomCrops, StreamLoader
from kdplatform.errors import UserError
from kdplatform.methods import Batch
from kdplatform.settings.schema import AugmentationConfig, TrainingConfig
from kdplatform.training.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Changes:
    """The augmentation of each of N images.

    Attributes:
        top: int64 [N], first row of the crop in the padded image, 0 to twice the padding.
        left: int64 [N], first column of the crop.
        flipped: bool [N], whether the crop is mirrored left to right.
    """

    top: Tensor
    left: Tensor
    flipped: Tensor


def draw_changes(count: int, config: AugmentationConfig, generator: torch.Generator) -> Changes:
    """Draws the changes of `count` images: every crop equally likely, half of them flipped."""
    places = 2 * config.crop_padding + 1
    top, left = torch.randint(places, (2, count), generator=generator)
    flipped = torch.rand(count, generator=generator) < 0.5
    return Changes(top, left, flipped & config.horizontal_flip)


def view_count(config: AugmentationConfig) -> int:
    """Returns the number of different images that padded crops and mirroring make from one."""
    return (2 * config.crop_padding + 1) ** 2 * (1 + config.horizontal_flip)


def view_numbers(changes: Changes, config: AugmentationConfig) -> Tensor:
    """Returns the view number of each of N changes: int64 [N], 0 to `view_count` - 1."""
    crop = changes.top * (2 * config.crop_padding + 1) + changes.left
    return crop * 2 + changes.flipped if config.horizontal_flip else crop


def view_changes(
    view: int, count: int, config: AugmentationConfig, device: torch.device
) -> Changes:
    """Returns the changes that give `count` images the view of this number."""
    crop, flipped = divmod(view, 1 + config.horizontal_flip)
    top, left = divmod(crop, 2 * config.crop_padding + 1)
    return Changes(
        torch.full((count,), top, device=device),
        torch.full((count,), left, device=device),
        torch.full((count,), bool(flipped), device=device),
    )


def pad_images(images: Tensor, padding: int) -> Tensor:
    """Surrounds images [N, C, H, W] with `padding` black pixels (zeros) on every side."""
    return F.pad(images, (padding, padding, padding, padding)) if padding else images


def crop_and_flip(padded: Tensor, rows: Tensor, changes: Changes, padding: int) -> Tensor:
    """Extracts the augmented images of a batch from the padded split in one indexing operation.

    Args:
        padded: [N, H + 2 * padding, W + 2 * padding, C], channels last.
        rows: int64 [B], the rows of the images.
        changes: the changes of these B images.
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
    """Draws the batches of an epoch from a split.

    An epoch contains every example once. It has as few steps as `batch_size` allows. Their sizes
    are as equal as possible, so that no small last batch disturbs batch normalisation. A split in
    memory is one tensor on the device. Worker processes decode a streamed split in advance. Both
    ways give equal batches for equal images.

    Attributes:
        shares: each row's share of the draws; None: an epoch contains each row once.

    Args:
        config: its batch size is the largest number of examples in one step.
        generator: draws order and augmentation, on the CPU so that they are equal on every device.
        labelled: whether the split is the labelled training split.
        ranks: the processes that divide each batch; a batch has only the inputs of this rank's
            share.

    Raises:
        UserError: augmentation is requested and the inputs are not images, or random resized crops
            are requested and the images are not in files.
    """

    def __init__(
        self,
        split: Split,
        config: TrainingConfig,
        *,
        device: torch.device,
        generator: torch.Generator,
        labelled: bool = True,
        ranks: Ranks = ALONE,
    ) -> None:
        augmentation, channels_last = config.augmentation, config.channels_last
        check_augmentation(augmentation, split)
        images = split.inputs.ndim == 4
        self._augmentation = augmentation
        self._layout = torch.channels_last if images and channels_last else torch.contiguous_format
        self._generator = generator
        self._device = device
        self._labelled = labelled
        self._ranks = ranks
        self._images_last = images and (channels_last or augmentation.active)
        self._source: Tensor | StreamLoader
        if isinstance(split.inputs, StreamedInputs):
            self._source = StreamLoader(split.inputs, pinned=device.type == "cuda")
        else:
            self._source = self._padded(split.inputs.to(device))
        self.shares: Tensor | None = None
        self._labels = split.labels.to(device)
        self._ids = torch.from_numpy(split.ids).to(device)
        self.steps = math.ceil(len(split) / config.batch_size)

    def epoch(self) -> Iterator[Batch]:
        """Yields the batches of one epoch. Draws all random numbers before the first batch.

        Raises:
            UserError: an image file of a streamed split cannot be decoded.
        """
        order = self._order()
        steps = order.to(self._device).tensor_split(self.steps)
        changes = self._changes()
        crops = self._crops()
        batches = self._inputs([self._own(rows) for rows in steps], changes, crops)
        numbered = self._augmentation.active and crops is None
        for rows, change, inputs in zip(steps, changes, batches, strict=True):
            interruption.check()
            views = view_numbers(change, self._augmentation) if numbered and change else None
            inputs = inputs.contiguous(memory_format=self._layout)
            labels, ids = self._labels[rows], self._ids[rows]
            yield Batch(inputs, labels, ids, rows, views, self._labelled).as_made()

    def _order(self) -> Tensor:
        """Draws the rows of an epoch: each once, or with replacement by their shares."""
        count = len(self._labels)
        if self.shares is None:
            return torch.randperm(count, generator=self._generator)
        return torch.multinomial(self.shares, count, replacement=True, generator=self._generator)

    def another_view(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Returns a batch of this split with its images augmented again, drawn from a generator.

        Raises:
            UserError: the images are streamed.
        """
        if isinstance(self._source, StreamLoader):
            raise UserError(
                "a second view of streamed images is not allowed; allowed: images in memory"
            )
        drawn = draw_changes(len(batch.rows), self._augmentation, generator)
        changes = Changes(*(column.to(self._device) for column in vars(drawn).values()))
        own, rows = self._own_changes(changes), self._own(batch.rows)
        inputs = crop_and_flip(self._source, rows, own, self._augmentation.crop_padding).contiguous(
            memory_format=self._layout
        )
        views = view_numbers(changes, self._augmentation)
        return replace(batch, inputs=inputs, views=views).as_made()

    def _inputs(
        self, steps: Sequence[Tensor], changes: Sequence[Changes | None], crops: RandomCrops | None
    ) -> Iterator[Tensor]:
        """Yields the augmented inputs [b, ...] of this rank's rows of each step, on the device.

        Args:
            steps: int64 [b] each, this rank's rows.
            changes: the changes of all rows of each step.
        """
        padding = self._augmentation.crop_padding
        changes = [change and self._own_changes(change) for change in changes]
        if isinstance(self._source, StreamLoader):
            for change, decoded in zip(changes, self._source.epoch(steps, crops), strict=True):
                images = decoded.to(self._device, non_blocking=True)
                if change is not None:
                    rows = torch.arange(len(images), device=self._device)
                    images = crop_and_flip(self._padded(images), rows, change, padding)
                yield images
            return
        for rows, change in zip(steps, changes, strict=True):
            if change is not None:
                yield crop_and_flip(self._source, rows, change, padding)
            elif self._images_last:
                yield self._source[rows].permute(0, 3, 1, 2)
            else:
                yield self._source[rows]

    def _own(self, rows: Tensor) -> Tensor:
        """Returns this rank's share of the rows of a batch."""
        return rows[self._ranks.share(len(rows))]

    def _own_changes(self, changes: Changes) -> Changes:
        return Changes(*map(self._own, vars(changes).values()))

    def _padded(self, inputs: Tensor) -> Tensor:
        """Returns inputs in the form for drawing batches: images padded, channels last."""
        padded = pad_images(inputs, self._augmentation.crop_padding)
        return padded.permute(0, 2, 3, 1).contiguous() if self._images_last else padded

    def endless(self) -> Iterator[Batch]:
        """Yields the batches of one epoch after another."""
        while True:
            yield from self.epoch()

    def _changes(self) -> Sequence[Changes | None]:
        """Draws the changes of every step's images."""
        if not self._augmentation.active:
            return [None] * self.steps
        drawn = draw_changes(len(self._labels), self._augmentation, self._generator)
        columns = (drawn.top, drawn.left, drawn.flipped)
        per_step = zip(*(c.to(self._device).tensor_split(self.steps) for c in columns), strict=True)
        return [Changes(*columns) for columns in per_step]

    def _crops(self) -> RandomCrops | None:
        if not self._augmentation.random_resized_crop:
            return None
        seed = int(torch.randint(2**62, (), generator=self._generator))
        return RandomCrops(seed, self._augmentation.smallest_crop)


def check_augmentation(augmentation: AugmentationConfig, split: Split) -> None:
    """Refuses augmentation that does not suit the inputs of a split.

    Raises:
        UserError: the inputs are not images, or not in files although the augmentation needs files.
    """
    if augmentation.active and split.inputs.ndim != 4:
        raise UserError(
            "augmentation allowed: for images alone; the inputs of this dataset have shape "
            f"{tuple(split.inputs.shape[1:])}"
        )
    if augmentation.random_resized_crop and not isinstance(split.inputs, StreamedInputs):
        raise UserError(
            "augmentation.random_resized_crop=True is not allowed for images in memory; "
            "allowed: where they are streamed from files (dataset.storage=stream)"
        )
