"""The arguments of `kd_loss`, in one form for every backend.

The checks here read types, shapes and devices, and the values of Python numbers. None makes the
host wait for a device. The backend checks the values inside tensors (on CPU; see `check_values`).
"""

# torch.compile of torch 2.10 cannot follow a type made by `|` while a function runs.
from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kdplatform.kernels.forward_mode import has_tangent
from kdplatform.settings.schema import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE

RowValue = float | Tensor
"""One number for all rows, or a tensor of one per row: [B], or [K, B] for K students."""

MAX_CLASSES = 2**31 - 1
REDUCTIONS = ("mean", "sum", "none")
LOGIT_TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
LABEL_TYPES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


class Range(NamedTuple):
    """The finite numbers allowed for an argument, both ends included, and their text in errors."""

    least: float
    most: float
    text: str

    def holds(self, number: float) -> bool:
        """Returns whether a number is allowed. NaN and infinity are not."""
        return self.least <= number <= self.most

    def holds_each(self, values: Tensor) -> Tensor:
        """Returns the same for every number of a tensor."""
        return (values >= self.least) & (values <= self.most) & values.isfinite()


def _written(number: float) -> str:
    return re.sub(r"e([-+]?)0*", lambda found: "e" + found[1].strip("+"), f"{number:g}")


TEMPERATURE = Range(
    LOWEST_TEMPERATURE,
    HIGHEST_TEMPERATURE,
    f"{_written(LOWEST_TEMPERATURE)} to {_written(HIGHEST_TEMPERATURE)}",
)
WEIGHT = Range(0, sys.float_info.max, "finite, 0 or greater")
ALPHA = Range(0, 1, "0 to 1")


class RowArguments(NamedTuple):
    """Checked arguments of `kd_loss`, the same for every backend.

    `rows` is the shape of one loss per row: (B,) or (K, B). Row values are numbers or tensors of
    that shape in `compute_dtype`. `labels` are int64 of shape [B] or None, and `class_mask` is
    bool of shape [C] or [B, C] or None.
    """

    student_logits: Tensor
    teacher_logits: Tensor
    labels: Tensor | None
    class_mask: Tensor | None
    student_temperature: RowValue
    teacher_temperature: RowValue
    kl_weight: RowValue
    ce_weight: RowValue
    scale_by_t2: bool
    ignore_index: int
    reduction: str
    rows: tuple[int, ...]
    compute_dtype: torch.dtype


def check_arguments(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None,
    temperature: RowValue | Sequence[float] | None,
    alpha: RowValue | Sequence[float] | None,
    student_temperature: RowValue | Sequence[float] | None,
    teacher_temperature: RowValue | Sequence[float] | None,
    kl_weight: RowValue | Sequence[float] | None,
    ce_weight: RowValue | Sequence[float] | None,
    scale_by_t2: bool,
    class_mask: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> RowArguments:
    """Check everything that can be checked without reading a tensor.

    Raises:
        TypeError: an argument is of a wrong type; the message names it and what is allowed.
        ValueError: an argument has a wrong shape, device or value.
        RuntimeError: an argument carries a tangent of forward-mode differentiation.
    """
    _check_tensors(
        student_logits=student_logits,
        teacher_logits=teacher_logits,
        labels=labels,
        temperature=temperature,
        alpha=alpha,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        kl_weight=kl_weight,
        ce_weight=ce_weight,
        class_mask=class_mask,
    )
    _check_logits(student_logits, teacher_logits)
    rows = tuple(student_logits.shape[:-1])
    wide = student_logits.dtype is torch.float64 or teacher_logits.dtype is torch.float64
    dtype = torch.float64 if wide else torch.float32
    if labels is not None:
        labels = _check_labels(labels, student_logits)
    if class_mask is not None:
        _check_class_mask(class_mask, student_logits)
    _check_options(scale_by_t2, ignore_index, reduction)

    def row_value(name: str, value: RowValue | Sequence[float], allowed: Range) -> RowValue:
        return _row_value(name, value, allowed, rows, student_logits.device, dtype)

    if temperature is not None:
        temperature = row_value("temperature", temperature, TEMPERATURE)
    if student_temperature is not None:
        student_temperature = row_value("student_temperature", student_temperature, TEMPERATURE)
    if teacher_temperature is not None:
        teacher_temperature = row_value("teacher_temperature", teacher_temperature, TEMPERATURE)
    student_temperature = temperature if student_temperature is None else student_temperature
    teacher_temperature = temperature if teacher_temperature is None else teacher_temperature
    if student_temperature is None or teacher_temperature is None:
        raise TypeError(
            "temperature: missing; allowed: temperature=, or both student_temperature= and "
            "teacher_temperature="
        )
    _check_weights_are_given(alpha, kl_weight, ce_weight, labels is not None)
    if alpha is not None:
        alpha = row_value("alpha", alpha, ALPHA)
        kl_weight, ce_weight = alpha, 1 - alpha
    else:
        kl_weight = row_value("kl_weight", 0.0 if kl_weight is None else kl_weight, WEIGHT)
        ce_weight = row_value("ce_weight", 0.0 if ce_weight is None else ce_weight, WEIGHT)
    return RowArguments(
        student_logits,
        teacher_logits,
        labels,
        class_mask,
        student_temperature,
        teacher_temperature,
        kl_weight,
        ce_weight,
        scale_by_t2,
        ignore_index,
        reduction,
        rows,
        dtype,
    )


def check_values(arguments: RowArguments) -> None:
    """Check the values inside the tensors: temperatures, weights, labels.

    It reads the tensors, so it serves only CPU tensors outside `torch.compile`. On a device, rows
    with a bad temperature, weight or label become NaN instead.

    Raises:
        ValueError: naming the argument, the first bad value and its row.
    """
    if arguments.student_temperature is arguments.teacher_temperature:
        _check_row_tensor("temperature", arguments.student_temperature, TEMPERATURE)
    else:
        _check_row_tensor("student_temperature", arguments.student_temperature, TEMPERATURE)
        _check_row_tensor("teacher_temperature", arguments.teacher_temperature, TEMPERATURE)
    _check_row_tensor("kl_weight", arguments.kl_weight, WEIGHT)
    _check_row_tensor("ce_weight", arguments.ce_weight, WEIGHT)
    labels, classes = arguments.labels, arguments.student_logits.shape[-1]
    if labels is None:
        return
    bad = ((labels < 0) | (labels >= classes)) & (labels != arguments.ignore_index)
    if bool(bad.any()):
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"labels: {int(labels[row])} in row {row}; "
            f"allowed: 0 to {classes - 1}, or ignore_index ({arguments.ignore_index})"
        )


