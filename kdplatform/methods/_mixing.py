"""Mixtures of several teachers: their weights, their common prediction, and how far they disagree.

Letters: N teachers, B rows, C classes. p_i is the softmax of teacher i's logits at temperature 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kdplatform.lazy import functional, torch

if TYPE_CHECKING:
    from torch import Tensor

Correctness = Literal["softmax_ce", "inverse_ce", "camkd"]
_TELLING = 1e-5
RowWeight = Literal["inverse_ce", "probability"]
Disagreement = Literal["jsd", "variance", "pairwise_kl"]


def log_mixture(teachers: Tensor, weights: Tensor, temperature: float = 1.0) -> Tensor:
    """Returns log of sum_i a_i softmax(z_i / T): [B, C].

    The temperature applies to each teacher before they are mixed.

    Args:
        teachers: logits [N, B, C].
        weights: a [N, B], summing to 1 over the teachers.
    """
    logs = (teachers / temperature).log_softmax(2)
    return (logs + weights.log().unsqueeze(2)).logsumexp(0)


def even_weights(teachers: Tensor) -> Tensor:
    """Returns 1 / N for all teachers and rows: [N, B]."""
    return torch.full_like(teachers[:, :, 0], 1 / len(teachers))


def label_losses(teachers: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross entropy of each teacher with the labels at temperature 1: [N, B]."""
    count, rows, classes = teachers.shape
    losses: Tensor = functional.cross_entropy(
        teachers.reshape(-1, classes), labels.repeat(count), reduction="none"
    )
    return losses.reshape(count, rows)


def correctness_weights(
    teachers: Tensor, labels: Tensor, form: Correctness, kappa: float
) -> Tensor:
    """Returns weights [N, B] that rise with a teacher's probability of the label, by row.

    `softmax_ce`: softmax over the teachers of -CE / kappa; with kappa = 1 that is p_i(y) over the
    sum of all. `inverse_ce`: 1 / (1 + CE), scaled to sum 1. `camkd`: (1 - softmax of CE) / (N - 1),
    of Zhang et al. 2022 (CA-MKD, arXiv 2201.00007; code read).
    """
    losses = label_losses(teachers, labels)
    if len(teachers) == 1:
        return torch.ones_like(losses)
    if form == "softmax_ce":
        return (-losses / kappa).softmax(0)
    if form == "inverse_ce":
        return functional.normalize(1 / (1 + losses), p=1, dim=0)
    return (1 - losses.softmax(0)) / (len(teachers) - 1)


def shortcut_weights(student: Tensor, teachers: Tensor, reference: Tensor, t: float) -> Tensor:
    """Returns weights [N, B] that are lower for a teacher that pulls like a biased reference.

    W_i = 1 - <g_i, g_r>, scaled to sum 1. g_i and g_r are the gradients (q - p) / T of the
    distillation terms of teacher and reference in the student's logits, as unit vectors. The idea
    is from the abstract of AGRE-KD (arXiv 2411.14984). The gradients in logits and the scaling are
    ours. If all teachers have exactly the reference's gradient, they have equal weights.

    Args:
        student: logits [B, C].
        reference: logits [B, C] of the biased model.
        t: temperature of the distillation term.
    """
    q = (student.detach() / t).softmax(1)
    pulls = functional.normalize(q - (teachers / t).softmax(2), dim=2)
    biased = functional.normalize(q - (reference / t).softmax(1), dim=1)
    raw = (1 - (pulls * biased).sum(2)).clamp(min=0)
    total = raw.sum(0)
    # Below this value float32 has no digits of 1 - <g_i, g_r> left.
    telling = total > _TELLING
    return torch.where(telling, raw / total.clamp(min=_TELLING), 1 / len(teachers))


def row_weights(log_mixed: Tensor, labels: Tensor, form: RowWeight) -> Tensor:
    """Returns how far the teachers together are right about each row, in (0, 1]: [B].

    Args:
        log_mixed: log-probabilities [B, C] of the mixture at temperature 1.
        form: `inverse_ce`: 1 / (1 + CE); `probability`: the mixture's probability of the label.
    """
    losses = functional.nll_loss(log_mixed, labels, reduction="none")
    return 1 / (1 + losses) if form == "inverse_ce" else (-losses).exp()


def disagreement(teachers: Tensor, form: Disagreement) -> Tensor:
    """Returns how far the teachers disagree about each row at temperature 1: [B], 0 if they agree.

    `jsd`: mean of KL(p_i || mean p), the generalised Jensen-Shannon divergence. `variance`: sum
    over the classes of the variance of p_i. `pairwise_kl`: mean of KL(p_i || p_j) over i != j.
    """
    logs = teachers.log_softmax(2)
    p = logs.exp()
    if form == "variance":
        return p.var(0, correction=0).sum(1)
    if form == "jsd":
        mixed = log_mixture(teachers, even_weights(teachers))
        return (p * (logs - mixed)).sum(2).mean(0).clamp(min=0)
    count = len(teachers)
    # sum over pairs of sum_k p_i (log p_i - log p_j): the diagonal is 0.
    own = (p * logs).sum(2).sum(0) * count
    cross = (p.sum(0) * logs.sum(0)).sum(1)
    return ((own - cross) / max(1, count * (count - 1))).clamp(min=0)
