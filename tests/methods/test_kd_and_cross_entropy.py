"""The methods against the formula of their docstrings, written out in float64."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdplatform.errors import UserError
from kdplatform.methods import (
    Batch,
    Loss,
    Output,
    build_method,
    kd,
    method_config_class,
    method_names,
)
from kdplatform.settings.schema import MethodConfig, TrainingConfig

ROWS, CLASSES = 6, 5
Logits = tuple[Tensor, Tensor, Tensor]


@pytest.fixture
def logits() -> Logits:
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, ROWS, CLASSES, generator=generator) * 3
    return student, teacher, torch.tensor([0, 1, 2, 3, 4, 0])


def smoothed_cross_entropy(student: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    targets = torch.full((ROWS, CLASSES), smoothing / CLASSES, dtype=torch.float64)
    targets[torch.arange(ROWS), labels] += 1 - smoothing
    return -(targets * student.double().log_softmax(1)).sum(1)


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    p = (teacher.double() / temperature).softmax(1)
    return (p * (p.log() - (student.double() / temperature).log_softmax(1))).sum(1)


def evaluate(config: MethodConfig, logits: Logits, smoothing: float = 0.0) -> Loss:
    """Returns what a method makes of given logits, in a run that has nothing else."""
    student, teacher, labels = logits
    training = TrainingConfig(
        model="lenet5", epochs=1, learning_rate=0.1, label_smoothing=smoothing
    )
    run: Any = SimpleNamespace(
        config=training,
        student=lambda inputs: Output(student),
        teacher=lambda batch: Output(teacher),
    )
    rows = torch.arange(ROWS)
    batch = Batch(inputs=torch.zeros(ROWS, 1), labels=labels, ids=rows, rows=rows)
    return build_method(config).loss(batch, run)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_labels(smoothing: float, logits: Logits) -> None:
    loss = evaluate(MethodConfig(), logits, smoothing)
    expected = smoothed_cross_entropy(logits[0], logits[2], smoothing)
    torch.testing.assert_close(loss.rows.double(), expected, rtol=1e-5, atol=1e-6)
    assert loss.parts == {}
    assert loss.student.logits is logits[0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale_by_t2", [True, False])
@pytest.mark.parametrize(
    ("temperature", "alpha"), [(1.0, 0.5), (10.0, 0.8), (4.0, 0.0), (4.0, 1.0)]
)
def test_kd_and_its_gradient(
    temperature: float, alpha: float, scale_by_t2: bool, smoothing: float, logits: Logits
) -> None:
    config = kd.Config(temperature=temperature, alpha=alpha, scale_by_t2=scale_by_t2)
    student = logits[0].clone().requires_grad_()
    loss = evaluate(config, (student, *logits[1:]), smoothing)
    reference = logits[0].double().requires_grad_()
    kl = divergence(reference, logits[1], temperature)
    ce = smoothed_cross_entropy(reference, logits[2], smoothing)
    expected = alpha * (temperature**2 if scale_by_t2 else 1.0) * kl + (1 - alpha) * ce

    torch.testing.assert_close(loss.rows.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.parts["kl"].double(), kl.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss.parts["ce"].double(), ce.detach(), rtol=1e-5, atol=1e-6)
    loss.rows.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(student.grad.double(), reference.grad, rtol=1e-4, atol=1e-6)


def test_parts_carry_no_gradient(logits: Logits) -> None:
    student = logits[0].requires_grad_()
    loss = evaluate(kd.Config(temperature=2.0), (student, *logits[1:]), 0.1)
    assert not any(part.requires_grad for part in loss.parts.values())


def test_every_file_is_a_method_with_fields_of_its_name() -> None:
    assert {"cross_entropy", "kd"} <= set(method_names())
    for name in method_names():
        config = method_config_class(name)()
        assert config.method == name
        assert build_method(config).config is config


def test_an_unknown_method_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="method='kdd' does not exist; did you mean 'kd'"):
        build_method(MethodConfig(method="kdd"))


def test_messages_show_the_fields() -> None:
    method = build_method(kd.Config(temperature=10.0, alpha=0.8))
    assert repr(method) == "kd(temperature=10, alpha=0.8, scale_by_t2=true)"
