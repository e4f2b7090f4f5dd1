"""Common corruptions of images: Hendrycks and Dietterich, ICLR 2019 (arXiv 1903.12261).

This is our own implementation with the published constants: those of CIFAR-10-C for images of up to
64 pixels, and those of ImageNet-C for larger ones.
"""

import math

import torch
from torch import Tensor

# Constants by severity, 1 to 5: for small images, and for larger ones.
_NOISE = ((0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
_BLUR = ((0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0))
_CONTRAST = ((0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
_LARGEST_SMALL = 64
# Cut-off of a blur's kernel in standard deviations, as in the authors' library.
_REACH = 4.0


def corrupted(images: Tensor, corruption: str, severity: int, generator: torch.Generator) -> Tensor:
    """Returns corrupted images of bytes: uint8 [B, C, H, W].

    Args:
        images: uint8 [B, C, H, W].
        corruption: gaussian_noise, gaussian_blur or contrast.
        severity: 1 to 5.
        generator: draws the noise, on the CPU.
    """
    large, place = int(max(images.shape[-2:]) > _LARGEST_SMALL), severity - 1
    given = images.float() / 255.0
    if corruption == "gaussian_noise":
        noise = torch.randn(tuple(images.shape), generator=generator).to(images.device)
        changed = given + _NOISE[large][place] * noise
    elif corruption == "gaussian_blur":
        changed = _blurred(given, _BLUR[large][place])
    else:
        mean = given.mean(dim=(2, 3), keepdim=True)
        changed = (given - mean) * _CONTRAST[large][place] + mean
    return (changed.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


def _blurred(images: Tensor, deviation: float) -> Tensor:
    # Imported here: torchvision takes a second, and few commands blur.
    from torchvision.transforms.v2.functional import gaussian_blur

    # The borders are mirrored, so the kernel must not be wider than the image allows.
    reach = min(math.ceil(_REACH * deviation), min(images.shape[-2:]) - 1)
    blurred: Tensor = gaussian_blur(images, [2 * reach + 1] * 2, [deviation] * 2)
    return blurred
