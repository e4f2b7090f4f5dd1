"""The dispatcher's operators: what torch.compile and callers without Python's checks see."""

import pytest
import torch
from torch import Tensor
from torch._dynamo import compiled_autograd
from torch.fx.experimental.proxy_tensor import make_fx

from kdplatform.kernels import kd_loss
from kdplatform.kernels.arguments import check_arguments
from kdplatform.kernels.backend import loaded
from kdplatform.kernels.loss import _reduce
from kdplatform.kernels.reference import reference_rows

pytestmark = pytest.mark.usefixtures("fused_library")


def problem(
    rows: int, classes: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(rows * classes)
    student, teacher = 3 * torch.randn(2, rows, classes, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    return student.to(dtype), teacher.to(dtype), labels


def arguments(**changes) -> tuple:
    student, teacher, labels = problem(6, 5)
    values = {
        "student": student.requires_grad_(),
        "teacher": teacher,
        "labels": labels,
        "mask": None,
        "student_temperatures": None,
        "others": (None, None, None),
        "numbers": (2.0, 3.0, 0.5, 0.5),
        "rest": (True, -100, 1),
    } | changes
    return (
        *(values[name] for name in ("student", "teacher", "labels", "mask")),
        values["student_temperatures"],
        *values["others"],
        *values["numbers"],
        *values["rest"],
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": None, "rest": (False, -100, 0)},
        {"student_temperatures": torch.linspace(1, 2, 6).requires_grad_()},
        {"student": problem(6, 5, torch.float16)[0].requires_grad_()},
    ],
    ids=["plain", "rows", "temperature", "float16"],
)
def test_opcheck(changes):
    torch.library.opcheck(
        torch.ops.kdplatform.kd_loss.default, arguments(**changes), raise_exception=True
    )


def test_a_compiled_step_of_any_batch_equals_eager():
    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def step(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return kd_loss(2 * student, teacher, labels, temperature=4.0, alpha=0.5).loss

    for rows in (7, 12):
        student, teacher, labels = problem(rows, 10)
        student.requires_grad_()
        loss = step(student, teacher, labels)
        expected = kd_loss(2 * student, teacher, labels, temperature=4.0, alpha=0.5).loss
        torch.testing.assert_close(loss, expected)
        (gradient,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


@pytest.mark.parametrize("name", ["temperature", "alpha"])
def test_a_compiled_step_of_any_number_equals_eager(name):
    @torch.compile(fullgraph=True, dynamic=True, backend="aot_eager")
    def step(student: Tensor, teacher: Tensor, labels: Tensor, number: float) -> Tensor:
        return kd_loss(
            student, teacher, labels, **{"temperature": 4.0, "alpha": 0.5} | {name: number}
        ).loss

    for number in (0.25, 0.75):
        expected = kd_loss(
            *problem(7, 10), **{"temperature": 4.0, "alpha": 0.5} | {name: number}
        ).loss
        torch.testing.assert_close(step(*problem(7, 10), number), expected)


def test_a_call_with_one_alpha_per_row_can_be_traced():
    student, teacher, labels = problem(6, 5)

    def loss(student: Tensor, alpha: Tensor) -> Tensor:
        return kd_loss(student, teacher, labels, temperature=4.0, alpha=alpha).loss

    alpha = torch.linspace(0, 1, 6)
    traced = make_fx(loss)(student, alpha)
    torch.testing.assert_close(traced(student, alpha), loss(student, alpha))


PER_ROW = torch.linspace(1, 2, 6)
MASK = torch.arange(30).reshape(6, 5) % 7 > 0


@pytest.fixture
def taken(monkeypatch):
    """What the direct call answers, call by call."""
    answers = []
    direct_call = loaded.direct_call

    def watch(*arguments):
        answers.append(direct_call(*arguments))
        return answers[-1]

    monkeypatch.setattr(loaded, "direct_call", watch)
    return answers


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": 4, "alpha": 0.5},
        {"temperature": PER_ROW, "alpha": 0.5},
        {"student_temperature": 1.0, "teacher_temperature": PER_ROW, "kl_weight": 2},
        {"temperature": 2.0, "kl_weight": PER_ROW, "ce_weight": PER_ROW},
        {"temperature": 2.0, "alpha": 0.5, "class_mask": MASK},
        {"temperature": 2.0, "kl_weight": PER_ROW, "class_mask": MASK[0], "reduction": "none"},
    ],
)
def test_a_call_of_plain_tensors_takes_the_direct_call(taken, arguments):
    student, teacher, labels = problem(6, 5)
    output = kd_loss(student.requires_grad_(), teacher, labels, **arguments)
    assert taken == [output]
    assert taken[0] is output
    assert type(output).__name__ == "KDLossOutput"
    (gradient,) = torch.autograd.grad(output.loss.sum(), student)
    exact = student.detach().double().requires_grad_()
    expected = reference(exact, teacher, labels, arguments)
    torch.testing.assert_close(output.loss.double(), expected, rtol=1e-5, atol=1e-6)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-6)


