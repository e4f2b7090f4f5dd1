"""The distillation loss: `kd_loss` and its backends."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdplatform.kernels.backend import BackendStatus, KDLossOutput, status
    from kdplatform.kernels.loss import kd_loss

__all__ = ["BackendStatus", "KDLossOutput", "kd_loss", "status"]


def __getattr__(name: str) -> object:
    # Imported on first use, so that `from kdplatform import kernels` does not load torch.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = "loss" if name == "kd_loss" else "backend"
    return getattr(importlib.import_module(f"{__name__}.{file}"), name)
