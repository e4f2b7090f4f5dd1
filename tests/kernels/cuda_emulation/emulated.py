"""The emulated kernels from Python: plain structs by ctypes, and comparison with the reference."""

import ctypes
import math
import subprocess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdplatform.kernels.arguments import check_arguments
from kdplatform.kernels.reference import reference_rows

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NAN = math.nan
TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2, torch.float64: 3}
ORDERS = {"forward": 0, "reverse": 1, "warp by warp": 2, "warp by warp, reverse": 3}

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
        ("values", 3 * pointer),
        ("out", 3 * pointer),
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
        ("shared_bytes", i64),
        ("at_once", i64),
        ("order", ctypes.c_int),
        ("memory", pointer),
        ("ranges", i64),
    ]


def compile_emulation(target: Path) -> ctypes.CDLL:
    """Compile the kernels with g++, over the emulator; their unrolling is left out, to be quick."""
    folders = [f"-I{folder}" for folder in (HERE, ROOT / "csrc", ROOT / "csrc" / "cuda")]
    command = ["g++", "-std=c++20", "-O1", "-DKD_UNROLL=", "-fPIC", "-shared", *folders]
    subprocess.run([*command, str(HERE / "emulation.cpp"), "-o", str(target)], check=True)
    library = ctypes.CDLL(str(target))
    library.row_parameters_bytes.restype = i64
    assert library.row_parameters_bytes() == ctypes.sizeof(RowParameters)
    return library


def request(
    tensors: list[Tensor],
    order: str = "forward",
    multiprocessors: int = 2,
    clusters: bool = True,
    at_once: int = 1,
    shared_bytes: int = 227 * 1024,
) -> Request:
    """The device, and what memory a launch may touch: what the tensors lie in.

    With one cluster at once, each team goes through all rows of a call.
    """
    storages = [tensor.untyped_storage() for tensor in tensors]
    memory = (Range * len(storages))(*((s.data_ptr(), s.nbytes()) for s in storages))
    cache = 1 << 18  # small, so that a split call takes several launches
    result = Request(
        multiprocessors,
        clusters,
        cache,
        shared_bytes,
        at_once,
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


def logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def targets(rows: int, classes: int) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(2))


class Expected:
    """The reference in float64, from the same rounded inputs."""

    def __init__(self, student: Tensor, teacher: Tensor, labels: Tensor | None, **options: Any):
        def value(name: str, default: float | None) -> float | Tensor | None:
            given = options.get(name, default)
            return given.double() if isinstance(given, Tensor) else given

        student = student.detach().double().requires_grad_()
        temperature = value("temperature", 2.0)
        by_student = value("temperature", 2.0)
        by_teacher = value("teacher_temperature", None)
        if by_teacher is None:
            by_teacher = temperature.clone() if isinstance(temperature, Tensor) else temperature
        slopes = [t.requires_grad_() for t in (by_student, by_teacher) if isinstance(t, Tensor)]
        arguments = check_arguments(
            student,
            teacher.double(),
            labels,
            None,
            None,
            by_student,
            by_teacher,
            value("kl_weight", 0.7),
            value("ce_weight", 0.3) if labels is not None else None,
            True,
            options.get("mask"),
            options.get("ignore_index", -100),
            "none",
        )
        rows = reference_rows(arguments)
        rows.loss.sum().backward()
        self.loss, self.kl, self.ce = (v.detach() for v in rows)
        self.gradient = student.grad * options.get("factor", 1.0)
        self.slopes = [slope.grad for slope in slopes]


def check(library: ctypes.CDLL, student: Tensor, teacher: Tensor, labels: Tensor | None, **options):
    """Run and compare; returns the emulated call."""
    of_device = ("multiprocessors", "clusters", "order", "at_once", "shared_bytes")
    device = {name: options.pop(name) for name in of_device if name in options}
    emulated = Emulated(student, teacher, labels, **options).run(library, **device)
    expected = Expected(student, teacher, labels, **options)
    exact = emulated.loss.dtype is torch.float64
    close = {"rtol": 1e-12 if exact else 2e-6, "atol": 1e-13 if exact else 2e-7}
    torch.testing.assert_close(emulated.loss.double(), expected.loss, **close, equal_nan=True)
    torch.testing.assert_close(emulated.kl.double(), expected.kl, **close, equal_nan=True)
    torch.testing.assert_close(emulated.ce.double(), expected.ce, **close, equal_nan=True)
    if emulated.gradient is not None:
        found, size = emulated.whole_gradient(), expected.gradient.abs()
        # Rounded once to the student's type, from a difference of two float32 probabilities.
        rounding = torch.finfo(student.dtype).eps / 2 * size
        bound = rounding + close["rtol"] * size.amax(-1, keepdim=True)
        if student.dtype is torch.float16:
            bound = bound + emulated.gradient_scale.double().unsqueeze(-1) * 2**-25
        assert ((found - expected.gradient).abs() <= bound + 1e-30).all()
    if options.get("temperature_gradient"):
        ours = (emulated.by_student_temperature, emulated.by_teacher_temperature)
        for found, right in zip(ours, expected.slopes, strict=True):
            torch.testing.assert_close(
                found.double(), right, rtol=10 * close["rtol"], atol=20 * close["atol"]
            )
    return emulated
