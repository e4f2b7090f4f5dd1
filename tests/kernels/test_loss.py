import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kdplatform.kernels import kd_loss

pytestmark = pytest.mark.usefixtures("each_backend", "one_thread")

NAN, INF = math.nan, math.inf
FIXTURES_ARE_CONSTANT = [HealthCheck.function_scoped_fixture]


def logits(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def targets(rows: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))


def eager(student: Tensor, teacher: Tensor, labels: Tensor, t: float, alpha: float) -> Tensor:
    """The loss as it is usually written."""
    log_q = F.log_softmax(student / t, -1)
    p = F.softmax(teacher / t, -1)
    kl = F.kl_div(log_q, p, reduction="batchmean")
    return alpha * t * t * kl + (1 - alpha) * F.cross_entropy(student, labels)


def loss_and_gradient(student: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
    student = student.detach().requires_grad_()
    loss = kd_loss(student, *args, **kwargs).loss
    loss.sum().backward()
    assert student.grad is not None
    return loss.detach(), student.grad


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_equals_the_usual_formula_in_float64(classes, temperature, alpha):
    student, teacher, labels = logits(7, classes), logits(7, classes, seed=1), targets(7, classes)
    loss, gradient = loss_and_gradient(
        student, teacher, labels, temperature=temperature, alpha=alpha
    )
    student.requires_grad_()
    expected = eager(student, teacher, labels, temperature, alpha)
    expected.backward()
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradient, student.grad, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("student_type", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("teacher_type", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_types_are_as_right_as_float32(student_type, teacher_type):
    student = logits(64, 100, dtype=student_type)
    teacher = logits(64, 100, seed=1, dtype=teacher_type)
    labels = targets(64, 100)
    loss, gradient = loss_and_gradient(student, teacher, labels, temperature=4, alpha=0.5)
    exact, exact_gradient = loss_and_gradient(
        student.double(), teacher.double(), labels, temperature=4, alpha=0.5
    )
    assert loss.dtype is torch.float32
    assert gradient.dtype is student_type
    torch.testing.assert_close(loss.double(), exact, rtol=1e-6, atol=0)
    rounding = torch.finfo(student_type).eps
    smallest = 6e-8 if student_type is torch.float16 else 1e-8  # float16 has no finer step
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=2 * rounding, atol=smallest)


def test_gradcheck_with_everything_per_row():
    rows, classes = 5, 6
    student = logits(rows, classes).requires_grad_()
    student_temperature = torch.linspace(0.5, 4, rows, dtype=torch.float64).requires_grad_()
    teacher_temperature = torch.linspace(3, 1, rows, dtype=torch.float64).requires_grad_()
    labels = targets(rows, classes)
    labels[1] = -100
    mask = torch.ones(rows, classes, dtype=torch.bool)
    mask[2, :3] = False
    labels[2] = 4

    def loss(student: Tensor, student_temperature: Tensor, teacher_temperature: Tensor) -> Tensor:
        return kd_loss(
            student,
            logits(rows, classes, seed=1),
            labels,
            student_temperature=student_temperature,
            teacher_temperature=teacher_temperature,
            kl_weight=torch.linspace(0, 1, rows, dtype=torch.float64),
            ce_weight=torch.linspace(2, 0, rows, dtype=torch.float64),
            class_mask=mask,
            reduction="none",
        ).loss

    assert torch.autograd.gradcheck(loss, (student, student_temperature, teacher_temperature))


@pytest.mark.parametrize("scale_by_t2", [True, False])
def test_one_temperature_for_both_gets_both_gradients(scale_by_t2):
    temperature = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)

    def loss(temperature: Tensor) -> Tensor:
        return kd_loss(
            logits(4, 5),
            logits(4, 5, seed=1),
            temperature=temperature,
            alpha=1.0,
            scale_by_t2=scale_by_t2,
        ).loss

    assert torch.autograd.gradcheck(loss, (temperature,))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_are_over_rows(reduction):
    student, teacher, labels = logits(5, 4), logits(5, 4, seed=1), targets(5, 4)
    options = {"temperature": 2.0, "alpha": 0.3}
    rows = kd_loss(student, teacher, labels, **options, reduction="none")
    assert rows.loss.shape == (5,)
    reduced = kd_loss(student, teacher, labels, **options, reduction=reduction)
    for value, of_rows in zip(reduced, rows, strict=True):
        expected = {"mean": of_rows.mean(), "sum": of_rows.sum(), "none": of_rows}[reduction]
        torch.testing.assert_close(value, expected)


def test_kl_and_ce_are_without_weights_and_detached():
    student, teacher, labels = logits(5, 4).requires_grad_(), logits(5, 4, seed=1), targets(5, 4)
    output = kd_loss(student, teacher, labels, temperature=2.0, alpha=0.3)
    assert output.loss.requires_grad
    assert not output.kl.requires_grad
    assert not output.ce.requires_grad
    torch.testing.assert_close(output.loss, 0.3 * 4 * output.kl + 0.7 * output.ce)


def test_without_labels_there_is_no_cross_entropy():
    output = kd_loss(logits(5, 4), logits(5, 4, seed=1), temperature=2.0, alpha=0.25)
    torch.testing.assert_close(output.loss, 0.25 * 4 * output.kl)
    assert output.ce == 0


def test_t2_scaling_is_the_product_of_both_temperatures():
    options = {"student_temperature": 2.0, "teacher_temperature": 3.0, "alpha": 1.0}
    scaled = kd_loss(logits(5, 4), logits(5, 4, seed=1), **options)
    plain = kd_loss(logits(5, 4), logits(5, 4, seed=1), **options, scale_by_t2=False)
    torch.testing.assert_close(scaled.loss, 6 * plain.loss)
    torch.testing.assert_close(plain.loss, plain.kl)


def test_a_mean_counts_rows_whose_label_is_ignored():
    student, teacher, labels = logits(4, 5), logits(4, 5, seed=1), targets(4, 5)
    labels[0] = 7
    options = {"temperature": 1.0, "kl_weight": 0.0, "ce_weight": 1.0, "ignore_index": 7}
    loss, gradient = loss_and_gradient(student, teacher, labels, **options)
    expected = F.cross_entropy(student[1:], labels[1:], reduction="sum") / 4
    torch.testing.assert_close(loss, expected)
    assert (gradient[0] == 0).all()


def test_all_labels_ignored_leaves_the_divergence():
    student, teacher = logits(4, 5), logits(4, 5, seed=1)
    labels = torch.full((4,), -100)
    loss, _ = loss_and_gradient(student, teacher, labels, temperature=2.0, alpha=0.5)
    torch.testing.assert_close(loss, kd_loss(student, teacher, temperature=2.0, alpha=0.5).loss)


@pytest.mark.parametrize("per_row", [True, False])
def test_masked_classes_are_as_if_they_were_not_there(per_row):
    student, teacher = logits(4, 6), logits(4, 6, seed=1)
    labels = torch.tensor([1, 3, 5, 1])
    mask = torch.tensor([False, True, False, True, True, True])
    loss, gradient = loss_and_gradient(
        student,
        teacher,
        labels,
        temperature=2.0,
        alpha=0.5,
        class_mask=mask.expand(4, 6) if per_row else mask,
    )
    expected, expected_gradient = loss_and_gradient(
        student[:, mask], teacher[:, mask], torch.tensor([0, 1, 3, 0]), temperature=2.0, alpha=0.5
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient[:, mask], expected_gradient)
    assert (gradient[:, ~mask] == 0).all()


@pytest.mark.parametrize("kept", [0, 1])
def test_a_row_of_fewer_than_two_classes_gives_nothing(kept):
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[1, kept:] = False
    student = logits(3, 4).requires_grad_()
    temperature = torch.full((3,), 2.0, dtype=torch.float64, requires_grad=True)
    rows = kd_loss(
        student,
        logits(3, 4, seed=1),
        torch.tensor([0, 0, 0]),
        temperature=temperature,
        alpha=0.5,
        class_mask=mask,
        reduction="none",
    )
    rows.loss.sum().backward()
    assert rows.loss[1] == rows.kl[1] == rows.ce[1] == 0
    assert (student.grad[1] == 0).all()
    assert temperature.grad[1] == 0
    assert student.grad.isfinite().all()


def test_a_label_that_is_masked_out_gives_no_cross_entropy():
    mask = torch.tensor([True, True, True, False])
    output = kd_loss(
        logits(2, 4),
        logits(2, 4),
        torch.tensor([0, 3]),
        temperature=1.0,
        alpha=0.5,
        class_mask=mask,
        reduction="none",
    )
    assert output.ce[0] > 0
    assert output.ce[1] == 0


class TestManyStudents:
    def test_equals_one_call_each(self):
        student, teacher, labels = logits(3, 5, 4), logits(5, 4, seed=1), targets(5, 4)
        temperatures, alphas = [1.0, 2.0, 4.0], [0.2, 0.5, 1.0]
        loss, gradient = loss_and_gradient(
            student, teacher, labels, temperature=temperatures, alpha=torch.tensor(alphas).double()
        )
        assert loss.shape == (3,)
        for k in range(3):
            expected, expected_gradient = loss_and_gradient(
                student[k], teacher, labels, temperature=temperatures[k], alpha=alphas[k]
            )
            torch.testing.assert_close(loss[k], expected, atol=1e-7, rtol=1e-7)
            torch.testing.assert_close(gradient[k], expected_gradient, atol=1e-7, rtol=1e-7)

    @pytest.mark.parametrize("shape", [(3,), (3, 5)])
    def test_temperatures_are_one_per_student_or_one_per_row(self, shape):
        temperature = torch.rand(shape, dtype=torch.float64) + 1
        rows = kd_loss(
            logits(3, 5, 4),
            logits(5, 4, seed=1),
            temperature=temperature,
            alpha=1.0,
            reduction="none",
        )
        expected = kd_loss(
            logits(3, 5, 4).flatten(0, 1),
            logits(5, 4, seed=1).repeat(3, 1),
            temperature=(
                temperature if len(shape) == 2 else temperature[:, None].expand(3, 5)
            ).flatten(),
            alpha=1.0,
            reduction="none",
        )
        torch.testing.assert_close(rows.loss, expected.loss.view(3, 5))


class TestNumerics:
    def test_a_student_equal_to_its_teacher_gives_zero(self):
        student = logits(5, 10, dtype=torch.float32)
        loss, gradient = loss_and_gradient(student, student, temperature=4.0, alpha=1.0)
        assert 0 <= loss < 1e-12
        assert gradient.abs().max() < 1e-7

    @pytest.mark.parametrize("classes", [10, 1000, 128256])
    @pytest.mark.parametrize("noise", [1e-3, 1e-2, 0.3])
    def test_small_divergences_keep_their_digits(self, classes, noise):
        teacher = logits(1, classes, dtype=torch.float32)
        student = teacher + noise * torch.randn(
            teacher.shape, generator=torch.Generator().manual_seed(2)
        )
        kl = kd_loss(student, teacher, temperature=4.0, alpha=1.0).kl
        exact = kd_loss(student.double(), teacher.double(), temperature=4.0, alpha=1.0).kl
        torch.testing.assert_close(kl.double(), exact, rtol=1e-5, atol=0)

    def test_the_float64_series_agrees_with_exact_arithmetic(self):
        # Two classes a gap g apart against two equal ones: KL = g^2/8 (1 - g^2/8 + ...).
        gap = 1e-4
        student = torch.zeros(1, 2, dtype=torch.float64)
        teacher = torch.tensor([[gap, 0.0]], dtype=torch.float64)
        kl = kd_loss(student, teacher, temperature=1.0, alpha=1.0).kl
        exact = torch.tensor(gap**2 / 8 * (1 - gap**2 / 8), dtype=torch.float64)
        torch.testing.assert_close(kl, exact, rtol=1e-11, atol=0)

    def test_a_common_offset_changes_nothing(self):
        student = (logits(5, 10) * 64).round() / 64
        teacher, labels = (logits(5, 10, seed=1) * 64).round() / 64, targets(5, 10)
        options = {"temperature": 4.0, "alpha": 0.5}
        plain = loss_and_gradient(student.float(), teacher.float(), labels, **options)
        moved = loss_and_gradient(student.float() + 1e4, teacher.float() - 1e4, labels, **options)
        torch.testing.assert_close(moved, plain, rtol=0, atol=0)

    def test_a_class_impossible_for_both_counts_nothing(self):
        student, teacher = logits(2, 5), logits(2, 5, seed=1)
        student[:, 2] = teacher[:, 2] = -INF
        loss, gradient = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
        keep = [0, 1, 3, 4]
        expected = kd_loss(student[:, keep], teacher[:, keep], temperature=2.0, alpha=1.0).loss
        torch.testing.assert_close(loss, expected)
        assert (gradient[:, 2] == 0).all()

    def test_a_class_impossible_for_the_teacher_alone_is_finite(self):
        student, teacher = logits(2, 5), logits(2, 5, seed=1)
        teacher[:, 2] = -INF
        loss, gradient = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
        torch.testing.assert_close(loss, eager(student, teacher, targets(2, 5), 2.0, 1.0))
        assert gradient.isfinite().all()

    def test_a_class_impossible_for_the_student_alone_is_infinite_with_a_finite_gradient(self):
        student, teacher = logits(2, 5), logits(2, 5, seed=1)
        student[:, 2] = -INF
        loss, gradient = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
        assert loss == INF
        assert gradient.isfinite().all()
        assert (gradient[:, 2] < 0).all()

    @pytest.mark.parametrize("weight", [0.0, torch.zeros(2).double()])
    def test_a_weight_of_zero_switches_an_infinite_value_off(self, weight):
        student, teacher = logits(2, 5), logits(2, 5, seed=1)
        student[:, 2] = -INF
        output = kd_loss(student, teacher, temperature=2.0, kl_weight=weight)
        assert output.loss == 0
        assert output.kl == INF

    def test_nan_logits_stay_visible(self):
        student = logits(2, 5)
        student[0, 0] = NAN
        rows = kd_loss(student, logits(2, 5), temperature=2.0, alpha=1.0, reduction="none")
        assert rows.loss.isnan().tolist() == [True, False]

    @settings(max_examples=60, deadline=None, suppress_health_check=FIXTURES_ARE_CONSTANT)
    @given(
        st.integers(2, 40),
        st.floats(0.25, 30),
        st.floats(0.25, 30),
        st.floats(0.001, 100),
        st.integers(0, 1000),
    )
    def test_divergence_is_never_negative_and_gradients_sum_to_zero(
        self, classes, student_temperature, teacher_temperature, size, seed
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
    def test_the_order_of_classes_does_not_matter(self, seed, order):
        student, teacher = logits(3, 6, seed=seed), logits(3, 6, seed=seed + 1)
        options = {"temperature": 3.0, "alpha": 1.0}
        plain, gradient = loss_and_gradient(student, teacher, **options)
        moved, moved_gradient = loss_and_gradient(student[:, order], teacher[:, order], **options)
        torch.testing.assert_close(moved, plain)
        torch.testing.assert_close(moved_gradient, gradient[:, order])


class TestAutograd:
    def test_differentiating_twice_is_an_error(self):
        student = logits(3, 4).requires_grad_()
        loss = kd_loss(student, logits(3, 4, seed=1), temperature=2.0, alpha=1.0).loss
        with pytest.raises(RuntimeError, match="kd_loss: backward with create_graph=True"):
            torch.autograd.grad(loss, student, create_graph=True)

    def test_a_graph_can_be_kept_and_used_again(self):
        student = logits(3, 4).requires_grad_()
        loss = kd_loss(student, logits(3, 4, seed=1), temperature=2.0, alpha=1.0).loss
        loss.backward(retain_graph=True)
        once = student.grad.clone()
        loss.backward()
        torch.testing.assert_close(student.grad, 2 * once)

    @pytest.mark.parametrize("shape", [(0, 5), (2, 0, 5)])
    def test_no_rows_give_zero(self, shape):
        student = torch.zeros(shape, requires_grad=True)
        loss = kd_loss(
            student, torch.zeros(0, 5), torch.zeros(0).long(), temperature=1.0, alpha=0.5
        ).loss
        loss.sum().backward()
        assert (loss == 0).all()
        assert student.grad.shape == shape

    def test_any_strides(self):
        student, teacher = logits(5, 8), logits(5, 8, seed=1)
        expected = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
        strided = loss_and_gradient(
            student.t().contiguous().t(),
            torch.stack([teacher, teacher], -1)[..., 0],
            temperature=2.0,
            alpha=1.0,
        )
        torch.testing.assert_close(strided, expected)

    def test_autocast_computes_in_float32(self):
        student, teacher = logits(4, 8, dtype=torch.bfloat16), logits(4, 8, seed=1).bfloat16()
        expected = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            actual = loss_and_gradient(student, teacher, temperature=2.0, alpha=1.0)
        torch.testing.assert_close(actual, expected, rtol=0, atol=0)


GOOD = {
    "student_logits": torch.zeros(2, 4),
    "teacher_logits": torch.zeros(2, 4),
    "labels": torch.zeros(2).long(),
    "temperature": 2.0,
    "alpha": 0.5,
}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"student_logits": torch.zeros(2, 4).long()}, TypeError, r"student_logits: .*int64"),
        ({"teacher_logits": torch.zeros(2, 4).int()}, TypeError, r"teacher_logits: .*int32"),
        ({"student_logits": [[0.0, 1.0]]}, TypeError, "student_logits: list; allowed: a tensor"),
        ({"student_logits": torch.zeros(4)}, ValueError, r"student_logits: shape \[4\]"),
        ({"teacher_logits": torch.zeros(2, 5)}, ValueError, r"teacher_logits: shape \[2, 5\]"),
        ({"teacher_logits": torch.zeros(3, 4)}, ValueError, r"teacher_logits: shape \[3, 4\]"),
        (
            {"student_logits": torch.zeros(2, 1), "teacher_logits": torch.zeros(2, 1)},
            ValueError,
            r"student_logits: 1 class.* allowed: 2 or more",
        ),
        (
            {"teacher_logits": torch.zeros(2, 4, device="meta")},
            ValueError,
            "teacher_logits: on meta; allowed: cpu",
        ),
        ({"labels": torch.zeros(2)}, TypeError, r"labels: torch.float32; allowed: int64"),
        ({"labels": torch.zeros(2).bool()}, TypeError, r"labels: torch.bool"),
        ({"labels": torch.zeros(3).long()}, ValueError, r"labels: shape \[3\]; allowed: \[2\]"),
        ({"labels": torch.tensor([0, 4])}, ValueError, "labels: 4 in row 1; allowed: 0 to 3"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, "labels: -1 in row 0; allowed: 0 to 3"),
        ({"temperature": 0}, ValueError, "temperature: 0; allowed: finite, greater than 0"),
        ({"temperature": -1.0}, ValueError, "temperature: -1.0"),
        ({"temperature": NAN}, ValueError, "temperature: nan"),
        ({"temperature": INF}, ValueError, "temperature: inf"),
        ({"temperature": "4"}, TypeError, "temperature: '4'; allowed: a number"),
        ({"temperature": True}, TypeError, "temperature: True"),
        ({"temperature": None}, TypeError, "temperature: missing"),
        ({"temperature": [1.0, 2.0]}, TypeError, "temperature: .*; allowed: a number"),
        ({"teacher_temperature": 0.0}, ValueError, "teacher_temperature: 0.0"),
        ({"temperature": torch.tensor([1.0, 0.0])}, ValueError, r"temperature: 0(\.0)? in row 1"),
        (
            {"student_temperature": torch.tensor([NAN, 1.0])},
            ValueError,
            "student_temperature: nan in row 0",
        ),
        ({"temperature": torch.ones(3)}, ValueError, r"temperature: shape \[3\]; .* \[2\]"),
        ({"temperature": torch.ones(2).long()}, TypeError, "temperature: torch.int64"),
        ({"alpha": 1.5}, ValueError, "alpha: 1.5; allowed: 0 to 1"),
        ({"alpha": -0.5}, ValueError, "alpha: -0.5"),
        ({"alpha": NAN}, ValueError, "alpha: nan"),
        ({"alpha": None}, TypeError, "alpha: missing"),
        ({"alpha": None, "kl_weight": -1.0}, ValueError, "kl_weight: -1.0"),
        (
            {"alpha": None, "ce_weight": torch.tensor([0.0, NAN])},
            ValueError,
            "ce_weight: nan in row 1",
        ),
        ({"kl_weight": 1.0}, TypeError, "alpha: given with kl_weight"),
        (
            {"alpha": torch.ones(2, requires_grad=True)},
            ValueError,
            "weight: requires grad",
        ),
        ({"alpha": None, "ce_weight": 1.0, "labels": None}, ValueError, "ce_weight: 1.0 without"),
        ({"class_mask": torch.ones(2, 4)}, TypeError, "class_mask: torch.float32; allowed: bool"),
        (
            {"class_mask": torch.ones(3).bool()},
            ValueError,
            r"class_mask: shape \[3\]; allowed: \[4\] or \[2, 4\]",
        ),
        ({"ignore_index": 1.5}, TypeError, "ignore_index: 1.5; allowed: an int"),
        ({"reduction": "avg"}, ValueError, "reduction: 'avg'; allowed: 'mean', 'sum', 'none'"),
    ],
)
def test_bad_input_is_named_in_one_line(changes, error, message):
    arguments = GOOD | changes
    with pytest.raises(error, match=message) as caught:
        kd_loss(**arguments)
    assert "\n" not in str(caught.value)
