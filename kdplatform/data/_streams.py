"""Images that stay in their files and are decoded when a batch asks for them."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdplatform.data._decoding import centre_box, decoded, random_box
from kdplatform.errors import KdplatformError, MachineError
from kdplatform.lazy import torch

_MOST_WORKERS = 8
# Batches that every worker makes ahead.
_AHEAD = 2


@dataclass(frozen=True)
class RandomCrops:
    """Random resized crops of one epoch, a function of seed and row and nothing else.

    Attributes:
        seed: of the epoch.
        smallest: least share of the image's area that a crop shows.
    """

    seed: int
    smallest: float


class StreamedInputs:
    """The images of a split, in files: uint8 [N, 3, size, size] like a tensor of them.

    Length, shape, dtype and indexing by an integer, a slice or a tensor of rows are a tensor's, so
    code that reads a few examples need not distinguish the two. Whole splits go through `batches`,
    which decodes ahead in worker processes. The result does not depend on their number.

    Args:
        root: folder of the files.
        files: their paths below it.
        size: side of an example, in pixels.
        resize: the shorter side is resized to this before the centre is cut out.
        workers: processes; None: as many as this process has threads, at most 8; 0: none.
    """

    ndim = 4

    def __init__(
        self,
        root: Path,
        files: Sequence[str],
        *,
        size: int,
        resize: int | None = None,
        workers: int | None = None,
    ) -> None:
        self._root = root
        # One block of bytes: counting references to a million strings would copy the memory that
        # worker processes share.
        self._files: NDArray[np.bytes_] = np.array([os.fsencode(file) for file in files])
        self._size = size
        self._resize = resize or size
        self._workers = workers

    @property
    def dtype(self) -> torch.dtype:
        """Bytes."""
        return torch.uint8

    @property
    def shape(self) -> torch.Size:
        """[N, 3, size, size]."""
        return torch.Size((len(self), 3, self._size, self._size))

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:
        chosen = np.arange(len(self))[rows.numpy() if isinstance(rows, torch.Tensor) else rows]
        if chosen.ndim == 0:
            return self.decode(int(chosen))
        images = [self.decode(int(row)) for row in chosen]
        return torch.stack(images) if images else torch.empty(0, *self.shape[1:], dtype=self.dtype)

    def at(self, rows: NDArray[np.int64]) -> StreamedInputs:
        """Returns the images at these rows as inputs of their own."""
        chosen = copy.copy(self)
        chosen._files = self._files[rows]
        return chosen

    def path(self, row: int) -> Path:
        """Returns the file of an example."""
        return self._root / os.fsdecode(self._files[row])

    def decode(self, row: int, crops: RandomCrops | None = None) -> torch.Tensor:
        """Returns an example: uint8 [3, size, size], its centre or a random crop.

        Raises:
            UserError: the file is no image that can be decoded; names it.
        """
        if crops is None:
            return decoded(self.path(row), self._size, centre_box(self._size / self._resize))
        generator = np.random.default_rng((crops.seed, row))
        return decoded(self.path(row), self._size, random_box(generator, crops.smallest))

    def batches(
        self, steps: Sequence[torch.Tensor], *, pinned: bool = False
    ) -> Iterator[torch.Tensor]:
        """Yields the images [B, 3, size, size] of each step's rows.

        Args:
            steps: int64 [B] each.
            pinned: in memory that a GPU can read by itself.

        Raises:
            UserError: a file is no image that can be decoded; names it.
            MachineError: a worker process died.
        """
        return StreamLoader(self, pinned=pinned).epoch(steps)

    @property
    def workers(self) -> int:
        """Processes that decode ahead."""
        chosen = self._workers
        return min(torch.get_num_threads(), _MOST_WORKERS) if chosen is None else chosen


class StreamLoader:
    """Decodes one epoch after the other with the same worker processes."""

    def __init__(self, inputs: StreamedInputs, *, pinned: bool) -> None:
        workers = inputs.workers
        # The steps of the epoch to come; changes between epochs.
        self._order: list[_Step] = []
        self._loader: torch.utils.data.DataLoader[torch.Tensor | KdplatformError] = (
            torch.utils.data.DataLoader(
                _Decoder(inputs),  # type: ignore[arg-type]
                sampler=self._order,
                batch_size=None,
                num_workers=workers,
                prefetch_factor=_AHEAD if workers else None,
                persistent_workers=workers > 0,
                pin_memory=pinned,
                # Workers draw nothing from it; without it they would draw from the model's.
                generator=torch.Generator(),
            )
        )

    def epoch(
        self, steps: Sequence[torch.Tensor], crops: RandomCrops | None = None
    ) -> Iterator[torch.Tensor]:
        """Yields the images of each step, in order; see `StreamedInputs.batches`."""
        for images in self.attempts(steps, crops):
            if isinstance(images, KdplatformError):
                # A new one: this frame must not hold what holds this frame, because workers that
                # the garbage collector finds in a cycle take seconds to end.
                raise type(images)(str(images))
            yield images

    def attempts(
        self, steps: Sequence[torch.Tensor], crops: RandomCrops | None = None
    ) -> Iterator[torch.Tensor | KdplatformError]:
        """Yields the images of each step, or the error of one that does not decode.

        Raises:
            MachineError: a worker process died.
        """
        # Numbers and not tensors: each of these would go to a worker by a file of its own.
        self._order[:] = [(rows.tolist(), crops) for rows in steps]
        try:
            yield from self._loader
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise MachineError(
                "a process that decodes images died (killed, or the memory or /dev/shm was full); "
                "dataset.workers=0 decodes without such processes"
            ) from error


_Step = tuple[list[int], RandomCrops | None]


class _Decoder:
    """Makes a batch in a worker process."""

    def __init__(self, inputs: StreamedInputs) -> None:
        self._inputs = inputs

    def __getitem__(self, step: _Step) -> torch.Tensor | KdplatformError:
        rows, crops = step
        try:
            return torch.stack([self._inputs.decode(row, crops) for row in rows])
        except KdplatformError as error:
            # Handed over as a value: raised here, it would arrive as a worker's traceback.
            return error
