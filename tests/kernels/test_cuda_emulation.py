"""The CUDA kernels on a CPU: csrc/cuda compiled by g++ over emulated warps, blocks and clusters.

The same lines run that a device runs: indexing, alignment, masks, shuffles, barriers, the parts of
a split row. What stays untested is the hardware: its rounding of 2^x, memory order, launches.
"""

import ctypes
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent / "cuda_emulation"))
from emulated import (
    ORDERS,
    TYPES,
    Emulated,
    Expected,
    ReduceParameters,
    ScaleParameters,
    call,
    check,
    compile_emulation,
    i64,
    logits,
    pointer,
    request,
    targets,
)

NAN, INF = math.nan, math.inf
f32, bf16, f16, f64 = torch.float32, torch.bfloat16, torch.float16, torch.float64
FULL = 0
"""Multiprocessors of a device that any number of rows fills."""

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compile_emulation(tmp_path_factory.mktemp("emulation") / "emulation.so")


# Plan, rows, classes, types of student and teacher, temperatures, device. One of each regime, with
# rows that are and are not aligned, full and nearly empty: chunks are 16 bytes.
CASES = [
    ("tile 1x", 200, 10, f32, f32, 2.0, 4.0, FULL, True),
    ("tile 1x", 131, 3, bf16, bf16, 0.5, 0.5, FULL, True),
    ("tile 1x", 1, 2, f32, f32, 20.0, 20.0, FULL, True),
    ("tile 2x", 200, 33, f32, f32, 1.0, 1.0, FULL, True),
    ("lanes 2x", 131, 7, f16, f16, 3.7, 3.7, 1, True),
    ("lanes 2x", 70, 32, f32, f32, 2.0, 2.0, FULL, True),
    ("lanes 4x", 289, 100, f32, f32, 4.0, 4.0, FULL, True),
    ("lanes 32x", 20, 100, f32, f32, 4.0, 4.0, 2, True),
    ("lanes 32x", 9, 1000, f32, f32, 2.0, 3.7, FULL, True),
    ("lanes 32x", 9, 1001, bf16, bf16, 4.0, 4.0, FULL, True),
    ("block 128", 3, 1000, f32, f32, 4.0, 4.0, 2, True),
    ("block 64", 9, 1025, f32, f32, 1.0, 1.0, FULL, True),
    ("block 128", 2, 4096, f16, f16, 4.0, 4.0, FULL, True),
    ("block 288", 2, 8191, f32, f32, 20.0, 20.0, FULL, False),
    ("block 512", 1, 16384, bf16, bf16, 4.0, 4.0, FULL, False),
    ("cluster 2x", 2, 8200, f32, f32, 4.0, 2.0, FULL, True),
    ("cluster 8x224", 1, 50257, bf16, bf16, 4.0, 4.0, FULL, True),
    ("cluster 8x512", 1, 128256, f32, f32, 4.0, 4.0, FULL, True),
    ("split 2 launches of 1", 3, 16385, f32, f32, 4.0, 4.0, FULL, False),
    ("split 8", 2, 50257, bf16, bf16, 2.0, 1.0, 2, False),
    ("split 9", 1, 131073, f16, f16, 4.0, 4.0, FULL, True),
    # any types, one number at a time
    ("lanes 8x", 33, 10, f32, bf16, 2.0, 2.0, FULL, True),
    ("lanes 16x", 9, 100, bf16, f32, 4.0, 1.0, FULL, True),
    ("block 128", 2, 1000, f16, bf16, 4.0, 4.0, FULL, True),
    ("lanes 8x", 33, 10, f64, f64, 2.0, 3.0, FULL, True),
    ("block 128", 2, 1000, f64, f32, 0.5, 0.5, FULL, True),
    ("cluster 4x", 1, 5000, f32, f64, 4.0, 4.0, FULL, True),
    ("split 3", 2, 5000, bf16, f64, 4.0, 4.0, 1, False),
]


@pytest.mark.parametrize(
    ("plan", "rows", "classes", "student_type", "teacher_type", "ts", "tt", "sms", "clusters"),
    CASES,
    ids=[f"{c[0]}-{c[1]}x{c[2]}-{str(c[3])[6:]}-{str(c[4])[6:]}" for c in CASES],
)
def test_every_regime_is_as_right_as_its_types(
    library, plan, rows, classes, student_type, teacher_type, ts, tt, sms, clusters
):
    student = logits(rows, classes, dtype=student_type)
    teacher = logits(rows, classes, seed=1, dtype=teacher_type)
    device = {"multiprocessors": sms, "clusters": clusters}
    options = {"temperature": ts, "teacher_temperature": tt, "factor": 1 / rows}
    emulated = check(library, student, teacher, targets(rows, classes), **device, **options)
    assert emulated.plan(library, **device).startswith(plan)


