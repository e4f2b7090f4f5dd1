"""Where the teacher's logits for a batch come from."""

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from kdplatform.config import AugmentationConfig
from kdplatform.objectives import Batch, Output
from kdplatform.training.batches import crop_and_flip, pad_images, view_changes, view_count
from kdplatform.training.precision import Precision, autocast
from kdplatform.training.prediction import predict_logits


class Teacher(Protocol):
    """Says what the teacher says about a batch."""

    def __call__(self, batch: Batch) -> Output:
        """Returns the teacher's output for the batch; no gradient flows into it."""
        ...

    def to(self, device: torch.device) -> "Teacher":
        """Returns the teacher on the device."""
        ...


class TeacherTable:
    """Logits computed once for the whole training split: for inputs that never change.

    Args:
        logits: floating point [N, C], row i for example i of the training split.
    """

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits.detach().float()

    def __call__(self, batch: Batch) -> Output:
        """Looks the batch's rows up."""
        return Output(self._logits[batch.rows])

    def to(self, device: torch.device) -> "TeacherTable":
        """Returns the table on the device."""
        return TeacherTable(self._logits.to(device))


class TeacherViews:
    """Logits computed once for every view of every training example: for augmented inputs.

    Half precision keeps a logit to one part in 2,048.

    Args:
        logits: float16 [N, views, C], row i for example i of the training split, views as
            `batches.view_numbers` counts them. It may be a file mapped into memory: only the
            batch's logits are read.
    """

    def __init__(self, logits: Tensor) -> None:
        self._logits = logits

    def __call__(self, batch: Batch) -> Output:
        """Looks the batch's rows and views up."""
        assert batch.views is not None
        return Output(self._logits[batch.rows, batch.views].float())

    def to(self, device: torch.device) -> "TeacherViews":
        """Returns the table on the device."""
        return TeacherViews(self._logits.to(device))


@torch.no_grad()
def view_logits(
    model: nn.Module,
    images: Tensor,
    augmentation: AugmentationConfig,
    *,
    device: torch.device,
    batch_size: int = 256,
) -> Iterator[Tensor]:
    """Yields the teacher's logits of all images, view by view: float32 [N, C] on the CPU.

    Args:
        model: takes raw inputs.
        images: [N, C, H, W], not yet padded.
        batch_size: rows at a time.
    """
    padding = augmentation.crop_padding
    padded = pad_images(images.to(device), padding).permute(0, 2, 3, 1).contiguous()
    for view in range(view_count(augmentation)):
        parts = []
        for rows in torch.split(torch.arange(len(images), device=device), batch_size):
            changes = view_changes(view, len(rows), augmentation, device)
            inputs = crop_and_flip(padded, rows, changes, padding)
            parts.append(predict_logits(model, inputs, device=device, batch_size=batch_size).cpu())
        yield torch.cat(parts)


class TeacherModel:
    """The teacher itself, on the inputs the student sees: for augmented inputs.

    It is put into eval mode for every batch and is no submodule of anything that trains, so that
    nobody's `train()` makes its batch normalisation learn.

    Args:
        model: takes raw inputs.
        precision: of its forward pass.
    """

    def __init__(self, model: nn.Module, precision: Precision = "fp32") -> None:
        self._model = model
        self._precision = precision

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Output:
        """Computes the logits of the batch's inputs."""
        with autocast(self._precision, batch.inputs.device):
            logits: Tensor = self._model.eval()(batch.inputs)
        return Output(logits.float())

    def to(self, device: torch.device) -> "TeacherModel":
        """Moves the model to the device and returns itself."""
        self._model.to(device)
        return self
