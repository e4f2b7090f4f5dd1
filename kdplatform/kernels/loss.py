"""`kd_loss`: the distillation loss, by the fastest backend that serves the tensors."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from kdplatform.kernels.arguments import (
    RowArguments,
    RowValue,
    check_alpha_values,
    check_arguments,
)
from kdplatform.kernels.backend import KDLossOutput, loaded
from kdplatform.kernels.build import ensure_built
from kdplatform.kernels.plain import is_plain, plain_losses
from kdplatform.kernels.reference import RowLosses, reference_rows

_REDUCTION_CODES = {"none": 0, "mean": 1, "sum": 2}


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: RowValue | Sequence[float] | None = None,
    alpha: RowValue | Sequence[float] | None = None,
    student_temperature: RowValue | Sequence[float] | None = None,
    teacher_temperature: RowValue | Sequence[float] | None = None,
    kl_weight: RowValue | Sequence[float] | None = None,
    ce_weight: RowValue | Sequence[float] | None = None,
    scale_by_t2: bool = True,
    class_mask: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> KDLossOutput:
    """Distillation loss: KL divergence from the teacher at a temperature, and cross entropy.

    Row i gives, with alpha for `kl_weight` and 1 - alpha for `ce_weight`,

        kl_weight * Ts * Tt * KL(softmax(t_i / Tt) || softmax(s_i / Ts)) + ce_weight * CE(s_i, y_i)

    (Hinton, Vinyals, Dean 2015, "Distilling the knowledge in a neural network", section 2: the
    factor T^2 keeps the gradient's size independent of T.) The divergence is in nats.

    Three-dimensional student logits are K students that learn from one teacher. Temperatures and
    weights may differ between them. The result has a leading K, as from K calls.

    Args:
        student_logits: [B, C], or [K, B, C] for K students; float64, float32, bfloat16 or
            float16, any strides, C >= 2. Gets a gradient.
        teacher_logits: [B, C], of any of these types. Gets no gradient.
        labels: [B], integers from 0 to C - 1 or `ignore_index`. None: no cross entropy.
        temperature: for student and teacher, from 1e-6 to 1e6. A number, a tensor [B] of one per
            row, or with K students a sequence or tensor [K], or a tensor [K, B]. A tensor that
            requires a gradient gets one.
        alpha: weight of the distillation term, from 0 to 1; the cross entropy's is 1 - alpha.
            A number or one per row, as `temperature`.
        student_temperature: overrides `temperature` for the student.
        teacher_temperature: overrides `temperature` for the teacher.
        kl_weight: with `ce_weight`, replaces `alpha`. An omitted weight is 0. Gets no gradient.
        ce_weight: see `kl_weight`. Needs labels.
        scale_by_t2: multiply the KL term by Ts * Tt.
        class_mask: bool [C] or [B, C], True for a class that is kept. The others are excluded from
            both terms. A label that is not kept gives no cross entropy. A row with fewer than two
            classes left gives 0 and no gradient.
        ignore_index: label of rows without cross entropy. Their KL term stays.
        reduction: "mean", "sum" or "none". The mean divides by the number of rows B, whatever
            the labels. A row's weight therefore does not depend on its neighbours' labels, and a
            batch without labels does not give NaN. The mean of no rows is 0.

    Returns:
        Loss, KL and CE: scalars, or [K] for K students; [B] or [K, B] without reduction. float64
        if either input is, else float32.

    Raises:
        TypeError: an argument has a wrong type, or is missing.
        ValueError: shapes or devices do not agree, C = 1, or a temperature, weight or label is out
            of range. On a device, reading values would mean waiting. There a row with a bad value
            inside a tensor becomes NaN instead.
        RuntimeError: an argument carries a tangent of forward-mode differentiation.

    Values and gradients are right where the usual formula is not: for logits that nearly agree,
    for a common offset, and for logits of -inf. In float32 the gradient loses digits at a high
    temperature: its relative error is about 2e-8 T. Differentiating twice, or in forward mode
    (`torch.func.jvp`, `torch.autograd.forward_ad`), is an error.
    """
    compiling = torch.compiler.is_compiling()
    if not compiling and not loaded.settled:
        ensure_built()
    # A batch of few classes takes microseconds, so a call of plain tensors and numbers goes into
    # C++ directly. It returns None if the call is not plain or not valid.
    if not compiling and loaded.direct_call is not None:
        output = loaded.direct_call(
            student_logits,
            teacher_logits,
            labels,
            class_mask,
            temperature if student_temperature is None else student_temperature,
            temperature if teacher_temperature is None else teacher_temperature,
            alpha,
            kl_weight,
            ce_weight,
            scale_by_t2,
            ignore_index,
            reduction,
        )
        if output is not None:
            return cast(KDLossOutput, output)
    arguments = check_arguments(
        student_logits,
        teacher_logits,
        labels,
        temperature,
        alpha,
        student_temperature,
        teacher_temperature,
        kl_weight,
        ce_weight,
        scale_by_t2,
        class_mask,
        ignore_index,
        reduction,
    )
    if alpha is None or compiling:
        return _serve(arguments)
    try:
        return _serve(arguments)
    except ValueError as error:
        found = error
    check_alpha_values(arguments)
    raise found


def _serve(arguments: RowArguments) -> KDLossOutput:
    if _is_served(arguments.student_logits.device.type):
        return _fused(arguments)
    if is_plain(arguments):
        return KDLossOutput(*plain_losses(arguments))
    return _reduce(reference_rows(arguments), arguments.reduction)


def _is_served(device_type: str) -> bool:
    """Whether the library serves such tensors. The first call loads or builds it."""
    if not loaded.settled:
        ensure_built()
    return device_type in loaded.devices


# torch.compile calls it during tracing and treats the result as a constant, so that a compiled call
# finds the library loaded. `torch.compiler.assume_constant_result` also sets this mark, but first
# imports the compiler, which takes two seconds.
_is_served._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _fused(arguments: RowArguments) -> KDLossOutput:
    """The general way into the kernels, by an operator of the dispatcher."""
    values = (
        arguments.student_temperature,
        arguments.teacher_temperature,
        arguments.kl_weight,
        arguments.ce_weight,
    )
    outputs = torch.ops.kdplatform.kd_loss.default(
        arguments.student_logits,
        arguments.teacher_logits,
        arguments.labels,
        arguments.class_mask,
        *(value if isinstance(value, Tensor) else None for value in values),
        *(0.0 if isinstance(value, Tensor) else value for value in values),
        arguments.scale_by_t2,
        arguments.ignore_index,
        _REDUCTION_CODES[arguments.reduction],
    )
    return KDLossOutput(*outputs)


def _reduce(rows: RowLosses, reduction: str) -> KDLossOutput:
    if reduction == "none":
        return KDLossOutput(*rows)
    if reduction == "sum":
        return KDLossOutput(*(values.sum(-1) for values in rows))
    count = max(rows.loss.shape[-1], 1)
    return KDLossOutput(*(values.sum(-1) / count for values in rows))