def reference(student, teacher, labels, arguments):
    """The loss in PyTorch and float64."""
    given = {"temperature": None, "alpha": None, "student_temperature": None}
    given |= {"teacher_temperature": None, "kl_weight": None, "ce_weight": None}
    given |= {"scale_by_t2": True, "class_mask": None, "ignore_index": -100, "reduction": "mean"}
    checked = check_arguments(student, teacher, labels, **(given | arguments))
    return _reduce(reference_rows(checked), checked.reduction).loss


@pytest.mark.parametrize(
    "arguments",
    [
        {"temperature": PER_ROW.clone().requires_grad_(), "alpha": 0.5},
        {"temperature": PER_ROW.double(), "alpha": 0.5},
        {"temperature": 2.0, "alpha": torch.linspace(0, 1, 6)},
        {"temperature": torch.tensor(2.0), "alpha": 0.5},
    ],
)
def test_other_calls_take_the_long_way(taken, arguments):
    output = kd_loss(*problem(6, 5), **arguments)
    assert taken == [None]
    assert output.loss.isfinite()


def test_the_direct_calls_node_can_be_traced_by_compiled_autograd():
    student, teacher, labels = problem(6, 5, torch.float16)
    student.requires_grad_()
    expected = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5).loss
    (expected_gradient,) = torch.autograd.grad(3 * expected, student)
    with compiled_autograd._enable(torch.compile(backend="aot_eager")):
        loss = kd_loss(student, teacher, labels, temperature=4.0, alpha=0.5).loss
        (3 * loss).backward()
    torch.testing.assert_close(student.grad, expected_gradient)


def test_a_graph_that_was_not_kept_is_used_once():
    student, teacher, labels = problem(6, 5)
    loss = kd_loss(student.requires_grad_(), teacher, labels, temperature=4.0, alpha=0.5).loss
    loss.backward()
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": torch.zeros(6, 4)}, r"teacher_logits: shape \[6, 4\]; allowed: \[6, 5\]"),
        ({"student": torch.zeros(6, 1)}, r"student_logits: shape \[6, 1\]; allowed: .*2 or"),
        ({"labels": torch.zeros(3).long()}, r"labels: shape \[3\]; allowed: \[6\]"),
        ({"labels": torch.zeros(6).int()}, "labels: Int; allowed: Long"),
        ({"mask": torch.ones(4).bool()}, r"class_mask: shape \[4\]; allowed: \[5\]"),
        ({"student_temperatures": torch.ones(3)}, r"student_temperature: shape \[3\]"),
        ({"student_temperatures": torch.ones(6).double()}, "student_temperature: Double"),
    ],
)
def test_a_call_without_python_is_checked_too(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        torch.ops.kdplatform.kd_loss.default(*arguments(**changes))


def test_the_backward_operator_is_checked_too():
    with pytest.raises(ValueError, match=r"grad_loss: shape \[2\] for a gradient of \[3, 4\]"):
        torch.ops.kdplatform.kd_loss_backward(torch.zeros(3, 4), torch.zeros(0), torch.zeros(2))
