"""What an objective may do around the steps, and that what it keeps is restored."""

import dataclasses
from pathlib import Path

import torch
from fits import train
from kdplatform.objectives import Batch, LossParts, Objective, Output, TrainingState
from torch import nn

from kdplatform.data import Dataset
from kdplatform.settings.schema import TrainingConfig


class Hooked(Objective):
    """Uses every hook: writes its calls down, replaces labels, trains and keeps state."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def before_fit(self, state: TrainingState) -> None:
        self.calls.append(f"fit {state.steps_per_epoch}")

    def before_batch(self, batch: Batch, state: TrainingState) -> Batch:
        self.calls.append(f"batch {state.step}")
        return dataclasses.replace(batch, labels=torch.zeros_like(batch.labels))

    def after_step(self, state: TrainingState) -> None:
        self.calls.append(f"step {state.step}")
        self.steps += 1

    def forward(
        self, student: Output, teacher: Output | None, batch: Batch, state: TrainingState
    ) -> LossParts:
        assert not batch.labels.any()
        loss = nn.functional.cross_entropy(
            self.scale * student.logits, batch.labels, reduction="none"
        )
        return LossParts(loss, {})


def test_hooks_are_called_in_order_and_their_batch_is_used(
    dataset: Dataset, config: TrainingConfig
) -> None:
    objective = Hooked()
    train(dataset, config.model_copy(update={"epochs": 1}), objective=objective)
    expected = [call for i in range(4) for call in (f"batch {i}", f"step {i + 1}")]
    assert objective.calls == ["fit 4", *expected]
    assert objective.scale.item() != 1.0


def test_what_an_objective_keeps_is_restored(
    dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    one, other = Hooked(), Hooked()
    train(dataset, config, objective=one, **saved)
    train(dataset, config, objective=other, **saved)
    assert int(other.steps) == 12
    assert torch.equal(one.scale, other.scale)