# Regimes by what makes them: rows, classes, device.
REGIMES = {
    "tile": (130, 10, FULL, True),
    "lanes": (9, 100, 2, True),
    "block": (2, 1500, FULL, True),
    "cluster": (1, 9000, FULL, True),
    "split": (2, 17000, FULL, False),
}


@pytest.fixture(params=REGIMES)
def regime(request: pytest.FixtureRequest) -> tuple[str, int, int, dict[str, Any]]:
    rows, classes, sms, clusters = REGIMES[request.param]
    return request.param, rows, classes, {"multiprocessors": sms, "clusters": clusters}


def test_the_order_of_threads_changes_no_bit(library, regime):
    name, rows, classes, device = regime
    student, teacher = logits(2, rows, classes), logits(rows, classes, seed=1)
    temperature = torch.full((2, rows), 2.0)
    runs = []
    for order in ORDERS:
        call = Emulated(
            student,
            teacher,
            targets(rows, classes),
            temperature=temperature,
            temperature_gradient=True,
        ).run(library, order=order, **device)
        outputs = (call.loss, call.kl, call.ce, call.gradient, call.by_student_temperature)
        assert all(output.isfinite().all() for output in outputs)
        runs.append(outputs)
    assert call.plan(library, **device).startswith(name)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("order", ["forward", "warp by warp"])
def test_many_students_are_as_many_calls(library, regime, order):
    _, rows, classes, device = regime
    student, teacher = logits(3, rows, classes), logits(rows, classes, seed=1)
    temperature = torch.tensor([1.0, 2.0, 4.0]).unsqueeze(-1).expand(3, rows)
    labels = targets(rows, classes)
    together = Emulated(student, teacher, labels, temperature=temperature)
    together.run(library, order=order, **device)
    for k in range(3):
        alone = Emulated(student[k], teacher, labels, temperature=float(temperature[k, 0]))
        alone.run(library, **device)
        for name in ("loss", "kl", "ce", "gradient"):
            torch.testing.assert_close(
                getattr(together, name)[k], getattr(alone, name), rtol=2e-6, atol=2e-7
            )


@pytest.mark.parametrize("dtype", [f32, bf16], ids=str)
@pytest.mark.parametrize(("rows", "classes"), [(7, 1500), (5, 1503), (3, 9000), (3, 9001)])
def test_a_team_that_goes_through_many_rows_computes_the_same_bits(library, rows, classes, dtype):
    student = logits(2, rows, classes, dtype=dtype)
    teacher = logits(rows, classes, seed=1, dtype=dtype)
    labels = targets(rows, classes)
    options = {"multiprocessors": FULL, "order": "warp by warp"}
    # Each team computes one row; two teams share them; one computes all; no room for the next row.
    places = [
        {"at_once": 100},
        {"at_once": 2},
        {"at_once": 1},
        {"at_once": 1, "shared_bytes": 9999},
    ]
    calls = [
        Emulated(student, teacher, labels).run(library, **options, **place) for place in places
    ]
    for one in calls:
        for name in ("loss", "kl", "ce", "gradient"):
            assert getattr(one, name).isfinite().all()
            assert torch.equal(getattr(one, name), getattr(calls[0], name))


@pytest.mark.parametrize("dtype", [f32, bf16, f16], ids=str)
@pytest.mark.parametrize("classes", [1501, 9003])
def test_staged_rows_that_begin_anywhere(library, classes, dtype):
    rows, labels = 5, targets(5, classes)
    wide = logits(rows, classes + 5, dtype=dtype)
    other = logits(rows, classes + 5, seed=1, dtype=dtype)
    device = {"multiprocessors": FULL, "at_once": 1}
    for first in (0, 1, 5):  # the first row begins inside a chunk, the last ends with the tensor
        end = first + classes
        flat = [
            t.flatten()[first : first + rows * classes].view(rows, classes) for t in (wide, other)
        ]
        check(library, *flat, labels, **device)
        check(library, wide[:, first:end], other[:, first:end], labels, **device)
        one = wide[1:2, first:end].expand(rows, -1)
        check(library, one, other[2:3, first:end].expand(rows, -1), labels, **device)


