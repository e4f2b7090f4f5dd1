"""Where the usual formula loses its digits, or gives NaN."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loss_problems import eager, logits, loss_and_gradient, targets

from kdplatform.kernels import kd_loss

pytestmark = pytest.mark.usefixtures("each_backend", "one_thread")

NAN, INF = math.nan, math.inf
FIXTURES_ARE_CONSTANT = [HealthCheck.function_scoped_fixture]


def test_a_student_equal_to_its_teacher_gives_zero():
    student = logits(5, 10, dtype=torch.float32)
    loss, gradient = loss_and_gradient(student, student, temperature=4.0, alpha=1.0)
    assert 0 <= loss < 1e-12
    assert gradient.abs().max() < 1e-7


@pytest.mark.parametrize("classes", [10, 1000, 128256])
@pytest.mark.parametrize("noise", [1e-3, 1e-2, 0.3, 1.0])
def test_small_divergences_keep_their_digits(classes, noise):
    teacher = logits(1, classes, dtype=torch.float32)
    student = teacher + noise * torch.randn(
        teacher.shape, generator=torch.Generator().manual_seed(2)
    )
    kl = kd_loss(student, teacher, temperature=4.0, alpha=1.0).kl
    exact = kd_loss(student.double(), teacher.double(), temperature=4.0, alpha=1.0).kl
    torch.testing.assert_close(kl.double(), exact, rtol=1e-5, atol=0)


def test_the_float64_series_agrees_with_exact_arithmetic():
    # Two classes a gap g apart against two equal ones: KL = g^2/8 (1 - g^2/8 + ...).
    gap = 1e-4
    student = torch.zeros(1, 2, dtype=torch.float64)
    teacher = torch.tensor([[gap, 0.0]], dtype=torch.float64)
    kl = kd_loss(student, teacher, temperature=1.0, alpha=1.0).kl
    exact = torch.tensor(gap**2 / 8 * (1 - gap**2 / 8), dtype=torch.float64)
    torch.testing.assert_close(kl, exact, rtol=1e-11, atol=0)


def test_a_common_offset_changes_nothing():
    student = (logits(5, 10) * 64).round() / 64
    teacher, labels = (logits(5, 10, seed=1) * 64).round() / 64, targets(5, 10)
    options = {"temperature": 4.0, "alpha": 0.5}
    plain = loss_and_gradient(student.float(), teacher.float(), labels, **options)
    moved = loss_and_gradient(student.float() + 1e4, teacher.float() - 1e4, labels, **options)
    torch.testing.assert_close(moved, plain, rtol=0, atol=0)


def test_a_class_impossible_for_both_counts_nothing():
    student, teacher = logits(2, 5), logits(2, 5, seed=1)
    student[:, 2] = teacher[:, 2] = -INF
    loss, gradient = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
    keep = [0, 1, 3, 4]
    expected = kd_loss(student[:, keep], teacher[:, keep], temperature=2.0, alpha=1.0).loss
    torch.testing.assert_close(loss, expected)
    assert (gradient[:, 2] == 0).all()


def test_a_class_impossible_for_the_teacher_alone_is_finite():
    student, teacher = logits(2, 5), logits(2, 5, seed=1)
    teacher[:, 2] = -INF
    loss, gradient = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
    torch.testing.assert_close(loss, eager(student, teacher, targets(2, 5), 2.0, 1.0))
    assert gradient.isfinite().all()


def test_a_class_impossible_for_the_student_alone_is_infinite_with_a_finite_gradient():
    student, teacher = logits(2, 5), logits(2, 5, seed=1)
    student[:, 2] = -INF
    loss, gradient = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
    assert loss == INF
    assert gradient.isfinite().all()
    assert (gradient[:, 2] < 0).all()


@pytest.mark.parametrize("weight", [0.0, torch.zeros(2).double()])
def test_a_weight_of_zero_switches_an_infinite_value_off(weight):
    student, teacher = logits(2, 5), logits(2, 5, seed=1)
    student[:, 2] = -INF
    output = kd_loss(student, teacher, temperature=2.0, kl_weight=weight)
    assert output.loss == 0
    assert output.kl == INF


def test_nan_logits_stay_visible():
    student = logits(2, 5)
    student[0, 0] = NAN
    rows = kd_loss(student, logits(2, 5), temperature=2.0, alpha=1.0, reduction="none")
    assert rows.loss.isnan().tolist() == [True, False]


@pytest.mark.parametrize("classes", [10, 1000])
@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e3, 1e6])
def test_extreme_temperatures_lose_the_digits_that_are_documented(temperature, per_row, classes):
    # A gradient by T (q - p) of near probabilities: off by some 2e-8 T in float32.
    student, teacher = (logits(8, classes, seed=seed, dtype=torch.float32) for seed in (0, 1))
    value = torch.full((8,), temperature) if per_row else temperature
    loss, gradient = loss_and_gradient(student, teacher, temperature=value, alpha=1.0)
    exact, exact_gradient = loss_and_gradient(
        student.double(), teacher.double(), temperature=temperature, alpha=1.0
    )
    allowed = 1e-6 + 1e-7 * temperature
    torch.testing.assert_close(loss.double(), exact, rtol=min(allowed, 1e-3), atol=0)
    assert (gradient - exact_gradient).norm() < allowed * exact_gradient.norm()


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURES_ARE_CONSTANT)
@given(
    st.integers(2, 40),
    st.floats(0.25, 30),
    st.floats(0.25, 30),
    st.floats(0.001, 100),
    st.integers(0, 1000),
)
def test_divergence_is_never_negative_and_gradients_sum_to_zero(
    classes, student_temperature, teacher_temperature, size, seed
):
    student = size * logits(3, classes, seed=seed, dtype=torch.float32)
    teacher = size * logits(3, classes, seed=seed + 1, dtype=torch.float32)
    student.requires_grad_()
    output = kd_loss(
        student,
        teacher,
        targets(3, classes),
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
        kl_weight=1.0,
        ce_weight=1.0,
        scale_by_t2=False,
        reduction="none",
    )
    output.loss.sum().backward()
    assert (output.kl >= 0).all()
    assert (output.ce >= 0).all()
    assert student.grad.isfinite().all()
    bound = 1e-6 * (1 + 1 / student_temperature) * classes
    assert student.grad.sum(-1).abs().max() <= bound


@settings(max_examples=30, deadline=None, suppress_health_check=FIXTURES_ARE_CONSTANT)
@given(st.integers(0, 1000), st.permutations(range(6)))
def test_the_order_of_classes_does_not_matter(seed, order):
    student, teacher = logits(3, 6, seed=seed), logits(3, 6, seed=seed + 1)
    options = {"temperature": 3.0, "alpha": 1.0}
    plain, gradient = loss_and_gradient(student, teacher, **options)
    moved, moved_gradient = loss_and_gradient(student[:, order], teacher[:, order], **options)
    torch.testing.assert_close(moved, plain)
    torch.testing.assert_close(moved_gradient, gradient[:, order])