def all_labels_count(arguments: RowArguments) -> bool:
    """Returns whether every label is a class and none is ignored. Reads the labels once."""
    labels, classes = arguments.labels, arguments.student_logits.shape[-1]
    if labels is None or labels.numel() == 0 or 0 <= arguments.ignore_index < classes:
        return False
    least, most = labels.aminmax()
    return int(least) >= 0 and int(most) < classes


def check_alpha_values(arguments: RowArguments) -> None:
    """Check `alpha` after a backend found a bad weight, because backends know only the weights.

    Raises:
        ValueError: naming alpha, its first bad value and its row.
    """
    _check_row_tensor("alpha", arguments.kl_weight, ALPHA)


def _check_row_tensor(name: str, value: RowValue, allowed: Range) -> None:
    if not isinstance(value, Tensor):
        return
    good = allowed.holds_each(value)
    if not bool(good.all()):
        index = (~good).nonzero()[0].tolist()
        row = index[0] if len(index) == 1 else index
        raise ValueError(
            f"{name}: {value[tuple(index)].item()} in row {row}; allowed: {allowed.text}"
        )


def _check_tensors(**values: object) -> None:
    """Refuse tensors that no kernel and no formula here can read or differentiate."""
    compiling = torch.compiler.is_compiling()
    for name, value in values.items():
        if not isinstance(value, Tensor):
            continue
        if value.is_nested or value.layout is not torch.strided:
            layout = "nested" if value.is_nested else f"layout {value.layout}"
            raise TypeError(f"{name}: {layout}; allowed: strided")
        if not compiling and has_tangent(value):
            raise RuntimeError(
                f"kd_loss: forward-mode differentiation by {name}; allowed: differentiating "
                "once, backward, because the gradient comes from the forward pass"
            )


def _check_options(scale_by_t2: bool, ignore_index: int, reduction: str) -> None:
    if not isinstance(reduction, str) or reduction not in REDUCTIONS:
        raise ValueError(f"reduction: {_shown(reduction)}; allowed: 'mean', 'sum', 'none'")
    if type(ignore_index) is not int:
        raise TypeError(f"ignore_index: {_shown(ignore_index)}; allowed: an int")
    if not -(2**63) <= ignore_index < 2**63:
        raise ValueError(f"ignore_index: {_shown(ignore_index)}; allowed: an int of 64 bits")
    if type(scale_by_t2) is not bool:
        raise TypeError(f"scale_by_t2: {_shown(scale_by_t2)}; allowed: True or False")


def _check_logits(student_logits: Tensor, teacher_logits: Tensor) -> None:
    for name, logits in (("student_logits", student_logits), ("teacher_logits", teacher_logits)):
        if not isinstance(logits, Tensor):
            raise TypeError(f"{name}: {type(logits).__name__}; allowed: a tensor")
        if logits.dtype not in LOGIT_TYPES:
            raise TypeError(f"{name}: {logits.dtype}; allowed: float64, float32, bfloat16, float16")
    student_shape, teacher_shape = student_logits.shape, teacher_logits.shape
    if len(student_shape) not in (2, 3):
        raise ValueError(
            f"student_logits: shape {list(student_shape)}; allowed: [B, C], "
            "or [K, B, C] for K students"
        )
    if student_shape[-2:] != teacher_shape:
        raise ValueError(
            f"teacher_logits: shape {list(teacher_shape)}; allowed: "
            f"{list(student_shape[-2:])}, as student_logits {list(student_shape)} has"
        )
    if not 2 <= student_shape[-1] <= MAX_CLASSES:
        raise ValueError(
            f"student_logits: {student_shape[-1]} class(es) in shape {list(student_shape)}; "
            "allowed: 2 or more"
        )
    if student_logits.device != teacher_logits.device:
        raise ValueError(
            f"teacher_logits: on {teacher_logits.device}; allowed: "
            f"{student_logits.device}, where student_logits is"
        )


