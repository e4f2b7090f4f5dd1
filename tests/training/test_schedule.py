import math
from typing import Any

import pytest
import torch
from torch import nn

from kdplatform.settings.schema import TrainingConfig
from kdplatform.training.schedule import build_optimizer, learning_rate

STEPS_PER_EPOCH = 10


def rates(**fields: Any) -> list[float]:
    config = TrainingConfig(model="lenet5", learning_rate=0.2, **fields)
    steps = config.epochs * STEPS_PER_EPOCH
    return [learning_rate(config, step, STEPS_PER_EPOCH) for step in range(steps)]


def test_constant() -> None:
    assert rates(epochs=2, schedule="constant") == [0.2] * 20


def test_step_decays_after_each_milestone() -> None:
    expected = [0.2] * 10 + [0.1] * 20 + [0.05] * 10
    assert rates(epochs=4, schedule="step", milestones=(1, 3), decay=0.5) == pytest.approx(expected)


def test_cosine_falls_from_the_highest_rate_towards_zero() -> None:
    values = rates(epochs=4, schedule="cosine")
    assert values[0] == 0.2
    assert values[20] == pytest.approx(0.1)
    assert values[-1] == pytest.approx(0.1 * (1 + math.cos(math.pi * 39 / 40)))
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warm_up_is_linear_and_ends_at_the_highest_rate(schedule: str) -> None:
    values = rates(epochs=4, schedule=schedule, warmup_epochs=0.5)
    assert values[:5] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2])
    assert values[5] == pytest.approx(0.2)
    assert max(values) == pytest.approx(0.2)


def test_warm_up_may_last_the_whole_training() -> None:
    assert rates(epochs=1, warmup_epochs=1.0)[-1] == pytest.approx(0.2)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_optimizer_has_the_configured_values(optimizer: str) -> None:
    config = TrainingConfig(
        model="lenet5",
        epochs=1,
        learning_rate=0.3,
        momentum=0.7,
        weight_decay=0.01,
        optimizer=optimizer,
    )
    frozen = nn.Parameter(torch.zeros(1), requires_grad=False)
    built = build_optimizer([nn.Parameter(torch.zeros(2)), frozen], config)
    (group,) = built.param_groups
    assert type(built).__name__.lower() == optimizer
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.01)
    assert group.get("momentum") == (0.7 if optimizer == "sgd" else None)
    assert [parameter.numel() for parameter in group["params"]] == [2]
