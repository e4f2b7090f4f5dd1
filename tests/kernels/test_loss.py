"""What `kd_loss` promises, held for each backend."""

import pytest
import torch
import torch.nn.functional as F
from loss_problems import eager, logits, loss_and_gradient, targets
from torch import Tensor

from kdplatform.kernels import kd_loss

pytestmark = pytest.mark.usefixtures("each_backend", "one_thread")


# Pairwise: every number of classes at every temperature, every alpha with each of both.
@pytest.mark.parametrize("classes", CLASSES := [2, 3, 10, 100])
@pytest.mark.parametrize("temperature", TEMPERATURES := [0.5, 1.0, 4.0, 20.0])
def test_equals_the_usual_formula_in_float64(classes, temperature):
    alpha = (0.0, 0.5, 1.0)[(CLASSES.index(classes) + TEMPERATURES.index(temperature)) % 3]
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
