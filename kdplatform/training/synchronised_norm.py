"""Batch normalisation with the statistics of all ranks, for CPUs.

torch's `SyncBatchNorm` works only on GPUs.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronisedBatchNorm(_BatchNorm):
    """Normalises inputs [B, C, ...] by mean and variance over the rows of all ranks.

    The mean is computed first, and then the mean squared deviation from it. This avoids a
    difference of large squares. Ranks may have different numbers of rows.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Returns the normalised inputs; in eval mode as every batch normalisation does."""
        if not self.training and self.running_mean is not None:
            return super().forward(input)
        over = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        values = input.float()
        own = values.new_tensor([float(input.numel() // input.shape[1])])
        # Sums and count are sent in one message, because the cost of a message is its latency.
        sums = _summed(torch.cat([values.sum(over), own]))
        total = float(sums[-1].detach())
        mean = sums[:-1] / total
        centred = values - mean.view(shape)
        variance = _summed(centred.square().sum(over)) / total
        if self.training:
            self._learn(mean.detach(), variance.detach() * total / max(total - 1, 1.0))
        normal = (centred * (variance + self.eps).rsqrt().view(shape)).to(input.dtype)
        if self.weight is None:
            return normal
        return normal * self.weight.view(shape) + self.bias.view(shape)

    @torch.no_grad()
    def _learn(self, mean: Tensor, variance: Tensor) -> None:
        """Moves the running statistics towards a batch's; the variance is the unbiased one."""
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected inputs [B, C, ...], got {tuple(input.shape)}")


class _Sum(torch.autograd.Function):
    """The sum over the ranks. Gradients are summed too, because each rank uses the sum."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _summed(own: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(own)
    return total
