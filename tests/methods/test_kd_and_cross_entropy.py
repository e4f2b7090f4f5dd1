"""The objectives against the formula of their docstrings, written out in float64."""

import pytest
import torch
from kdplatform.objectives import (
    Batch,
    LossParts,
    Output,
    TrainingState,
    build_objective,
    method_names,
)
from torch import Tensor, nn

from kdplatform.data import Split
from kdplatform.errors import UserError
from kdplatform.settings.schema import DistillationConfig, TrainingConfig

ROWS, CLASSES = 6, 5


@pytest.fixture
def state() -> TrainingState:
    import numpy as np
    import pandas as pd

    split = Split(
        torch.zeros(1, 1), torch.zeros(1, dtype=torch.int64), np.zeros(1, int), pd.DataFrame()
    )
    config = TrainingConfig(model="lenet5", epochs=1, learning_rate=0.1)
    return TrainingState(nn.Identity(), split, config, torch.device("cpu"), steps_per_epoch=1)


@pytest.fixture
def logits() -> tuple[Tensor, Tensor, Tensor]:
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


def evaluate(
    objective: nn.Module, logits: tuple[Tensor, Tensor, Tensor], state: TrainingState
) -> LossParts:
    student, teacher, labels = logits
    rows = torch.arange(ROWS)
    batch = Batch(inputs=torch.zeros(ROWS, 1), labels=labels, ids=rows, rows=rows)
    losses = objective(Output(student), Output(teacher), batch, state)
    assert isinstance(losses, LossParts)
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_hard_labels(
    smoothing: float, logits: tuple[Tensor, Tensor, Tensor], state: TrainingState
) -> None:
    losses = evaluate(build_objective(None, label_smoothing=smoothing), logits, state)
    expected = smoothed_cross_entropy(logits[0], logits[2], smoothing)
    torch.testing.assert_close(losses.loss.double(), expected, rtol=1e-5, atol=1e-6)
    assert losses.parts == {}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale_by_t2", [True, False])
@pytest.mark.parametrize(
    ("temperature", "alpha"), [(1.0, 0.5), (10.0, 0.8), (4.0, 0.0), (4.0, 1.0)]
)
def test_kd_and_its_gradient(
    temperature: float,
    alpha: float,
    scale_by_t2: bool,
    smoothing: float,
    logits: tuple[Tensor, Tensor, Tensor],
    state: TrainingState,
) -> None:
    config = DistillationConfig(temperature=temperature, alpha=alpha, scale_by_t2=scale_by_t2)
    student = logits[0].clone().requires_grad_()
    losses = evaluate(
        build_objective(config, label_smoothing=smoothing), (student, *logits[1:]), state
    )
    reference = logits[0].double().requires_grad_()
    kl = divergence(reference, logits[1], temperature)
    ce = smoothed_cross_entropy(reference, logits[2], smoothing)
    expected = alpha * (temperature**2 if scale_by_t2 else 1.0) * kl + (1 - alpha) * ce

    torch.testing.assert_close(losses.loss.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(losses.parts["kl"].double(), kl.detach(), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(losses.parts["ce"].double(), ce.detach(), rtol=1e-5, atol=1e-6)
    losses.loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(student.grad.double(), reference.grad, rtol=1e-4, atol=1e-6)


def test_parts_carry_no_gradient(
    logits: tuple[Tensor, Tensor, Tensor], state: TrainingState
) -> None:
    objective = build_objective(DistillationConfig(temperature=2.0), label_smoothing=0.1)
    losses = evaluate(objective, (logits[0].requires_grad_(), *logits[1:]), state)
    assert not any(part.requires_grad for part in losses.parts.values())


def test_cross_entropy_is_no_distillation_method() -> None:
    assert method_names() == ("kd",)


def test_unknown_method_is_said() -> None:
    config = DistillationConfig.model_construct(method="kdd", temperature=1.0)
    with pytest.raises(UserError, match="method='kdd' does not exist; did you mean 'kd'"):
        build_objective(config)


def test_messages_show_the_parameters() -> None:
    objective = build_objective(DistillationConfig(temperature=10.0, alpha=0.8))
    assert "temperature=10, alpha=0.8" in repr(objective)
