"""Logits of a trained model."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from kdplatform import interruption
from kdplatform.data import Inputs
from kdplatform.training.precision import Precision, autocast


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    inputs: Inputs,
    *,
    device: torch.device,
    batch_size: int = 256,
    precision: Precision = "fp32",
    channels_last: bool = True,
) -> Tensor:
    """Returns the model's logits for all inputs: float32 [N, C] on `device`.

    The model is moved to the device and evaluated in eval mode. Its former mode is restored.

    Args:
        model: takes raw inputs.
        inputs: [N, ...], raw inputs of the dataset: in memory on any device, or streamed.
        device: where to compute.
        batch_size: number of rows at a time.
        precision: with fp32 the numbers equal those of the saved model elsewhere.
        channels_last: memory layout of image batches.

    Raises:
        UserError: an image file of streamed inputs cannot be decoded.
    """
    was_training = model.training
    model.to(device).eval()
    layout = torch.channels_last if channels_last and inputs.ndim == 4 else torch.contiguous_format
    try:
        with autocast(precision, device):
            parts = []
            for rows in _batches(inputs, batch_size, device):
                interruption.check()
                rows = rows.to(device).contiguous(memory_format=layout)
                parts.append(model(rows).float())
    finally:
        model.train(was_training)
    return torch.cat(parts)


def _batches(inputs: Inputs, batch_size: int, device: torch.device) -> Iterable[Tensor]:
    if isinstance(inputs, Tensor):
        return torch.split(inputs, batch_size)
    steps = torch.split(torch.arange(len(inputs)), batch_size)
    return inputs.batches(steps, pinned=device.type == "cuda")
