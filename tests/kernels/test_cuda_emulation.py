"""The CUDA kernels on a CPU: csrc/cuda compiled by g++ over emulated warps, blocks and clusters.

The same lines run that a device runs: indexing, alignment, masks, shuffles, barriers, the parts of
a split row. What stays untested is the hardware: its rounding of 2^x, memory order, launches.
"""

import ctypes
import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kdplatform.kernels.arguments import check_arguments
from kdplatform.kernels.reference import reference_rows

ROOT = Path(__file__).parents[2]
NAN, INF = math.nan, math.inf
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
ORDERS = {"forward": 0, "reverse": 1, "warp by warp": 2, "warp by warp, reverse": 3}

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

i64, pointer = ctypes.c_int64, ctypes.c_void_p


class Logits(ctypes.Structure):
    _fields_ = [("data", pointer), ("type", ctypes.c_int32)] + [
        (name, i64) for name in ("student_stride", "row_stride", "class_stride")
    ]


class RowValue(ctypes.Structure):
    _fields_ = [("data", pointer), ("value", ctypes.c_double)] + [
        (name, i64) for name in ("student_stride", "row_stride")
    ]


class RowParameters(ctypes.Structure):
    _fields_ = [
        *((name, i64) for name in ("students", "rows", "classes")),
        ("compute_type", ctypes.c_int32),
        ("student", Logits),
        ("teacher", Logits),
        ("labels", pointer),
        ("label_stride", i64),
        ("ignore_index", i64),
        ("class_mask", pointer),
        ("mask_row_stride", i64),
        ("mask_class_stride", i64),
        ("student_temperature", RowValue),
        ("teacher_temperature", RowValue),
        ("kl_weight", RowValue),
        ("ce_weight", RowValue),
        ("scale_by_t2", ctypes.c_bool),
        *((name, pointer) for name in ("loss", "kl", "ce")),
        ("gradient_factor", ctypes.c_double),
        *((name, pointer) for name in ("gradient", "gradient_scale")),
        *((name, pointer) for name in ("by_student_temperature", "by_teacher_temperature")),
    ]


class ReduceParameters(ctypes.Structure):
    _fields_ = [
        ("students", i64),
        ("rows", i64),
        ("compute_type", ctypes.c_int32),
        ("factor", ctypes.c_double),
        ("values", pointer),
        ("out", pointer),
    ]


class ScaleParameters(ctypes.Structure):
    _fields_ = [
        *((name, i64) for name in ("students", "rows", "classes")),
        ("type", ctypes.c_int32),
        ("compute_type", ctypes.c_int32),
        *((name, pointer) for name in ("gradient", "gradient_scale", "grad_loss")),
        ("grad_student_stride", i64),
        ("grad_row_stride", i64),
        ("out", pointer),
    ]


class Range(ctypes.Structure):
    _fields_ = [("begin", pointer), ("bytes", i64)]


