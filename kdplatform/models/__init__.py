"""Architectures: one file per family, each registering the names it can build.

A family is a module of this package with a function `build(name, data)` decorated with
`@register_model("name", ...)`. Names are read from the source; a family is imported when one of
its models is built.
"""

from __future__ import annotations

from typing import Protocol

from kdplatform.data import DataFacts
from kdplatform.lazy import torch
from kdplatform.registry import Registry

__all__ = ["build_model", "model_names", "register_model"]


class ModelBuilder(Protocol):
    """What a family registers."""

    def __call__(self, name: str, data: DataFacts) -> torch.nn.Module:
        """Builds the named model of the family with freshly drawn weights."""
        ...


_models: Registry[ModelBuilder] = Registry("model", __name__)
register_model = _models.register


def model_names() -> tuple[str, ...]:
    """Returns the names of all architectures."""
    return _models.names()


def build_model(name: str, data: DataFacts) -> torch.nn.Module:
    """Builds a classifier with weights drawn from torch's global generator.

    Args:
        name: one of `model_names()`.
        data: what it is to classify.

    Returns:
        A module from normalised float images or features [B, *data.input_shape], or from int64
        token ids [B, length], to logits [B, data.num_classes].

    Raises:
        UserError: there is no architecture of this name, or it cannot take these inputs.
    """
    return _models.get(name)(name, data)
