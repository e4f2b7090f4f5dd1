"""Slow libraries, loaded at their first use.

`from kdplatform.lazy import torch` costs nothing until `torch.something` runs. Files whose settings
the command line reads use these names, so that a wrong word is answered before torch has loaded.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    import torch
    import torch.nn.functional as functional

__all__ = ["functional", "pandas", "torch"]


class _Late:
    """Stands for a module and imports it at the first access to an attribute."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self._module), name)


if not TYPE_CHECKING:
    functional = _Late("torch.nn.functional")
    pandas = _Late("pandas")
    torch = _Late("torch")
