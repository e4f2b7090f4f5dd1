"""Adversarial weight perturbation (AWP): Wu, Xia, Wang, NeurIPS 2020 (arXiv 2004.05884)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, cast

from kdplatform.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdplatform.methods import Output, Run

Ask = Callable[["Tensor"], "Output"]


def asked_at(run: Run, changes: Mapping[str, Tensor], *, learns: bool = True) -> Ask:
    """Returns a function that runs the student at changed weights; gradients go to its own weights.

    Args:
        changes: what is added to the parameters, by their names.
        learns: whether batch normalisation updates its statistics.
    """
    model = run.model
    buffers = {} if learns else {name: each.clone() for name, each in model.named_buffers()}

    def network(inputs: Tensor) -> Tensor:
        moved = {n: p + changes[n] if n in changes else p for n, p in model.named_parameters()}
        return cast("Tensor", torch.func.functional_call(model, {**moved, **buffers}, (inputs,)))

    return lambda inputs: run.ask(cast("nn.Module", network), inputs)


def worst_changes(run: Run, rows: Callable[[Ask], Tensor], size: float) -> dict[str, Tensor]:
    """Returns the change of the weights that raises a loss most, by one step of gradient ascent.

    Each weight matrix or kernel w changes by size * |w| * g / |g|, where g is its gradient. Biases
    and the weights of normalisation do not change, as in the authors' code.

    Args:
        rows: computes the loss of each row, [B], with a function that runs the student.
    """
    moved = {n: p for n, p in run.model.named_parameters() if p.requires_grad and p.ndim > 1}
    loss = rows(asked_at(run, {}, learns=False)).mean()
    slopes = torch.autograd.grad(loss, list(moved.values()), allow_unused=True)
    return {
        name: size * weight.detach().norm() * slope / (slope.norm() + 1e-20)
        for (name, weight), slope in zip(moved.items(), slopes, strict=True)
        if slope is not None
    }