def _check_labels(labels: Tensor, student_logits: Tensor) -> Tensor:
    if not isinstance(labels, Tensor):
        raise TypeError(f"labels: {type(labels).__name__}; allowed: an integer tensor, or None")
    if labels.dtype not in LABEL_TYPES:
        raise TypeError(f"labels: {labels.dtype}; allowed: int64, or a smaller integer type")
    if labels.shape != student_logits.shape[-2:-1]:
        raise ValueError(
            f"labels: shape {list(labels.shape)}; allowed: [{student_logits.shape[-2]}], "
            f"one for each row of student_logits {list(student_logits.shape)}"
        )
    _check_device("labels", labels, student_logits.device)
    return labels if labels.dtype is torch.int64 else labels.long()


def _check_class_mask(class_mask: Tensor, student_logits: Tensor) -> None:
    if not isinstance(class_mask, Tensor):
        raise TypeError(f"class_mask: {type(class_mask).__name__}; allowed: a bool tensor, or None")
    if class_mask.dtype is not torch.bool:
        raise TypeError(f"class_mask: {class_mask.dtype}; allowed: bool, True for a kept class")
    shape = student_logits.shape
    if class_mask.shape not in (shape[-1:], shape[-2:]):
        raise ValueError(
            f"class_mask: shape {list(class_mask.shape)}; allowed: {list(shape[-1:])} "
            f"or {list(shape[-2:])}"
        )
    _check_device("class_mask", class_mask, student_logits.device)


def _check_device(name: str, tensor: Tensor, device: torch.device) -> None:
    if tensor.device != device:
        raise ValueError(f"{name}: on {tensor.device}; allowed: {device}, where student_logits is")


def _check_weights_are_given(
    alpha: RowValue | Sequence[float] | None,
    kl_weight: RowValue | Sequence[float] | None,
    ce_weight: RowValue | Sequence[float] | None,
    labelled: bool,
) -> None:
    if ce_weight is not None and not labelled:
        raise ValueError(f"ce_weight: {_shown(ce_weight)} without labels; allowed: labels as well")
    weights_are_given = kl_weight is not None or ce_weight is not None
    if alpha is None and not weights_are_given:
        raise TypeError("alpha: missing; allowed: alpha=, or kl_weight= and ce_weight=")
    if alpha is not None and weights_are_given:
        raise TypeError("alpha: given with kl_weight or ce_weight; allowed: one or the other")


def _row_value(
    name: str,
    value: RowValue | Sequence[float],
    allowed: Range,
    rows: tuple[int, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> RowValue:
    if isinstance(value, Tensor):
        return _row_tensor(name, value, rows, device, dtype)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(rows) == 2:
        numbers = [_number(name, item, allowed) for item in value]
        return _row_tensor(
            name, torch.tensor(numbers, dtype=dtype, device=device), rows, device, dtype
        )
    return _number(name, value, allowed)


def _number(name: str, value: object, allowed: Range) -> float:
    try:
        if isinstance(value, bool) or not hasattr(value, "__float__"):
            raise TypeError
        number = float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        raise TypeError(
            f"{name}: {_shown(value)}; allowed: a number, or a tensor of one per row"
        ) from None
    if not allowed.holds(number):
        raise ValueError(f"{name}: {_shown(value)}; allowed: {allowed.text}")
    return number


def _shown(value: object) -> str:
    """The value as it is written, in one short line."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an int of more digits than Python writes
        return type(value).__name__
    return text if len(text) <= 100 else f"{text[:60]}...{text[-20:]}"


def _row_tensor(
    name: str, value: Tensor, rows: tuple[int, ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    if not value.is_floating_point():
        raise TypeError(f"{name}: {value.dtype}; allowed: a floating point tensor, or a number")
    if value.requires_grad and not name.endswith("temperature"):
        raise ValueError(
            f"{name}: requires grad; allowed: a tensor that does not (weights get no gradient)"
        )
    if value.ndim == 0:
        return value.to(device, dtype).expand(rows)
    _check_device(name, value, device)
    shape = tuple(value.shape)
    if len(rows) == 2 and shape == rows[:1]:
        return value.to(dtype).unsqueeze(-1).expand(rows)
    if shape != rows:
        per_student = f", [{rows[0]}] or {list(rows)}" if len(rows) == 2 else f" or {list(rows)}"
        raise ValueError(f"{name}: shape {list(shape)}; allowed: a number{per_student}")
    return value.to(dtype)