@pytest.mark.parametrize("temperature", [2.0, 60.0])
def test_small_and_large_divergences_in_one_warp(library, temperature):
    """Rows that share a warp differ in how their divergence is computed."""
    student, teacher = logits(40, 20), logits(40, 20, seed=1)
    student[::3] = teacher[::3] + 0.01 * student[::3]
    for teacher_temperature in (temperature, 3.0):
        options = {"temperature": temperature, "teacher_temperature": teacher_temperature}
        check(library, student, teacher, targets(40, 20), multiprocessors=FULL, **options)


def test_values_per_row_and_gradients_of_temperatures(library, regime):
    _, rows, classes, device = regime
    student, teacher = logits(rows, classes), logits(rows, classes, seed=1)
    check(
        library,
        student,
        teacher,
        targets(rows, classes),
        temperature=torch.linspace(0.5, 4, rows),
        teacher_temperature=torch.linspace(3, 1, rows),
        kl_weight=torch.linspace(0, 1, rows),
        ce_weight=torch.linspace(1, 0, rows),
        temperature_gradient=True,
        **device,
    )


@pytest.mark.parametrize("shape", [(9, 10), (3, 700), (2, 5000)])
@pytest.mark.parametrize("clusters", [True, False])
def test_masked_classes_and_rows_without_two_classes(library, shape, clusters):
    rows, classes = shape
    mask = torch.rand(rows, classes, generator=torch.Generator().manual_seed(4)) < 0.5
    mask[:, :2] = True
    mask[0] = False
    mask[1] = False
    mask[1, -1] = True
    labels = targets(rows, classes)
    labels[-1] = 5
    mask[-1, 5] = False  # a label that is not kept: no cross entropy
    device = {"multiprocessors": FULL, "clusters": clusters}
    call = check(library, logits(*shape), logits(*shape, seed=1), labels, mask=mask, **device)
    assert call.loss[0] == call.loss[1] == call.ce[-1] == 0
    assert (call.gradient[:2] == 0).all()
    shared = mask[-1]
    check(library, logits(*shape), logits(*shape, seed=1), labels, mask=shared, **device)


@pytest.mark.parametrize("classes", [10, 100, 1001])
def test_strides_and_misaligned_rows(library, classes):
    rows, device = 6, {"multiprocessors": FULL}
    wide, labels = logits(rows, 2 * classes + 3), targets(2 * rows, classes)[::2]
    teacher = logits(rows, classes, seed=1)
    check(library, wide[:, 1 : classes + 1], teacher, labels, **device)
    check(library, wide[:, 3 : 2 * classes + 3 : 2], teacher, labels, **device)
    check(library, wide[:, :classes], wide[:, classes : 2 * classes], labels, **device)
    check(library, logits(classes, rows).T, logits(classes, rows, seed=1).T, labels, **device)
    check(library, wide[:1].expand(rows, -1)[:, :classes], teacher, labels, **device)


def test_rows_without_labels_and_without_gradient(library, regime):
    _, rows, classes, device = regime
    student, teacher = logits(rows, classes), logits(rows, classes, seed=1)
    assert (check(library, student, teacher, None, **device).ce == 0).all()
    labels = torch.full((rows,), 7)
    labels[0] = 1
    call = check(library, student, teacher, labels, ignore_index=7, gradient=False, **device)
    assert (call.ce[1:] == 0).all()


