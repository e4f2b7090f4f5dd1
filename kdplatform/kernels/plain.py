"""The loss of plain arguments in PyTorch: the fast fallback if no kernel serves.

Arguments are plain if the logits are [B, C] of at most 32 bits, temperatures and weights are
numbers, and there is no class mask. `reference.py` has the formulas and serves all other arguments.

A small batch on the CPU goes to `small.py`. Memory traffic dominates a large batch, so its rows are
processed in blocks that stay in the caches.
"""

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from kdplatform.kernels.arguments import RowArguments, all_labels_count, check_values
from kdplatform.kernels.forward_mode import transforms_are_active
from kdplatform.kernels.reference import (
    RowLosses,
    kl_terms,
    refuse_second_derivative,
    weighted,
)
from kdplatform.kernels.small import LEAST_PLAIN_DIVERGENCE, small_block

SMALL_LOGITS = 1 << 15
"""Up to this many logits PyTorch uses one thread, and NumPy takes less time per operation."""

BLOCK_LOGITS = 1 << 17
"""Logits of a block: half a megabyte in float32, enough for several threads."""

MOST_CLASSES_ACROSS = 64
"""Up to this many classes a block is transposed: sums along a short last dimension are slow."""

_LOG2_E = math.log2(math.e)


def is_plain(arguments: RowArguments) -> bool:
    """Whether `plain_losses` takes these arguments."""
    numbers = (
        arguments.student_temperature,
        arguments.teacher_temperature,
        arguments.kl_weight,
        arguments.ce_weight,
    )
    return (
        len(arguments.rows) == 1
        and arguments.rows[0] > 0
        and arguments.compute_dtype is torch.float32
        and arguments.class_mask is None
        and not any(isinstance(number, Tensor) for number in numbers)
        and not torch.compiler.is_compiling()
        and not transforms_are_active()
    )


def plain_losses(arguments: RowArguments) -> RowLosses:
    """Compute the loss, reduced; see `kdplatform.kd_loss` for the contract.

    Raises:
        ValueError: a label on the CPU is out of range.
    """
    if torch.is_grad_enabled() and arguments.student_logits.requires_grad:
        return RowLosses(*_Plain.apply(arguments.student_logits, arguments))
    return _losses_and_gradient(arguments, wants_gradient=False)[0]


class _Plain(torch.autograd.Function):
    """Losses whose gradient was computed in the forward pass."""

    @staticmethod
    def forward(ctx: Any, student_logits: Tensor, arguments: RowArguments) -> RowLosses:
        losses, gradient = _losses_and_gradient(arguments, wants_gradient=True)
        ctx.save_for_backward(gradient)
        ctx.dtype = student_logits.dtype
        ctx.mark_non_differentiable(losses.kl, losses.ce)
        return losses

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, *_: Tensor) -> tuple[Tensor, None]:
        refuse_second_derivative()
        (gradient,) = ctx.saved_tensors
        if grad_loss.ndim:
            grad_loss = grad_loss.unsqueeze(-1)
        # The only rounding to the student's type.
        return (gradient * grad_loss).to(ctx.dtype), None


