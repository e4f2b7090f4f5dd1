"""Architectures: one file per family, each registering the names it can build.

A family is a module of this package with a function `build(name, data)`, which draws fresh weights
and is decorated with `@register_model("name", ...)`. Names are read from the source. A family is
imported when one of its models is built.
"""

from __future__ import annotations

from collections.abc import Callable

from kdplatform.data import DataFacts
from kdplatform.lazy import torch
from kdplatform.registry import Registry

__all__ = ["build_model", "model_names", "register_model"]


_models: Registry[Callable[[str, DataFacts], torch.nn.Module]] = Registry("model", __name__)
register_model = _models.register
model_names = _models.names


def build_model(name: str, data: DataFacts) -> torch.nn.Module:
    """Builds a classifier with weights drawn from torch's global generator.

    It takes normalised float images or features [B, *data.input_shape], or int64 token ids
    [B, length], and returns logits [B, data.num_classes].

    Raises:
        UserError: there is no architecture of this name, or it cannot take these inputs.
    """
    return _models.get(name)(name, data)