def test_infinite_logits_follow_the_rules(library, regime):
    _, rows, classes, device = regime
    student, teacher = logits(rows, classes), logits(rows, classes, seed=1)
    teacher[0, : classes // 2] = -INF  # p = 0
    student[0, 0] = -INF  # and q = 0 as well
    student[-1, -2] = -INF  # q = 0 where p > 0
    labels = torch.full((rows,), classes - 1)
    call = check(library, student, teacher, labels, **device)
    assert call.kl[-1] == INF
    assert call.gradient.isfinite().all()
    assert call.gradient[0, 0] == 0


def test_a_bad_value_makes_its_row_nan_and_no_other(library, regime):
    name, rows, classes, device = regime
    student = logits(rows, classes)
    teacher = logits(rows, classes, seed=1)
    for bad in ("temperature", "teacher_temperature", "kl_weight", "ce_weight", "labels"):
        values_of_bad = (-1, classes) if bad == "labels" else (-1.0, INF, NAN)
        if bad.endswith("temperature"):
            values_of_bad += (0.9e-6, 1.1e6)
        if name != "lanes":  # what is a bad value is the same for all
            values_of_bad = values_of_bad[:1]
        for value in values_of_bad:
            labels = targets(rows, classes)
            values = {name: torch.ones(rows) for name in ("temperature", "kl_weight", "ce_weight")}
            values["teacher_temperature"] = torch.ones(rows)
            (labels if bad == "labels" else values[bad])[0] = value
            call = Emulated(student, teacher, labels, **values).run(library, **device)
            assert call.loss[0].isnan(), (bad, value)
            assert call.gradient[0].isnan().all(), (bad, value)
            assert call.loss[1:].isfinite().all()
            assert call.gradient[1:].isfinite().all()
            if rows == 1:
                break


def test_a_small_divergence_keeps_its_digits(library):
    classes = 128256
    teacher = logits(1, classes)
    student = teacher + 0.01 * torch.randn(1, classes, generator=torch.Generator().manual_seed(3))
    device = {"multiprocessors": FULL, "clusters": True}
    call = Emulated(student, teacher, temperature=4.0).run(library, **device)
    expected = Expected(student, teacher, None, temperature=4.0)
    torch.testing.assert_close(call.kl.double(), expected.kl, rtol=1e-5, atol=0)


def test_equal_logits_and_a_common_offset(library, regime):
    _, rows, classes, device = regime
    student = logits(rows, classes)
    call = Emulated(student, student.clone(), None).run(library, **device)
    assert (call.kl == 0).all()
    assert (call.gradient == 0).all()
    moved = (16 * student).round() / 16 + 1e4  # exact in float32
    check(library, moved, (16 * logits(rows, classes, seed=1)).round() / 16 - 1e4,
          targets(rows, classes), **device)  # fmt: skip


def sums_of(library: ctypes.CDLL, values: list[Tensor], order: str) -> list[Tensor]:
    """Half the sums over the rows of the three values, checked for their number of launches."""
    (students, rows), dtype = values[0].shape, values[0].dtype
    out = [torch.full((students,), NAN, dtype=dtype) for _ in values]
    places = [(3 * pointer)(*(tensor.data_ptr() for tensor in some)) for some in (values, out)]
    parameters = ReduceParameters(students, rows, TYPES[dtype], 0.5, *places)
    assert library.count_reduce_launches(ctypes.byref(parameters)) == (2 if rows > 8192 else 1)
    call(library.run_reduce, parameters, request([*values, *out], order=order))
    return out


@pytest.mark.parametrize("rows", [0, 1, 127, 8192, 8193, 100_000])
@pytest.mark.parametrize("students", [1, 3])
@pytest.mark.parametrize("dtype", [f32, f64])
def test_sums_over_rows(library, rows, students, dtype):
    values = [logits(students, rows, seed=seed, dtype=dtype) for seed in range(3)]
    orders = ["warp by warp", "reverse"] if rows < 100_000 else ["warp by warp"]
    runs = [sums_of(library, values, order) for order in orders]
    for found, of in zip(runs[0], values, strict=True):
        right = 0.5 * of.double().sum(-1)
        close = {"rtol": 6e-8, "atol": 0} if dtype is f32 else {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(found.double(), right, **close)
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_a_row_that_is_not_finite_shows_in_its_sum_and_in_no_other(library):
    values = [torch.ones(2, 9000) for _ in range(3)]
    values[0][1, 8999] = NAN
    values[1][0, 4500] = INF
    loss, kl, ce = sums_of(library, values, "forward")
    assert loss[0] == kl[1] == ce[0] == ce[1] == 4500
    assert loss[1].isnan()
    assert kl[0] == INF


def scale_parameters(
    gradient: Tensor, grad: Tensor, scale: Tensor | None, out: Tensor
) -> ScaleParameters:
    return ScaleParameters(
        *gradient.shape,
        TYPES[gradient.dtype],
        TYPES[grad.dtype],
        gradient.data_ptr(),
        scale.data_ptr() if scale is not None else None,
        grad.data_ptr(),
        *grad.stride(),
        out.data_ptr(),
    )


def misaligned(values: Tensor) -> Tensor:
    """A copy that begins one number after a multiple of 16 bytes."""
    memory = torch.empty(values.numel() + 1, dtype=values.dtype)
    return memory[1:].view(values.shape).copy_(values)


SCALED_SHAPES = [(1, 5, 3), (3, 7, 10), (2, 5, 1001), (1, 40, 1000)]


@pytest.mark.parametrize("dtype", [f32, bf16, f16, f64])
@pytest.mark.parametrize("shape", SCALED_SHAPES)
@pytest.mark.parametrize("factors", ["one", "per student", "per row"])
@pytest.mark.parametrize("in_place", [False, True], ids=["to other memory", "in place"])
@pytest.mark.parametrize("aligned", [True, False], ids=["aligned", "misaligned"])
def test_scaling_of_a_gradient(library, dtype, shape, factors, in_place, aligned):
    gradient = logits(*shape, dtype=dtype)
    if not aligned:
        gradient = misaligned(gradient)
    compute = f64 if dtype is f64 else f32
    grad = logits(*shape[:2], seed=1, dtype=compute)
    grad[..., ::3] = 1
    if factors != "per row":
        grad = grad[:, 1:2].clone().expand(shape[:2])
    if factors == "one":
        grad = grad[:1, :1].expand(shape[:2])
    scale = 2.0 ** torch.arange(shape[0] * shape[1]).reshape(shape[:2])
    half = dtype is f16 and shape[1] < 40
    right = gradient.to(compute) * (grad * scale if half else grad).unsqueeze(-1)
    out = gradient if in_place else torch.full(shape, NAN, dtype=dtype)
    parameters = scale_parameters(gradient, grad, scale if half else None, out)
    call(library.run_scale, parameters, request([gradient, out, grad, scale], multiprocessors=1))
    assert torch.equal(out, right.to(dtype))


@pytest.mark.parametrize("dtype", [f32, bf16, f16, f64])
@pytest.mark.parametrize("shape", SCALED_SHAPES)
@pytest.mark.parametrize("per_row", [False, True])
def test_a_factor_of_one_leaves_a_gradient_in_place_untouched(library, dtype, shape, per_row):
    gradient = logits(*shape, dtype=dtype)
    grad = torch.ones(shape[:2], dtype=f64 if dtype is f64 else f32)
    if not per_row:
        grad = grad[:1, :1].expand(shape[:2])
    parameters = scale_parameters(gradient, grad, None, gradient)
    no_gradient = request([grad])  # the launch may touch the factors alone
    call(library.run_scale, parameters, no_gradient)
    grad.fill_(2)
    with pytest.raises(AssertionError, match="not the launch's"):
        call(library.run_scale, parameters, no_gradient)


def test_rows_with_a_factor_of_one_keep_their_bits_in_place(library):
    # A signalling NaN, which any arithmetic changes.
    gradient = torch.full((1, 6, 32), 0x7F800001, dtype=torch.int32).view(f32)
    before = gradient.view(torch.int32).clone()
    grad = torch.tensor([[1.0, 2.0, 1.0, 1.0, 0.5, 1.0]])
    parameters = scale_parameters(gradient, grad, None, gradient)
    call(library.run_scale, parameters, request([gradient, grad]))
    kept = (gradient.view(torch.int32) == before).all(-1)
    assert torch.equal(kept, grad == 1)


def plan_on_h200(library: ctypes.CDLL, rows: int, classes: int, dtype: torch.dtype) -> str:
    call = Emulated(logits(1, classes, dtype=dtype), logits(1, classes, dtype=dtype))
    call.parameters.rows = rows
    return call.plan(library, multiprocessors=132)


@pytest.mark.parametrize(
    ("rows", "classes", "dtype", "plan"),
    [
        (65536, 10, f32, "tile 1x128 chunks 4"),
        (16384, 100, f32, "lanes 4x32 chunks 7"),
        (128, 100, f32, "lanes 32x4 chunks 1"),
        (1024, 1000, f32, "block 64 chunks 4"),
        (16384, 1000, f32, "lanes 32x4 chunks 8"),
        (16384, 1000, bf16, "lanes 32x4 chunks 4"),
        (8192, 4096, f32, "block 128 chunks 8"),
        (4096, 10000, f32, "cluster 2x160 chunks 8"),
        (4096, 16384, f32, "block 512 chunks 8"),
        (4096, 32000, f32, "cluster 4x256 chunks 8"),
        (512, 50257, bf16, "cluster 8x224 chunks 4"),
        (512, 128256, f32, "cluster 8x512 chunks 8"),
        (512, 262144, bf16, "split 16 launches of 66"),
    ],
)
def test_the_plan_on_a_device_of_132_multiprocessors(library, rows, classes, dtype, plan):
    assert plan_on_h200(library, rows, classes, dtype) == plan


@pytest.mark.parametrize("fault", ["race", "divergence", "outside", "misaligned"])
def test_the_emulator_finds_what_is_wrong(library, fault):
    out, message = torch.full((64,), NAN), ctypes.create_string_buffer(200)
    place = ctypes.c_void_p(out.data_ptr())
    number = ["race", "divergence", "outside", "misaligned"].index(fault)
    failed = library.run_broken(
        number, place, ctypes.byref(request([out], order="warp by warp")), message, i64(200)
    )
    if fault == "race":
        assert out[:32].isnan().all()
    else:
        words = {"divergence": b"wait", "outside": b"not the launch", "misaligned": b"multiple"}
        assert failed
        assert words[fault] in message.value
