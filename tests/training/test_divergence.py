"""A training that diverges ends with its reason and leaves what was good."""

from pathlib import Path

import pytest
import torch
from fits import OrderSpy, kd, train

from kdplatform.data import Dataset
from kdplatform.errors import DivergedError
from kdplatform.methods import Batch, Loss, Method, Run
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import Teacher, TeacherTable


def test_divergence_names_step_and_parameters(dataset: Dataset, config: TrainingConfig) -> None:
    update = {"learning_rate": 1e30, "optimizer": "sgd", "schedule": "constant"}
    with pytest.raises(DivergedError) as caught:
        train(
            dataset,
            config.model_copy(update=update),
            role="distilled",
            method=kd(temperature=7.0, alpha=0.6),
            teacher=Teacher(TeacherTable(torch.zeros(50, 4)), None),
        )
    message = str(caught.value)
    assert "training loss of the distilled became nan at step 2 (epoch 1 of 3)" in message
    assert "learning_rate=1e+30" in message
    assert "temperature=7, alpha=0.6" in message
    assert "\n" not in message


class BadAt(Method[MethodConfig]):
    """A loss that is infinite in one step."""

    def __init__(self, step: int) -> None:
        super().__init__(MethodConfig())
        self.step = step

    def loss(self, batch: Batch, run: Run) -> Loss:
        offset = float("inf") if run.step == self.step else 0.0
        student = run.student(batch.inputs)
        return Loss(student.logits.square().mean(dim=1) + offset, student, {})


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
        train(dataset, config, method=BadAt(step))


def test_a_diverged_epoch_leaves_the_last_good_checkpoint(
    dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    with pytest.raises(DivergedError):
        train(dataset, config, method=BadAt(5), **saved)
    _, result = train(dataset, config, method=BadAt(-1), **saved)
    assert result.restored_epochs == 1


def test_weights_that_only_the_last_step_spoilt_are_noticed(
    dataset: Dataset, config: TrainingConfig
) -> None:
    class SpoiltByLastStep(OrderSpy):
        def after_step(self, run: Run) -> None:
            if run.step == 12:
                next(run.model.parameters()).data.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"validation loss .* nan at step 12 \(epoch 3 of 3\)"):
        train(dataset, config, method=SpoiltByLastStep())
