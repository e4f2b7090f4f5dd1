"""The loss of a small batch on the CPU in NumPy: the fallback if no kernel serves.

The number of operations dominates a batch of few classes, and a NumPy operation costs a third of a
PyTorch one. `plain.py` chooses the arguments for it, and `reference.py` has the formulas.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kdplatform.kernels.reference import RowLosses, kl_terms

Floats = NDArray[np.floating]

DOUBLE_LOGITS = 1 << 12
"""Up to this many logits are computed in float64, where no digits are lost."""

_LOG2_E = math.log2(math.e)

MOST_CLASSES_ACROSS = 128
"""Up to this many classes logits are transposed: sums along a short last axis are slow."""

LEAST_PLAIN_DIVERGENCE = 1 / 64
"""sum p d has an error of about 1e-7, whatever its size: below this, terms >= 0 are summed."""


def small_block(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None,
    *,
    temperatures: tuple[float, float],
    weights: tuple[float, float],
    ignore_index: int | None,
    reduction: str,
) -> tuple[RowLosses, Tensor]:
    """Compute the loss and the gradient of its reduction by the student's logits.

    Args:
        labels: classes or `ignore_index`, nothing else.
        temperatures: of student and teacher.
        weights: of KL and CE.
        ignore_index: None: no label is ignored.
    """
    wide = student_logits.numel() <= DOUBLE_LOGITS or max(temperatures) > 100
    axis = -2 if student_logits.shape[1] <= MOST_CLASSES_ACROSS else -1
    logits = _stacked(student_logits, teacher_logits, np.float64 if wide else np.float32, axis)
    with np.errstate(all="ignore"):  # infinite logits are allowed
        largest: Floats = logits.max(axis, keepdims=True)
        shifted = logits - largest
        if wide:  # in place of -inf: p d is then 0 if p is 0, and infinite if only q is 0
            np.maximum(shifted, -1e200, out=shifted)
        rates = [[[_LOG2_E / temperature]] for temperature in temperatures]
        bits = shifted * np.array(rates, shifted.dtype)
        powers: Floats = np.exp2(bits)
        sums = powers.sum(axis, keepdims=True)
        # sum p (t'/Tt - s'/Ts) - log(Zt/Zs)
        mean = np.einsum("cb,cb->b" if axis == -2 else "bc,bc->b", powers[1], bits[1] - bits[0])
        student_sum, teacher_sum = sums.squeeze(axis)
        kl = mean / teacher_sum * (1 / _LOG2_E) - np.log(teacher_sum / student_sum)
        if wide:
            np.maximum(kl, 0, out=kl)
        elif not kl.min() > LEAST_PLAIN_DIVERGENCE:  # also true for NaN, from infinite logits
            careful = _careful_divergence(logits, largest, powers / sums, sums, temperatures, axis)
            kl = np.where(kl > LEAST_PLAIN_DIVERGENCE, kl, careful)
        factor = 1 / len(kl) if reduction == "mean" else 1.0
        loss = _weighted(weights[0], kl)
        powers *= weights[0] / temperatures[0] * factor / sums
        gradient = powers[0] - powers[1]
        ce = np.zeros_like(kl)
        if labels is not None:
            ce, ce_weight = _add_cross_entropy(
                shifted[0], labels.numpy(), weights[1], ignore_index, gradient, factor, axis
            )
            loss += _weighted(ce_weight, ce)
        rows = [loss, kl, ce] if reduction == "none" else [x.sum() * factor for x in (loss, kl, ce)]
        losses = RowLosses(*(torch.from_numpy(np.asarray(x, np.float32)) for x in rows))
        if axis == -2:
            gradient = gradient.T
        return losses, torch.from_numpy(gradient.astype(np.float32, order="C", copy=False))


def _stacked(student: Tensor, teacher: Tensor, dtype: type[np.floating], axis: int) -> Floats:
    """Both logits, [2, B, C], or [2, C, B] for classes along axis -2."""
    arrays = [logits.detach().float().resolve_neg().numpy() for logits in (student, teacher)]
    return np.array([array.T for array in arrays] if axis == -2 else arrays, dtype)


def _careful_divergence(
    logits: Floats,
    largest: Floats,
    probabilities: Floats,
    sums: Floats,
    temperatures: tuple[float, float],
    axis: int,
) -> Floats:
    """Sum of terms >= 0, with d from the difference of the logits, exact if it is small."""
    log_ratio = ((logits[1] - logits[0]) - (largest[1] - largest[0])) / temperatures[0]
    if temperatures[0] != temperatures[1]:
        log_ratio += (logits[1] - largest[1]) * (1 / temperatures[1] - 1 / temperatures[0])
    log_ratio -= np.log(sums[1] / sums[0])
    q, p = probabilities
    terms = kl_terms(*map(torch.from_numpy, (p, q, q - p, log_ratio)))
    kl: Floats = terms.sum(axis).numpy()
    return kl


def _add_cross_entropy(
    shifted: Floats,
    labels: NDArray[np.int64],
    weight: float,
    ignore_index: int | None,
    gradient: Floats,
    factor: float,
    axis: int,
) -> tuple[Floats, float | Floats]:
    """Cross entropy of each row and its weight; adds its gradient."""
    weights: float | Floats = weight
    if ignore_index is not None:
        counted = labels != ignore_index
        labels, weights = np.where(counted, labels, 0), np.where(counted, weight, 0.0)
    exponentials = np.exp2(shifted * shifted.dtype.type(_LOG2_E))
    total = exponentials.sum(axis)
    rows = np.arange(len(labels))
    at = (labels, rows) if axis == -2 else (rows, labels)
    ce: Floats = np.log(total) - shifted[at]
    if ignore_index is not None:
        ce[~counted] = 0
    exponentials *= np.expand_dims(weights * factor / total, axis)
    gradient += exponentials
    gradient[at] -= weights * factor
    return ce, weights


def _weighted(weight: float | Floats, rows: Floats) -> Floats:
    """Weight times value. A weight of 0 removes an infinite value."""
    if isinstance(weight, float) and weight:
        return rows * weight
    return np.where(np.isinf(rows) & (np.asarray(weight) == 0), 0, rows) * weight
