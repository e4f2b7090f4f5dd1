"""A training that diverges ends with its reason and leaves what was good."""

from pathlib import Path

import pytest
import torch
from fits import OrderSpy, train
from kdplatform.objectives import (
    Batch,
    LossParts,
    Objective,
    Output,
    TrainingState,
    build_objective,
)

from kdplatform.data import Dataset
from kdplatform.errors import DivergedError
from kdplatform.settings.schema import DistillationConfig, TrainingConfig
from kdplatform.training import TeacherTable


def test_divergence_names_step_and_parameters(dataset: Dataset, config: TrainingConfig) -> None:
    update = {"learning_rate": 1e30, "optimizer": "sgd", "schedule": "constant"}
    with pytest.raises(DivergedError) as caught:
        train(
            dataset,
            config.model_copy(update=update),
            role="distilled",
            objective=build_objective(DistillationConfig(temperature=7.0, alpha=0.6)),
            teacher=TeacherTable(torch.zeros(50, 4)),
        )
    message = str(caught.value)
    assert "training loss of the distilled became nan at step 2 (epoch 1 of 3)" in message
    assert "learning_rate=1e+30" in message
    assert "temperature=7, alpha=0.6" in message
    assert "\n" not in message


class BadAt(Objective):
    """A loss that is infinite in one step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(
        self, student: Output, teacher: Output | None, batch: Batch, state: TrainingState
    ) -> LossParts:
        offset = float("inf") if state.step == self.step else 0.0
        return LossParts(student.logits.square().mean(dim=1) + offset, {})


# 4 steps an epoch; looked at in every step, in every third, and at the end of the epoch only.
@pytest.mark.parametrize("check_every", [1, 3, 50])
@pytest.mark.parametrize(("step", "epoch"), [(0, 1), (3, 1), (5, 2)])
def test_divergence_names_the_first_bad_step_however_seldom_it_looks(
    check_every: int,
    step: int,
    epoch: int,
    dataset: Dataset,
    config: TrainingConfig,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("kdplatform.training.loop.CHECK_EVERY", {"cpu": check_every})
    with pytest.raises(DivergedError, match=rf"inf at step {step + 1} \(epoch {epoch} of 3\)"):
        train(dataset, config, objective=BadAt(step))


def test_a_diverged_epoch_leaves_the_last_good_checkpoint(
    dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    with pytest.raises(DivergedError):
        train(dataset, config, objective=BadAt(5), **saved)
    _, result = train(dataset, config, objective=BadAt(-1), **saved)
    assert result.restored_epochs == 1


def test_weights_that_only_the_last_step_spoilt_are_noticed(
    dataset: Dataset, config: TrainingConfig
) -> None:
    class SpoiltByLastStep(OrderSpy):
        def after_step(self, state: TrainingState) -> None:
            if state.step == 12:
                next(state.model.parameters()).data.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"validation loss .* nan at step 12 \(epoch 3 of 3\)"):
        train(dataset, config, objective=SpoiltByLastStep())
