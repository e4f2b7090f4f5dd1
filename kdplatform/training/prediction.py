"""Logits of a trained model."""

import torch
from torch import Tensor, nn

from kdplatform.training.precision import Precision, autocast


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    inputs: Tensor,
    *,
    device: torch.device,
    batch_size: int = 256,
    precision: Precision = "fp32",
    channels_last: bool = True,
) -> Tensor:
    """Returns the model's logits for all inputs: float32 [N, C] on `device`.

    The model is moved to the device, evaluated in eval mode, and left in the mode it was in.

    Args:
        model: takes raw inputs.
        inputs: [N, ...], as the dataset gave them, on any device.
        device: where to compute.
        batch_size: rows at a time.
        precision: fp32 gives the numbers that the saved model gives anywhere.
        channels_last: memory layout of image batches.
    """
    was_training = model.training
    model.to(device).eval()
    layout = torch.channels_last if channels_last and inputs.ndim == 4 else torch.contiguous_format
    try:
        with autocast(precision, device):
            parts = [
                model(rows.to(device).contiguous(memory_format=layout)).float()
                for rows in torch.split(inputs, batch_size)
            ]
    finally:
        model.train(was_training)
    return torch.cat(parts)
