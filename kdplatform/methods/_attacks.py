"""Attacks on images: the fast gradient sign method, and projected gradient descent.

Goodfellow et al., ICLR 2015 (arXiv 1412.6572); Madry et al., ICLR 2018 (arXiv 1706.06083). Images
are floating point with pixels from 0 to 1, and all distances are between such images. A model's own
normalisation is part of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kdplatform.errors import UserError
from kdplatform.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdplatform.data import Dataset
    from kdplatform.settings.schema import AttackConfig

# Returns for each image the loss that an attack raises: [B].
LossOfImages = Callable[["Tensor"], "Tensor"]
_PROBED_ROWS = 2
# Largest allowed difference of the logits of two forms of the same images, relative to the largest
# logit.
_SAME = 1e-3


def check_attackable(dataset: Dataset, asked_by: str) -> None:
    """Refuses data whose inputs are not images of bytes.

    Args:
        asked_by: what wants to change the inputs, for the message.

    Raises:
        UserError: they are the features of a table, or token ids.
    """
    inputs = dataset.train.inputs
    if dataset.facts().holds_images and inputs.dtype == torch.uint8:
        return
    kind = "features of a table" if dataset.vocabulary is None else "token ids"
    raise UserError(
        f"{asked_by} changes images, and dataset {dataset.name} holds {kind} of shape "
        f"{tuple(inputs.shape[1:])}; allowed: data of images"
    )


def check_takes_fractions(model: nn.Module, inputs: Tensor, asked_by: str) -> None:
    """Refuses a model whose outputs differ between images as bytes and as fractions.

    Args:
        inputs: uint8 [B, C, H, W], on the model's device.

    Raises:
        UserError: it does; it is one of the user's.
    """
    with torch.no_grad(), in_eval(model):
        of_bytes, of_fractions = model(inputs[:_PROBED_ROWS]), model(pixels(inputs[:_PROBED_ROWS]))
    largest = of_bytes.abs().max().clamp(min=1e-6)
    if not bool((of_bytes - of_fractions).abs().max() <= _SAME * largest):
        raise UserError(
            f"{asked_by} needs a model that takes images as bytes (0 to 255) and as fractions (0 "
            f"to 1), and {type(model).__name__} answers the two differently; allowed: a model of "
            "the platform, or one that divides uint8 images alone by 255"
        )


def pixels(inputs: Tensor) -> Tensor:
    """Returns images of bytes as float32 from 0 to 1."""
    return inputs.float() / 255.0


@contextmanager
def in_eval(model: nn.Module) -> Iterator[None]:
    """Puts a model into eval mode for a block; afterwards each part has its former mode again."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def iterates(
    images: Tensor, loss: LossOfImages, attack: AttackConfig, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yields the images of an attack: the starting point, then those of each step.

    Args:
        images: [B, C, H, W], from 0 to 1.
        generator: draws the random start, on the CPU.
    """
    step = attack.eps if attack.attack == "fgsm" else attack.step_size
    begins_anywhere = attack.attack == "pgd" and attack.random_start
    found = _random_start(images, attack, generator) if begins_anywhere else images
    yield found
    for _ in range(1 if attack.attack == "fgsm" else attack.steps):
        found = found.detach().requires_grad_()
        with torch.enable_grad():
            [slope] = torch.autograd.grad(loss(found).sum(), found)
        moved = found.detach() + step * _direction(slope, attack.norm)
        found = _within(images, moved, attack)
        yield found


def attacked(
    images: Tensor, loss: LossOfImages, attack: AttackConfig, generator: torch.Generator
) -> Tensor:
    """Returns the images of an attack's last step: [B, C, H, W], from 0 to 1."""
    *_, last = iterates(images, loss, attack, generator)
    return last


def _direction(slope: Tensor, norm: str) -> Tensor:
    """Returns the change of unit size that raises the loss most."""
    if norm == "inf":
        return slope.sign()
    largest = slope.abs().amax(dim=(1, 2, 3), keepdim=True)
    scaled = slope / largest.masked_fill(largest == 0, 1.0)
    return scaled / _lengths(scaled).clamp(min=1e-12)


def _within(images: Tensor, moved: Tensor, attack: AttackConfig) -> Tensor:
    """Returns the images nearest to the moved ones that are within eps, from 0 to 1."""
    if attack.norm == "inf":
        near = torch.minimum(torch.maximum(moved, images - attack.eps), images + attack.eps)
        return near.clamp(0.0, 1.0)
    change = moved - images
    shrunk = change * (attack.eps / _lengths(change).clamp(min=1e-12)).clamp(max=1.0)
    # Clipping to 0 and 1 never moves a pixel further away from the image.
    return (images + shrunk).clamp(0.0, 1.0)


def _random_start(images: Tensor, attack: AttackConfig, generator: torch.Generator) -> Tensor:
    """Returns images within eps, all equally likely."""
    shape = tuple(images.shape)
    if attack.norm == "inf":
        noise = (2 * torch.rand(shape, generator=generator) - 1) * attack.eps
    else:
        noise = torch.randn(shape, generator=generator)
        size = images[0].numel()
        radii = torch.rand(len(images), 1, 1, 1, generator=generator) ** (1 / size)
        noise = noise / _lengths(noise).clamp(min=1e-12) * radii * attack.eps
    return (images + noise.to(images.device)).clamp(0.0, 1.0)


def _lengths(changes: Tensor) -> Tensor:
    return changes.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
