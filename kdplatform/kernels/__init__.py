"""The distillation loss: `kd_loss` and its backends."""

from kdplatform.kernels.arguments import KDLossOutput
from kdplatform.kernels.backend import BackendStatus, status
from kdplatform.kernels.loss import kd_loss

__all__ = ["BackendStatus", "KDLossOutput", "kd_loss", "status"]