def _losses_and_gradient(
    arguments: RowArguments, *, wants_gradient: bool
) -> tuple[RowLosses, Tensor | None]:
    """The reduced losses, and the gradient of the reduced loss by the student's logits."""
    student = arguments.student_logits
    on_cpu = student.device.type == "cpu"
    all_count = on_cpu and all_labels_count(arguments)
    if on_cpu and not all_count:
        check_values(arguments)
    numbers = _numbers(arguments)
    rows, classes = student.shape
    if on_cpu and rows * classes <= SMALL_LOGITS and not is_in_torch_dispatch_mode():
        return small_block(
            student,
            arguments.teacher_logits,
            arguments.labels,
            temperatures=numbers[:2],
            weights=numbers[2:],
            ignore_index=None if all_count else arguments.ignore_index,
            reduction=arguments.reduction,
        )
    step = max(1, BLOCK_LOGITS // classes) if on_cpu else rows
    if rows <= step:
        losses, gradient = _block(arguments, slice(None), all_count)
        return _reduced(losses, arguments.reduction), gradient
    whole = None
    if wants_gradient:
        whole = torch.empty(student.shape, dtype=torch.float32, device=student.device)
    parts = []
    for first in range(0, rows, step):
        some = slice(first, first + step)
        losses, gradient = _block(arguments, some, all_count)
        parts.append(losses)
        if whole is not None:
            whole[some] = gradient
    losses = RowLosses(*(torch.cat(values) for values in zip(*parts, strict=True)))
    return _reduced(losses, arguments.reduction), whole


def _numbers(arguments: RowArguments) -> tuple[float, float, float, float]:
    """Temperatures of student and teacher; weights of KL (with T^2 if requested) and CE."""
    student = cast(float, arguments.student_temperature)
    teacher = cast(float, arguments.teacher_temperature)
    kl_weight, ce_weight = cast(float, arguments.kl_weight), cast(float, arguments.ce_weight)
    if arguments.scale_by_t2:
        kl_weight *= student * teacher
    return student, teacher, kl_weight, ce_weight


def _reduced(rows: RowLosses, reduction: str) -> RowLosses:
    if reduction == "none":
        return rows
    return RowLosses(*(values.sum() if reduction == "sum" else values.mean() for values in rows))


def _block(arguments: RowArguments, rows: slice, all_count: bool) -> tuple[RowLosses, Tensor]:
    """Losses of some rows, and the gradient of their reduction."""
    student_temperature, teacher_temperature, kl_weight, ce_weight = _numbers(arguments)
    factor = 1 / arguments.rows[0] if arguments.reduction == "mean" else 1.0
    dim = -1
    student, teacher = (
        logits.detach()[rows].float()
        for logits in (arguments.student_logits, arguments.teacher_logits)
    )
    if student.shape[-1] <= MOST_CLASSES_ACROSS:
        student, teacher, dim = student.T.contiguous(), teacher.T.contiguous(), -2
    student_max, teacher_max = student.amax(dim, keepdim=True), teacher.amax(dim, keepdim=True)
    student_shifted, teacher_shifted = student - student_max, teacher - teacher_max
    q, student_sum = _powers_of_two(student_shifted * (_LOG2_E / student_temperature), dim)
    p, teacher_sum = _powers_of_two(teacher_shifted * (_LOG2_E / teacher_temperature), dim)
    q.div_(student_sum)
    p.div_(teacher_sum)
    # d = log p - log q from the difference of the logits, which is exact for near logits.
    log_ratio = (teacher - student).sub_(teacher_max - student_max).div_(student_temperature)
    if teacher_temperature != student_temperature:
        log_ratio.add_(teacher_shifted, alpha=1 / teacher_temperature - 1 / student_temperature)
    log_ratio.sub_((teacher_sum / student_sum).log_())
    gradient = q - p
    kl = _divergence(p, q, gradient, log_ratio, dim)

    gradient.mul_(kl_weight / student_temperature * factor)
    loss, ce = weighted(kl_weight, kl), torch.zeros_like(kl)
    if arguments.labels is not None:
        labels = arguments.labels[rows]
        ignore_index = None if all_count else arguments.ignore_index
        weights = torch.full_like(kl, ce_weight)
        ce = _add_cross_entropy(
            student_shifted, labels, weights, ignore_index, gradient, factor, dim
        )
        loss.add_(weighted(weights, ce))
    return RowLosses(loss, kl, ce), gradient if dim == -1 else gradient.T


def _add_cross_entropy(
    shifted: Tensor,
    labels: Tensor,
    weights: Tensor,
    ignore_index: int | None,
    gradient: Tensor,
    factor: float,
    dim: int,
) -> Tensor:
    """Returns the cross entropy of each row and adds its gradient.

    The weight becomes 0 for an ignored label, and NaN for an invalid one, which a device may have.
    """
    column = labels.unsqueeze(dim)
    if ignore_index is not None:
        column = column.clamp(0, shifted.shape[dim] - 1)
        ignored = labels == ignore_index
        weights.masked_fill_(labels != column.squeeze(dim), torch.nan).masked_fill_(ignored, 0)
    powers, total = _powers_of_two(shifted * _LOG2_E, dim)
    ce = (total.log() - shifted.gather(dim, column)).squeeze(dim)
    if ignore_index is not None:
        ce.masked_fill_(ignored, 0)
    weight_column = (weights * factor).unsqueeze(dim)
    gradient.addcmul_(powers, weight_column / total)
    gradient.scatter_add_(dim, column, -weight_column)
    return ce


def _powers_of_two(exponents: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """2^x, in place, and its sum. exp takes three times as long."""
    return exponents.exp2_(), exponents.sum(dim, keepdim=True)


def _divergence(p: Tensor, q: Tensor, difference: Tensor, log_ratio: Tensor, dim: int) -> Tensor:
    """KL divergence of each row: sum p d where it is accurate and not NaN from infinite logits."""
    if p.device.type == "cpu":  # elsewhere reading a value would wait for the device
        plain: Tensor = torch.linalg.vecdot(p, log_ratio, dim=dim)
        serves = plain > LEAST_PLAIN_DIVERGENCE
        if bool(serves.all()):
            return plain
        return torch.where(serves, plain, kl_terms(p, q, difference, log_ratio).sum(dim))
    return kl_terms(p, q, difference, log_ratio).sum(dim)
