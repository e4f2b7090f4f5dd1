"""From raw inputs to logits: the normalisation is part of the model trained with it."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class InputNormalization(nn.Module):
    """A model that takes raw inputs and normalises them by constants saved with its weights.

    Images of one channel are repeated for each constant's channel.

    Args:
        model: takes normalised inputs.
        mean: float [channels], of the training inputs; uint8 inputs count as fractions of 255.
        std: float [channels], all above zero.
        image_size: side in pixels to which other images are resized; None: no resizing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: nn.Module, mean: Tensor, std: Tensor, image_size: int | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.image_size = image_size
        self.register_buffer("mean", mean.detach().clone().float())
        self.register_buffer("std", std.detach().clone().float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the model's logits [B, classes].

        Args:
            inputs: [B, channels, ...], uint8 from 0 to 255, or floating point in the units of
                `mean` (for images: 0 to 1).
        """
        per_channel = (-1, *([1] * (inputs.ndim - 2)))
        unit = 255.0 if inputs.dtype == torch.uint8 else 1.0
        # One multiply-add instead of three passes: (x / unit - mean) / std.
        scale = (1.0 / (unit * self.std)).view(per_channel)
        shift = (-self.mean / self.std).view(per_channel)
        return cast(Tensor, self.model(torch.addcmul(shift, self._resized(inputs), scale)))

    def _resized(self, inputs: Tensor) -> Tensor:
        inputs = inputs.float()
        size = self.image_size
        if size is None or tuple(inputs.shape[-2:]) == (size, size):
            return inputs
        # Antialiased, as torchvision resizes images for its published weights.
        return F.interpolate(inputs, (size, size), mode="bilinear", antialias=True)