class Request(ctypes.Structure):
    _fields_ = [
        ("multiprocessors", ctypes.c_int),
        ("clusters", ctypes.c_bool),
        ("cache_bytes", i64),
        ("order", ctypes.c_int),
        ("memory", pointer),
        ("ranges", i64),
    ]


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    target = tmp_path_factory.mktemp("emulation") / "emulation.so"
    sources = ROOT / "tests" / "kernels" / "cuda_emulation"
    folders = [f"-I{folder}" for folder in (sources, ROOT / "csrc", ROOT / "csrc" / "cuda")]
    command = ["g++", "-std=c++20", "-O1", "-fPIC", "-shared", "-Wno-unknown-pragmas", *folders]
    subprocess.run([*command, str(sources / "emulation.cpp"), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    library.row_parameters_bytes.restype = i64
    assert library.row_parameters_bytes() == ctypes.sizeof(RowParameters)
    return library


def request(
    tensors: list[Tensor], order: str = "forward", multiprocessors: int = 2, clusters: bool = True
) -> Request:
    """The device, and what memory a launch may touch: what the tensors lie in."""
    storages = [tensor.untyped_storage() for tensor in tensors]
    memory = (Range * len(storages))(*((s.data_ptr(), s.nbytes()) for s in storages))
    cache = 1 << 20  # small, so that a split call takes several launches
    result = Request(
        multiprocessors,
        clusters,
        cache,
        ORDERS[order],
        ctypes.cast(memory, pointer).value,
        len(storages),
    )
    result.keep = memory
    return result


def call(function: Any, parameters: ctypes.Structure, request: Request) -> None:
    message = ctypes.create_string_buffer(200)
    failed = function(ctypes.byref(parameters), ctypes.byref(request), message, i64(200))
    assert not failed, message.value.decode()


def plain_logits(logits: Tensor) -> Logits:
    strides = ([0] * (3 - logits.ndim)) + list(logits.stride())
    return Logits(logits.data_ptr(), TYPES[logits.dtype], *strides)


def plain_value(value: float | Tensor) -> RowValue:
    if isinstance(value, Tensor):
        strides = ([0] * (2 - value.ndim)) + list(value.stride())
        return RowValue(value.data_ptr(), 0, *strides)
    return RowValue(None, value, 0, 0)


class Emulated:
    """One call of the emulated kernels; outputs start as NaN."""

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        temperature: float | Tensor = 2.0,
        teacher_temperature: float | Tensor | None = None,
        kl_weight: float | Tensor = 0.7,
        ce_weight: float | Tensor = 0.3,
        ignore_index: int = -100,
        gradient: bool = True,
        temperature_gradient: bool = False,
        factor: float = 1.0,
    ) -> None:
        wide = torch.float64 in (student.dtype, teacher.dtype)
        dtype = torch.float64 if wide else torch.float32
        if teacher_temperature is None:
            teacher_temperature = temperature
        values = [
            value.to(dtype) if isinstance(value, Tensor) else value
            for value in (temperature, teacher_temperature, kl_weight, ce_weight)
        ]
        rows = student.shape[:-1]
        self.loss, self.kl, self.ce = (torch.full(rows, NAN, dtype=dtype) for _ in range(3))
        self.gradient = torch.full(student.shape, NAN, dtype=student.dtype) if gradient else None
        half = student.dtype is torch.float16 and gradient
        self.gradient_scale = torch.full(rows, NAN) if half else None
        slopes = [torch.full(rows, NAN, dtype=dtype) for _ in range(2)]
        self.by_student_temperature, self.by_teacher_temperature = slopes

        p = self.parameters = RowParameters()
        p.students = student.shape[0] if student.ndim == 3 else 1
        p.rows, p.classes = student.shape[-2:]
        p.compute_type = TYPES[dtype]
        p.student, p.teacher = plain_logits(student), plain_logits(teacher)
        p.ignore_index = ignore_index
        if labels is not None:
            p.labels, p.label_stride = labels.data_ptr(), labels.stride(0)
        if mask is not None:
            p.class_mask = mask.data_ptr()
            p.mask_row_stride = mask.stride(0) if mask.ndim == 2 else 0
            p.mask_class_stride = mask.stride(-1)
        p.student_temperature, p.teacher_temperature, p.kl_weight, p.ce_weight = map(
            plain_value, values
        )
        p.scale_by_t2 = True
        p.loss, p.kl, p.ce = self.loss.data_ptr(), self.kl.data_ptr(), self.ce.data_ptr()
        p.gradient_factor = factor
        for name in ("gradient", "gradient_scale"):
            tensor = getattr(self, name)
            setattr(p, name, None if tensor is None else tensor.data_ptr())
        if temperature_gradient:
            p.by_student_temperature, p.by_teacher_temperature = (s.data_ptr() for s in slopes)
        given = [student, teacher, labels, mask, *values, self.loss, self.kl, self.ce, *slopes]
        self.memory = [
            t for t in (*given, self.gradient, self.gradient_scale) if isinstance(t, Tensor)
        ]

    def run(self, library: ctypes.CDLL, **options: Any) -> "Emulated":
        call(library.run_rows, self.parameters, request(self.memory, **options))
        return self

    def plan(self, library: ctypes.CDLL, **options: Any) -> str:
        text = ctypes.create_string_buffer(200)
        asked = request(self.memory, **options)
        library.describe_plan(ctypes.byref(self.parameters), ctypes.byref(asked), text, i64(200))
        return text.value.decode()

    def whole_gradient(self) -> Tensor:
        """The gradient in float64, its scale taken out."""
        gradient = self.gradient.double()
        if self.gradient_scale is not None:
            gradient *= self.gradient_scale.double().unsqueeze(-1)
        return gradient
