"""The fallback for plain arguments against the reference in float64, by regime."""

import math

import pytest
import torch
from loss_problems import logits, loss_and_gradient, targets
from torch import Tensor

from kdplatform.kernels import kd_loss
from kdplatform.kernels.arguments import check_arguments
from kdplatform.kernels.plain import is_plain

pytestmark = pytest.mark.usefixtures("use_reference", "one_thread")

INF = math.inf
# NumPy in double, and in float across and along the classes; PyTorch in one block and in several,
# across and along, the last of them not full, and one row a block.
SHAPES = [
    (1, 2),
    (128, 10),
    (128, 100),
    (30, 1000),
    (90, 1000),
    (14000, 10),
    (500, 1000),
    (2, 140000),
]
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")


def problem(shape: tuple[int, int], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    student, teacher = (logits(*shape, seed=seed, dtype=dtype) for seed in (0, 1))
    return student, teacher, targets(*shape)


def check(student: Tensor, teacher: Tensor, labels: Tensor | None, **options) -> None:
    """Compares loss and gradient with float64, which takes the reference.

    A divergence just above 1/64 is off by 1e-7 at most.
    """
    found = loss_and_gradient(student, teacher, labels, **options)
    exact = loss_and_gradient(student.double(), teacher.double(), labels, **options)
    assert found[0].dtype is torch.float32
    assert found[1].dtype is student.dtype
    torch.testing.assert_close(found[0].double(), exact[0], rtol=1e-5, atol=1e-7)
    size = exact[1].abs().max()
    rounding = 2 * torch.finfo(student.dtype).eps
    assert (found[1] - exact[1]).abs().max() <= (1e-5 + rounding) * size


@shapes
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions(shape, reduction):
    check(*problem(shape), temperature=4.0, alpha=0.9, reduction=reduction)


@shapes
def test_two_temperatures_and_no_labels(shape):
    student, teacher, _ = problem(shape)
    options = {"student_temperature": 2.0, "teacher_temperature": 3.0, "kl_weight": 0.5}
    check(student, teacher, None, **options)
    check(student, teacher, None, **options, scale_by_t2=False)


@shapes
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(shape, dtype):
    check(*problem(shape, dtype), temperature=4.0, alpha=0.5)


@shapes
def test_ignored_labels(shape):
    student, teacher, labels = problem(shape)
    labels[::2] = -100
    check(student, teacher, labels, temperature=4.0, alpha=0.5)
    check(student, teacher, labels.clone().fill_(1), temperature=4.0, alpha=0.5, ignore_index=1)


@shapes
@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.1])
def test_a_student_near_its_teacher_keeps_its_digits(shape, noise):
    student, teacher, _ = problem(shape)
    student = teacher + noise * student
    output = kd_loss(student, teacher, temperature=4.0, alpha=1.0, reduction="none")
    exact = kd_loss(
        student.double(), teacher.double(), temperature=4.0, alpha=1.0, reduction="none"
    )
    assert (output.kl >= 0).all()
    torch.testing.assert_close(output.kl.double(), exact.kl, rtol=2e-5, atol=1e-13)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_infinite_logits_follow_the_rules(shape):
    student, teacher, labels = problem(shape)
    teacher[0, 0] = student[0, 0] = -INF  # impossible for both: nothing
    teacher[-1, 1] = -INF  # for the teacher alone: finite
    labels[:] = 1
    options = {"temperature": 2.0, "alpha": 0.5, "reduction": "none"}
    loss, gradient = loss_and_gradient(student, teacher, labels, **options)
    exact, exact_gradient = loss_and_gradient(student.double(), teacher.double(), labels, **options)
    assert gradient[0, 0] == 0
    torch.testing.assert_close(loss.double(), exact, rtol=3e-6, atol=1e-7)
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-4, atol=1e-6)
    student[-1, 0] = -INF  # for the student alone: infinite, with a finite gradient
    loss, gradient = loss_and_gradient(student, teacher, labels, **options)
    assert loss[-1] == INF
    assert gradient.isfinite().all()
    off = kd_loss(student, teacher, labels, temperature=2.0, kl_weight=0.0, ce_weight=1.0)
    assert off.loss.isfinite()
    assert off.kl == INF


@shapes
def test_nan_and_an_offset(shape):
    student, teacher, labels = ((64 * x).round() / 64 if x.is_floating_point() else x
                                for x in problem(shape))  # fmt: skip
    options = {"temperature": 4.0, "alpha": 0.5, "reduction": "none"}
    plain = loss_and_gradient(student, teacher, labels, **options)
    moved = loss_and_gradient(student + 1e4, teacher - 1e4, labels, **options)
    torch.testing.assert_close(moved, plain, rtol=0, atol=0)
    student[0, 0] = math.nan
    loss, _ = loss_and_gradient(student, teacher, labels, **options)
    assert loss[0].isnan()
    assert loss[1:].isfinite().all()


@shapes
def test_a_label_out_of_range_is_named(shape):
    student, teacher, labels = problem(shape)
    labels[-1] = shape[1]
    with pytest.raises(
        ValueError, match=f"labels: {shape[1]} in row {shape[0] - 1}; allowed: 0 to"
    ):
        kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5)


@pytest.mark.parametrize(
    ("changes", "plain"),
    [
        ({}, True),
        ({"temperature": torch.ones(4)}, False),
        ({"alpha": torch.ones(4)}, False),
        ({"class_mask": torch.ones(5).bool()}, False),
        ({"student_logits": torch.zeros(4, 5).double()}, False),
        ({"student_logits": torch.zeros(2, 4, 5)}, False),
    ],
)
def test_which_arguments_are_plain(changes, plain):
    values = {
        "student_logits": torch.zeros(4, 5),
        "teacher_logits": torch.zeros(4, 5),
        "labels": None,
        "temperature": 2.0,
        "alpha": 0.5,
        "student_temperature": None,
        "teacher_temperature": None,
        "kl_weight": None,
        "ce_weight": None,
        "scale_by_t2": True,
        "class_mask": None,
        "ignore_index": -100,
        "reduction": "mean",
    }
    assert is_plain(check_arguments(**values | changes)) is plain
