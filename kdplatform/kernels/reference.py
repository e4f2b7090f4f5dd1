"""The distillation loss in PyTorch for any arguments: the fallback of `plain.py`, and the oracle.

With q = softmax(s / Ts), p = softmax(t / Tt), r = softmax(s) and d = log p - log q, a row gives

    loss = a * sum_k p_k d_k + b * (log Z - (s_y - max s)),    a = kl_weight * Ts * Tt
    d loss / d s = (a / Ts) * (q - p) + b * (r - onehot_y)

(Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2; T^2 there is
Ts * Tt here.) The gradient is computed with the value, so that the backward pass is one
multiplication. Inputs of float32 and narrower are computed in float32, and float64 in float64. As
an oracle, use float64.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdplatform.kernels.arguments import (
    TEMPERATURE,
    WEIGHT,
    Range,
    RowArguments,
    RowValue,
    check_values,
)


class RowLosses(NamedTuple):
    """One value per row, [B] or [K, B], in the compute type; `kl` and `ce` without weights."""

    loss: Tensor
    kl: Tensor
    ce: Tensor


class _Gradients(NamedTuple):
    """Derivatives of each row's loss: [..., B, C] for logits, [..., B] for temperatures."""

    student_logits: Tensor | None
    student_temperature: Tensor | None
    teacher_temperature: Tensor | None


def reference_rows(arguments: RowArguments) -> RowLosses:
    """Compute the loss of each row in PyTorch; see `kdplatform.kd_loss` for the contract.

    Raises:
        ValueError: a temperature, weight or label inside a CPU tensor is out of range.
    """
    if arguments.student_logits.device.type == "cpu" and not torch.compiler.is_compiling():
        check_values(arguments)
    else:
        arguments = _with_nan_for_bad_values(arguments)
    teacher_temperature = arguments.teacher_temperature
    # A compiled graph refuses one tensor in two places. `_Rows` still detects that it is one.
    if torch.compiler.is_compiling() and isinstance(teacher_temperature, Tensor):
        teacher_temperature = teacher_temperature.clone()
    differentiable = (
        arguments.student_logits,
        arguments.student_temperature,
        teacher_temperature,
    )
    needs_gradient = torch.is_grad_enabled() and any(
        isinstance(value, Tensor) and value.requires_grad for value in differentiable
    )
    if not needs_gradient:
        return _losses_and_gradients(arguments, (False, False, False))[0]
    return RowLosses(*_Rows.apply(*differentiable, arguments))


def _with_nan_for_bad_values(arguments: RowArguments) -> RowArguments:
    """Make bad temperatures and weights NaN, because an error would wait for the device."""

    def row_value(value: RowValue, allowed: Range) -> RowValue:
        if not isinstance(value, Tensor):
            return value
        return torch.where(allowed.holds_each(value), value, torch.nan)

    student_temperature = row_value(arguments.student_temperature, TEMPERATURE)
    shared = arguments.teacher_temperature is arguments.student_temperature
    return arguments._replace(
        student_temperature=student_temperature,
        teacher_temperature=student_temperature
        if shared
        else row_value(arguments.teacher_temperature, TEMPERATURE),
        kl_weight=row_value(arguments.kl_weight, WEIGHT),
        ce_weight=row_value(arguments.ce_weight, WEIGHT),
    )


