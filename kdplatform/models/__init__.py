"""Architectures: one file per family, each registering the names it can build.

A family is a module of this package with a function `build(name, *, in_channels, image_size,
num_classes)` decorated with `@register_model("name", ...)`. Listing the names imports every family,
so a family that needs a heavy library imports it inside that function.
"""

from typing import Protocol

from torch import nn

from kdplatform.models.normalization import InputNormalization
from kdplatform.registry import Registry

__all__ = ["InputNormalization", "build_model", "model_names", "register_model"]


class ModelBuilder(Protocol):
    """What a family registers."""

    def __call__(
        self, name: str, *, in_channels: int, image_size: int, num_classes: int
    ) -> nn.Module:
        """Builds the named model of the family with freshly drawn weights."""
        ...


_models: Registry[ModelBuilder] = Registry("model", __name__)
register_model = _models.register


def model_names() -> tuple[str, ...]:
    """Returns the names of all architectures."""
    return _models.names()


def build_model(name: str, *, in_channels: int, image_size: int, num_classes: int) -> nn.Module:
    """Builds a classifier of normalised images with weights drawn from torch's global generator.

    Args:
        name: one of `model_names()`.
        in_channels: channels of an image.
        image_size: height and width of the square images, in pixels.
        num_classes: number of logits.

    Returns:
        A module from float images [B, in_channels, image_size, image_size] to logits
        [B, num_classes].

    Raises:
        UserError: there is no architecture of this name, or it cannot take this image size.
    """
    return _models.get(name)(
        name, in_channels=in_channels, image_size=image_size, num_classes=num_classes
    )
