"""Gradients of the loss where autograd hands over more than a plain number: signs that are left to
do, zeros without memory, several gradients at once; and what cannot be differentiated."""

import pytest
import torch
from loss_problems import logits, targets
from torch import Tensor
from torch.autograd import forward_ad

from kdplatform.kernels import kd_loss

pytestmark = pytest.mark.usefixtures("each_backend", "one_thread")

REDUCTIONS = ["mean", "none"]
# Made once: torch.func.vmap forbids making random numbers below it.
STUDENT, TEACHER, LABELS = logits(4, 5), logits(4, 5, seed=1), targets(4, 5)
# The plain call, the operator, and the operator with a temperature that gets a gradient.
WAYS = {
    "plain": {"temperature": 4.0},
    "general": {"student_temperature": 4.0, "teacher_temperature": 4.0},
    "learned temperature": {"temperature": torch.full((4,), 4.0, requires_grad=True)},
}


def loss_of(student: Tensor, way: str = "plain", reduction: str = "mean") -> Tensor:
    return kd_loss(
        student,
        TEACHER.to(student.dtype),
        LABELS,
        **WAYS[way],
        alpha=0.8,
        reduction=reduction,
    ).loss


def student_logits(dtype: torch.dtype = torch.float32) -> Tensor:
    return STUDENT.to(dtype).clone().requires_grad_()


def with_negative_bit(values: Tensor) -> Tensor:
    """The same values as a view whose sign is changed when it is read."""
    view = torch.complex(torch.zeros_like(values), -values).conj().imag
    assert view.is_neg()
    return view


class TestForwardMode:
    """An error, for tangents would be lost without a word."""

    refused = pytest.mark.parametrize(
        "name", ["student_logits", "teacher_logits", "temperature", "alpha"]
    )

    def call(self, name: str, value: Tensor) -> Tensor:
        arguments = {
            "student_logits": STUDENT.float(),
            "teacher_logits": TEACHER.float(),
            "labels": LABELS,
            "temperature": 4.0,
            "alpha": 0.8,
        }
        return kd_loss(**arguments | {name: value}).loss

    def point(self, name: str) -> Tensor:
        return torch.full((4, 5) if name.endswith("logits") else (4,), 0.5)

    def error(self, name: str):
        return pytest.raises(
            RuntimeError,
            match=rf"^kd_loss: forward-mode differentiation by {name}; allowed: "
            "differentiating once, backward[^\n]*$",
        )

    @refused
    def test_a_dual_tensor(self, name):
        with forward_ad.dual_level(), self.error(name):
            self.call(name, forward_ad.make_dual(self.point(name), self.point(name)))

    @refused
    @pytest.mark.parametrize("transform", ["jvp", "jacfwd"])
    def test_the_transforms(self, name, transform):
        def loss(value: Tensor) -> Tensor:
            return self.call(name, value)

        with self.error(name):
            if transform == "jvp":
                torch.func.jvp(loss, (self.point(name),), (self.point(name),))
            else:
                torch.func.jacfwd(loss)(self.point(name))

    def test_a_dual_tensor_that_requires_a_gradient(self):
        student = student_logits()
        with forward_ad.dual_level(), self.error("student_logits"):
            loss_of(forward_ad.make_dual(student, torch.ones_like(student)))

    @pytest.mark.parametrize("inner", ["jvp", "grad", "vmap"])
    def test_below_another_transform(self, inner):
        one = torch.ones(())

        def outer(student: Tensor) -> Tensor:
            if inner == "vmap":
                return torch.func.vmap(loss_of)(student[None])[0]
            if inner == "grad":
                return torch.func.grad(lambda factor: factor * loss_of(student))(one)
            return torch.func.jvp(lambda factor: factor * loss_of(student), (one,), (one,))[0]

        student = student_logits().detach()
        with self.error("student_logits"):
            torch.func.jvp(outer, (student,), (student,))

    def test_what_carries_no_tangent_is_served(self):
        student = student_logits().detach()
        expected = loss_of(student)
        with forward_ad.dual_level():
            assert torch.equal(loss_of(student), expected)
            detached = forward_ad.make_dual(student, student).detach()
            assert torch.equal(loss_of(detached), expected)
        one = torch.ones(())
        value, tangent = torch.func.jvp(lambda factor: factor * loss_of(student), (one,), (one,))
        assert torch.equal(value, expected)
        assert torch.equal(tangent, expected)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", REDUCTIONS)
class TestGradientOfTheLoss:
    def test_a_sign_that_is_left_to_do_is_done(self, way, reduction):
        student = student_logits()
        loss = loss_of(student, way, reduction)
        by = torch.linspace(-1, 2, loss.numel()).reshape(loss.shape)
        (expected,) = torch.autograd.grad(loss, student, by, retain_graph=True)
        (found,) = torch.autograd.grad(loss, student, with_negative_bit(by))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)

    def test_zeros_without_memory_give_zeros(self, way, reduction):
        student = student_logits()
        loss = loss_of(student, way, reduction)
        (found,) = torch.autograd.grad(loss, student, torch._efficientzerotensor(loss.shape))
        assert torch.equal(found, torch.zeros(4, 5))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
    def test_several_at_once_are_as_one_after_the_other(self, way, reduction, dtype):
        student = student_logits(dtype)
        loss = loss_of(student, way, reduction)
        several = logits(3, *loss.shape, dtype=loss.dtype)
        expected = [torch.autograd.grad(loss, student, by, retain_graph=True)[0] for by in several]
        (found,) = torch.autograd.grad(loss, student, several, is_grads_batched=True)
        torch.testing.assert_close(found, torch.stack(expected))


def test_a_jacobian_can_be_computed_in_one_go():
    def rows(student: Tensor) -> Tensor:
        return loss_of(student, reduction="none")

    student = student_logits()
    expected = torch.autograd.functional.jacobian(rows, student)
    found = torch.autograd.functional.jacobian(rows, student, vectorize=True)
    torch.testing.assert_close(found, expected)


def test_arguments_whose_sign_is_left_to_do():
    student, teacher, half = student_logits(), TEACHER.float(), torch.full((4,), 0.5)
    expected = kd_loss(student, teacher, LABELS, temperature=half, alpha=half).loss
    found = kd_loss(
        with_negative_bit(student),
        with_negative_bit(teacher),
        LABELS,
        temperature=with_negative_bit(half),
        alpha=with_negative_bit(half),
    ).loss
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(found, student), torch.autograd.grad(expected, student), rtol=0, atol=0
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", [*REDUCTIONS, "sum"])
def test_no_students_give_nothing(way, reduction):
    student = torch.zeros(0, 4, 5, requires_grad=True)
    options = WAYS[way] if way != "learned temperature" else {"temperature": torch.ones(0, 4)}
    output = kd_loss(student, torch.zeros(4, 5), LABELS, **options, alpha=0.8, reduction=reduction)
    output.loss.sum().backward()
    assert {values.shape for values in output} == {(0, 4) if reduction == "none" else (0,)}
    assert student.grad.shape == (0, 4, 5)
