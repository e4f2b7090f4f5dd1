"""The processes that train one model together, and their communication.

Every rank has the labels, rows and logits of the whole batch, but only the inputs of its own share.
It runs the model on its share, gathers the outputs of all ranks, and computes the loss of the whole
batch. Every method therefore computes the same as in one process, even if the loss of a row depends
on other rows.

The loss L of the batch is the same on every rank. Rank r has the outputs z_r, so it passes size *
dL/dz_r back. DistributedDataParallel takes the mean over the ranks, which is the gradient of L.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from kdplatform.data import Inputs
from kdplatform.training.prediction import predict_logits
from kdplatform.training.synchronised_norm import SynchronisedBatchNorm

ValueT = TypeVar("ValueT")

# A rank may wait long for rank 0, because only rank 0 writes to disks and stores. Dead ranks are
# noticed by other means.
PATIENCE = timedelta(hours=6)
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Ranks:
    """One of the processes of torch's default process group, which train a model together.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes; 1 without a process group.
    """

    rank: int = 0
    size: int = 1

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is rank 0, the only rank that writes and prints."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Returns this rank's share of a number of rows; the shares differ by at most one row."""
        return _share(count, self.rank, self.size)

    def told(self, value: ValueT) -> ValueT:
        """Returns the value of rank 0 on every rank."""
        if self.alone:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=_CPU)
        return values[0]

    def collected(self, value: ValueT) -> list[ValueT]:
        """Returns the values of all ranks, on every rank."""
        if self.alone:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def whole(self, own: Tensor, count: int | None = None) -> Tensor:
        """Returns the rows of all ranks in their order: [sum of b, ...].

        Gradients flow to the own rows, times the number of ranks (see above).

        Args:
            own: [b, ...], the rows of this rank.
            count: number of rows of all ranks, if each has its `share`; None: the ranks exchange
                it.
        """
        if self.alone:
            return own
        if count is None:
            sizes = [int(n) for n in _gathered_equal(torch.tensor([len(own)]))]
        else:
            parts = (_share(count, rank, self.size) for rank in range(self.size))
            sizes = [part.stop - part.start for part in parts]
        whole: Tensor = _Whole.apply(own, sizes, self.rank)
        return whole

    def average(self, gradients: Iterator[Tensor]) -> None:
        """Replaces each tensor by the mean over the ranks."""
        for gradient in gradients:
            dist.all_reduce(gradient)
            gradient /= self.size

    def predict_logits(self, model: nn.Module, inputs: Inputs, **options: Any) -> Tensor:
        """Returns the logits [N, C] of `predict_logits`, each row computed by one rank.

        Every rank has to call it, and gets all rows.
        """
        if self.alone or len(inputs) < self.size:
            return predict_logits(model, inputs, **options)
        own = predict_logits(model, self.own_inputs(inputs), **options)
        with torch.no_grad():
            return self.whole(own, len(inputs))

    def own_inputs(self, inputs: Inputs) -> Inputs:
        """Returns this rank's share of inputs; streamed ones stay in their files."""
        share = self.share(len(inputs))
        if isinstance(inputs, Tensor):
            return inputs[share]
        return inputs.at(np.arange(share.start, share.stop))


ALONE = Ranks()


def data_parallel(model: nn.Module, device: torch.device, unused: bool) -> nn.Module:
    """Returns the model wrapped so that its gradients are the means over the ranks.

    Its weights become those of rank 0. A model without trained parameters is returned as it is.

    Args:
        unused: whether some of its parameters have no influence on its output.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        return model
    with warnings.catch_warnings():
        # Later versions have another name for `broadcast_buffers`.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(
            model,
            device_ids=[device] if device.type == "cuda" else None,
            # Batch normalisation and its statistics are synchronised elsewhere.
            broadcast_buffers=False,
            find_unused_parameters=unused,
        )


@contextmanager
def synchronised(*modules: nn.Module) -> Iterator[None]:
    """Lets batch normalisation use the statistics of the whole batch for a block.

    Layers are replaced by others that share their parameters and statistics. They are put back
    afterwards, so that code outside the block saves or copies the model with its own layers.
    """
    exchanged = []
    for root in modules:
        for parent in list(root.modules()):
            for name, layer in parent.named_children():
                if isinstance(layer, _LAYERS) and not isinstance(layer, nn.SyncBatchNorm):
                    exchanged.append((parent, name, layer))
                    parent.register_module(name, _synchronised_layer(layer))
    try:
        yield
    finally:
        for parent, name, layer in exchanged:
            layer.train(getattr(parent, name).training)
            parent.register_module(name, layer)


_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _synchronised_layer(layer: nn.Module) -> nn.Module:
    on_cuda = any(tensor.is_cuda for tensor in layer.state_dict().values())
    kind: type[Any] = nn.SyncBatchNorm if on_cuda else SynchronisedBatchNorm
    made: nn.Module = kind(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats
    )
    for name in ("weight", "bias"):
        made.register_parameter(name, getattr(layer, name))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        made.register_buffer(name, getattr(layer, name))
    return made.train(layer.training)


def _share(count: int, rank: int, size: int) -> slice:
    least, more = divmod(count, size)
    start = rank * least + min(rank, more)
    return slice(start, start + least + (rank < more))


def _gathered_equal(own: Tensor) -> list[Tensor]:
    """Returns the tensors of all ranks, which have equal shapes."""
    own = own.contiguous()
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, own)
    return parts


class _Whole(torch.autograd.Function):
    """All ranks' rows; see the file's docstring for the gradient."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int], rank: int) -> Tensor:
        start = sum(sizes[:rank])
        ctx.own, ctx.size = slice(start, start + sizes[rank]), len(sizes)
        padded = own.new_zeros(max(sizes), *own.shape[1:])
        padded[: len(own)] = own
        parts = _gathered_equal(padded)
        return torch.cat([part[:rows] for part, rows in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0][ctx.own] * ctx.size, None, None
