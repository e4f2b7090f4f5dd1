"""Features of the student and its teachers: how wide they are, and how they are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdplatform.lazy import torch
from kdplatform.methods import Batch, Output, Run

if TYPE_CHECKING:
    from torch import Tensor, nn

_PROBED_ROWS = 2


def flat_features(output: Output) -> Tensor:
    """Returns an output's features as one row per example: [B, D]."""
    assert output.features is not None
    return output.features.flatten(1)


def student_width(run: Run) -> int:
    """Returns how many features the student has per example, measured on two examples.

    The student runs in eval mode, so that its batch normalisation does not change.

    Raises:
        UserError: the student has no linear layer.
    """
    return _width(run, run.model)


def teacher_width(run: Run) -> int:
    """Returns how many features the teacher's network has per example, measured on two examples.

    Raises:
        UserError: the teacher is only a table, or has no linear layer.
    """
    probe = _probe(run)
    rows = torch.arange(len(probe), device=run.device)
    labels = run.split.labels[: len(probe)].to(run.device)
    answer = run.teacher(Batch(probe, labels, rows, rows), features=True)
    return int(flat_features(answer).shape[1])


def _width(run: Run, network: nn.Module) -> int:
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            answer = run.ask(network, _probe(run), features=True)
    finally:
        network.train(was_training)
    return int(flat_features(answer).shape[1])


def _probe(run: Run) -> Tensor:
    return run.split.inputs[:_PROBED_ROWS].to(run.device)


def distances(features: Tensor) -> Tensor:
    """Returns the Euclidean distance of each pair of rows: [B, B], the diagonal 0.

    Args:
        features: [B, D].
    """
    # Differences are used, because products of rows lose the digits of small distances.
    return torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")


def unit_rows(values: Tensor, dim: int = -1) -> Tensor:
    """Returns vectors divided by their norm; a vector of zeros stays as it is."""
    largest = values.detach().abs().amax(dim=dim, keepdim=True)
    scaled = values / largest.masked_fill(largest == 0, 1.0)
    squared = scaled.square().sum(dim=dim, keepdim=True)
    return scaled / squared.masked_fill(squared == 0, 1.0).sqrt()
