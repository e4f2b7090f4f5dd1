"""The distillation loss: `kd_loss` and its backends."""

from kdplatform.kernels.loss import KDLossOutput, kd_loss

__all__ = ["KDLossOutput", "kd_loss"]
