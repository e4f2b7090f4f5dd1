"""Logits and labels for tests of the loss, the usual formula, and a loss with its gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from kdplatform.kernels import kd_loss


def logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def targets(rows: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


def eager(student: Tensor, teacher: Tensor, labels: Tensor, t: float, alpha: float) -> Tensor:
    """The loss as it is usually written."""
    log_q = F.log_softmax(student / t, -1)
    p = F.softmax(teacher / t, -1)
    kl = F.kl_div(log_q, p, reduction="batchmean")
    return alpha * t * t * kl + (1 - alpha) * F.cross_entropy(student, labels)


def loss_and_gradient(student: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
    student = student.detach().requires_grad_()
    loss = kd_loss(student, *args, **kwargs).loss
    loss.sum().backward()
    assert student.grad is not None
    return loss.detach(), student.grad