class _Rows(torch.autograd.Function):
    """Row losses whose gradients were computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        student_logits: Tensor,
        student_temperature: RowValue,
        teacher_temperature: RowValue,
        arguments: RowArguments,
    ) -> tuple[Tensor, Tensor, Tensor]:
        shared = arguments.teacher_temperature is arguments.student_temperature
        arguments = arguments._replace(
            student_logits=student_logits,
            student_temperature=student_temperature,
            teacher_temperature=student_temperature if shared else teacher_temperature,
        )
        losses, gradients = _losses_and_gradients(arguments, ctx.needs_input_grad[:3])
        ctx.save_for_backward(*gradients)
        ctx.student_dtype = student_logits.dtype
        ctx.mark_non_differentiable(losses.kl, losses.ce)
        return losses.loss, losses.kl, losses.ce

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        grad_loss = grad_outputs[0]
        by_logits, by_student_temperature, by_teacher_temperature = ctx.saved_tensors
        return (
            # The only rounding to the student's type.
            None
            if by_logits is None
            else (by_logits * grad_loss.unsqueeze(-1)).to(ctx.student_dtype),
            None if by_student_temperature is None else by_student_temperature * grad_loss,
            None if by_teacher_temperature is None else by_teacher_temperature * grad_loss,
            None,
        )


def refuse_second_derivative() -> None:
    """Raise an error if a backward pass is being recorded.

    Raises:
        RuntimeError: the pass is being recorded.
    """
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "kd_loss: backward with create_graph=True; allowed: differentiating once, because "
            "the gradient comes from the forward pass"
        )


def _losses_and_gradients(
    arguments: RowArguments, needs_gradient: tuple[bool, bool, bool]
) -> tuple[RowLosses, _Gradients]:
    dtype = arguments.compute_dtype
    student = arguments.student_logits.detach().to(dtype)
    teacher = arguments.teacher_logits.detach().to(dtype)
    if arguments.class_mask is not None:
        student = student.masked_fill(~arguments.class_mask, -torch.inf)
        teacher = teacher.masked_fill(~arguments.class_mask, -torch.inf)
    student_temperature = _column(arguments.student_temperature)
    teacher_temperature = _column(arguments.teacher_temperature)

    # An offset does not change softmax: subtract the maximum, so that no exponential overflows.
    student_max = student.amax(-1, keepdim=True)
    teacher_max = teacher.amax(-1, keepdim=True)
    student_shifted = student - student_max
    teacher_shifted = teacher - teacher_max
    student_probability, student_sum = _softmax(student_shifted / student_temperature)
    teacher_probability, teacher_sum = _softmax(teacher_shifted / teacher_temperature)

    # d = log p - log q from the difference of the logits, which is exact for near logits:
    # t'/Tt - s'/Ts = (t' - s')/Ts + t' (1/Tt - 1/Ts).
    log_ratio = ((teacher - student) - (teacher_max - student_max)) / student_temperature
    if arguments.student_temperature is not arguments.teacher_temperature:
        log_ratio += teacher_shifted * (1 / teacher_temperature - 1 / student_temperature)
    log_ratio -= (teacher_sum / student_sum).log()
    difference = student_probability - teacher_probability
    kl = kl_terms(teacher_probability, student_probability, difference, log_ratio).sum(-1)

    kl_weight = arguments.kl_weight
    if arguments.scale_by_t2:
        kl_weight = kl_weight * arguments.student_temperature * arguments.teacher_temperature
    gradient = difference * (_column(kl_weight) / student_temperature)
    ce, loss = torch.zeros_like(kl), weighted(kl_weight, kl)
    if arguments.labels is not None:
        ce, ce_weight, label_column, probability = _cross_entropy(arguments, student_shifted)
        loss = loss + weighted(ce_weight, ce)
        gradient += ce_weight.unsqueeze(-1) * probability
        gradient.scatter_add_(-1, label_column, -ce_weight.unsqueeze(-1))

    dead = _dead_rows(arguments)
    if dead is not None:
        loss, kl, ce = (rows.masked_fill(dead, 0) for rows in (loss, kl, ce))
        gradient = gradient.masked_fill(dead.unsqueeze(-1), 0)
    by_student_temperature = by_teacher_temperature = None
    if needs_gradient[1]:
        slope = -_zero_safe_product(difference, student_shifted).sum(-1)
        by_student_temperature = _temperature_gradient(
            arguments, kl, slope, arguments.student_temperature, arguments.teacher_temperature, dead
        )
    if needs_gradient[2]:
        spread = _zero_safe_product(teacher_probability, teacher_shifted)
        mean = spread.sum(-1)
        slope = mean * kl - _zero_safe_product(spread, log_ratio).sum(-1)
        by_teacher_temperature = _temperature_gradient(
            arguments, kl, slope, arguments.teacher_temperature, arguments.student_temperature, dead
        )
    gradients = _Gradients(
        gradient if needs_gradient[0] else None, by_student_temperature, by_teacher_temperature
    )
    return RowLosses(loss, kl, ce), gradients


def _column(value: RowValue) -> RowValue:
    return value.detach().unsqueeze(-1) if isinstance(value, Tensor) else value


def _softmax(shifted: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [..., C], and the sum of exponentials that divides them [..., 1]."""
    exponentials = shifted.exp()
    total = exponentials.sum(-1, keepdim=True)
    return exponentials / total, total


