"""Where the teacher's logits for a batch come from."""

from typing import Protocol

import torch
from torch import Tensor, nn

from kdplatform.objectives import Batch, Output
from kdplatform.training.precision import Precision, autocast


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


class TeacherModel:
    """The teacher itself, on the inputs the student sees: for augmented inputs.

    It stays in eval mode and is no submodule of anything that trains, so that nobody's `train()`
    makes its batch normalisation learn.

    Args:
        model: takes raw inputs.
        precision: of its forward pass.
    """

    def __init__(self, model: nn.Module, precision: Precision = "fp32") -> None:
        self._model = model.eval()
        self._precision = precision

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Output:
        """Computes the logits of the batch's inputs."""
        with autocast(self._precision, batch.inputs.device):
            logits: Tensor = self._model(batch.inputs)
        return Output(logits.float())

    def to(self, device: torch.device) -> "TeacherModel":
        """Moves the model to the device and returns itself."""
        self._model.to(device)
        return self