def kl_terms(
    teacher_probability: Tensor, student_probability: Tensor, difference: Tensor, log_ratio: Tensor
) -> Tensor:
    """Terms of the KL divergence, each >= 0: p d + (q - p), whose second part sums to 0.

    With q = p exp(-d) a term is p (exp(-d) - 1 + d) = p d^2 (1/2 - d/6 + d^2/24 - ...), which
    keeps its digits where p d + (q - p) cancels. Small d use a polynomial. In float64 the
    exponential serves up to |d| = 1. Larger d use the plain form, where exp could overflow.
    """
    wide = log_ratio.dtype is torch.float64
    # float32: relative error 8e-7 up to |d| = 1/2. float64: the series.
    highest, *others = (
        (1 / 720, -1 / 120, 1 / 24, -1 / 6, 1 / 2)
        if wide
        else (0.0013914653, -0.008395411, 0.041667477, -0.1666628, 0.49999996)
    )
    near = log_ratio * highest
    for coefficient in others[:-1]:
        near.add_(coefficient).mul_(log_ratio)
    near.add_(others[-1]).mul_(log_ratio).mul_(log_ratio).mul_(teacher_probability)
    far = torch.addcmul(difference, teacher_probability, log_ratio)
    size = log_ratio.abs()
    if wide:
        middle = torch.expm1(-log_ratio).add_(log_ratio).mul_(teacher_probability)
        far = torch.where(size < 1, middle, far)
    terms = torch.where(size < (0.01 if wide else 0.5), near, far)
    # p = 0: the limit is q. By selection, because 0 * inf is NaN.
    return torch.where(teacher_probability == 0, student_probability, terms)


def weighted(weight: RowValue, rows: Tensor) -> Tensor:
    """Weight times value. A weight of 0 removes an infinite value."""
    if isinstance(weight, Tensor):
        weight = weight.detach()
        return (weight * rows).masked_fill(rows.isinf() & (weight == 0), 0)
    return rows * weight if weight else rows.masked_fill(rows.isinf(), 0) * 0


def _cross_entropy(
    arguments: RowArguments, student_shifted: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross entropy and its weight per row, the label's column [..., 1], softmax(s) [..., C].

    The formula is log Z - (s_y - max), of two small values. logsumexp - s_y would lose digits to a
    common offset of the logits.
    """
    assert arguments.labels is not None
    labels = arguments.labels.expand(arguments.rows)
    classes = student_shifted.shape[-1]
    inside = (labels >= 0) & (labels < classes)
    label_column = labels.clamp(0, classes - 1).unsqueeze(-1)
    probability, total = _softmax(student_shifted)
    ce = (total.log() - student_shifted.gather(-1, label_column)).squeeze(-1)
    counted = labels != arguments.ignore_index
    if arguments.class_mask is not None:
        kept = arguments.class_mask.expand(student_shifted.shape).gather(-1, label_column)
        counted = counted & (kept.squeeze(-1) | ~inside)
    wrong = counted & ~inside
    weight = arguments.ce_weight * counted.to(ce.dtype).masked_fill(wrong, torch.nan)
    return ce.masked_fill(~counted, 0), weight, label_column, probability


def _dead_rows(arguments: RowArguments) -> Tensor | None:
    """Which rows have fewer than two classes left by the mask, [..., B]."""
    if arguments.class_mask is None:
        return None
    return (arguments.class_mask.sum(-1) < 2).expand(arguments.rows)


def _zero_safe_product(factor: Tensor, value: Tensor) -> Tensor:
    """The product, which is 0 if the factor is 0, even if the value is infinite."""
    return torch.where(factor == 0, 0, factor * value)


def _temperature_gradient(
    arguments: RowArguments,
    kl: Tensor,
    slope: Tensor,
    temperature: RowValue,
    other: RowValue,
    dead: Tensor | None,
) -> Tensor:
    """Derivative of a row's loss by one of its temperatures, [..., B].

    d KL / d T = slope / T^2, with slope = -sum_k (q - p)_k s_k for the student's temperature and
    -cov_p(t, d) for the teacher's. The product rule adds the factor Ts * Tt of the weight.
    """
    assert isinstance(temperature, Tensor)
    temperature = temperature.detach()
    other = other.detach() if isinstance(other, Tensor) else other
    derivative = slope / temperature.square()
    if arguments.scale_by_t2:
        derivative = other * (temperature * derivative + kl)
    derivative = weighted(arguments.kl_weight, derivative)
    return derivative if dead is None else derivative.masked_fill(dead, 0)
