"""The loop: what it reports, that it repeats itself, and what it shows."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from fits import (
    AUGMENTED,
    CPU,
    OrderSpy,
    assert_equal_weights,
    augmented,
    dropout_model,
    kd,
    numbers,
    train,
)
from torch import nn
from tqdm import tqdm

from kdplatform.data import Dataset
from kdplatform.methods import Batch, Loss, Method, Run
from kdplatform.models.normalization import InputNormalization
from kdplatform.roles import Role
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import (
    EpochRecord,
    Teacher,
    TeacherTable,
    initialised_model,
    predict_logits,
)


def test_the_tiny_problem_is_learnt(dataset: Dataset, config: TrainingConfig) -> None:
    config = config.model_copy(update={"epochs": 8})
    model, result = train(dataset, config)
    assert result.records[-1].train_loss < result.records[0].train_loss / 2
    assert result.records[-1].val_accuracy == 1.0
    assert not model.training


def test_records_are_counted_timed_and_reported(dataset: Dataset, config: TrainingConfig) -> None:
    reported: list[EpochRecord] = []
    _, result = train(dataset, config, on_epoch=reported.append)
    assert tuple(reported) == result.records
    assert [record.epoch for record in reported] == [1, 2, 3]
    assert result.restored_epochs == 0
    for record in reported:
        # 50 images in less than the whole of the epoch, validation included.
        assert record.images_per_second > 50 / record.seconds > 0


def test_validation_numbers_are_those_of_the_model(
    dataset: Dataset, config: TrainingConfig
) -> None:
    config = config.model_copy(update={"precision": "fp32"})
    model, result = train(dataset, config)
    logits = predict_logits(model, dataset.val.inputs, device=CPU)
    loss = nn.functional.cross_entropy(logits, dataset.val.labels)
    accuracy = (logits.argmax(1) == dataset.val.labels).float().mean()
    assert result.records[-1].val_loss == pytest.approx(float(loss))
    assert result.records[-1].val_accuracy == pytest.approx(float(accuracy))


def test_without_a_validation_split_there_are_no_such_numbers(
    dataset: Dataset, config: TrainingConfig
) -> None:
    _, result = train(dataset, config, validation=None)
    assert {(record.val_loss, record.val_accuracy) for record in result.records} == {(None, None)}


def test_validation_is_looked_at_as_often_as_asked_and_at_the_end(
    dataset: Dataset, config: TrainingConfig
) -> None:
    config = config.model_copy(update={"epochs": 5, "validate_every": 2})
    model, seldom = train(dataset, config)
    often_model, often = train(dataset, config.model_copy(update={"validate_every": 1}))
    assert_equal_weights(model, often_model)
    looked = [record.val_loss for record in seldom.records]
    always = [record.val_loss for record in often.records]
    assert looked == [None, always[1], None, always[3], always[4]]


def test_checkpoints_keep_their_distance_but_the_last_epoch_has_its_own(
    dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    there: list[bool] = []
    train(
        dataset,
        config,
        checkpoint=path,
        checkpoint_seconds=3600.0,
        identity="run",
        on_epoch=lambda record: there.append(path.exists()),
    )
    assert there == [False, False, True]
    _, again = train(dataset, config, checkpoint=path, identity="run")
    assert again.restored_epochs == 3


def test_training_numbers_are_means_over_the_images(
    dataset: Dataset, config: TrainingConfig
) -> None:
    seen: list[Loss] = []

    class Spy(Method[MethodConfig]):
        def loss(self, batch: Batch, run: Run) -> Loss:
            student = run.student(batch.inputs)
            rows = student.logits.logsumexp(1)
            seen.append(Loss(rows.detach(), student, {"twice": 2 * rows.detach()}))
            return Loss(rows, student, seen[-1].parts)

    _, result = train(dataset, config.model_copy(update={"epochs": 1}), method=Spy(MethodConfig()))
    expected = torch.cat([loss.rows for loss in seen]).mean().item()
    assert result.records[0].train_loss == pytest.approx(expected)
    assert result.records[0].train_parts == {"twice": pytest.approx(2 * expected)}


def test_distilling_reports_both_parts(dataset: Dataset, config: TrainingConfig) -> None:
    _, result = train(
        dataset,
        config,
        role="distilled",
        method=kd(temperature=3.0, alpha=0.7),
        teacher=Teacher(TeacherTable(5 * torch.eye(4)[dataset.train.labels]), None),
    )
    for record in result.records:
        kl, ce = record.train_parts["kl"], record.train_parts["ce"]
        assert record.train_loss == pytest.approx(0.7 * 9 * kl + 0.3 * ce, rel=1e-4)


def test_a_missing_teacher_is_an_error(dataset: Dataset, config: TrainingConfig) -> None:
    with pytest.raises(ValueError, match="needs a teacher"):
        train(dataset, config, method=kd(temperature=3.0))


def test_no_precision_or_layout_changes_what_is_learnt_much(
    dataset: Dataset, config: TrainingConfig
) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        for channels_last in (True, False):
            update = {"precision": precision, "channels_last": channels_last}
            _, result = train(dataset, config.model_copy(update=update))
            assert result.precision == precision
            losses[precision, channels_last] = result.records[-1].train_loss
    assert list(losses.values()) == pytest.approx([losses["fp32", False]] * 4, rel=0.05)
    assert losses["bf16", True] != losses["fp32", True]


@pytest.mark.parametrize("augmentation", [{}, AUGMENTED])
def test_equal_seeds_give_equal_numbers_whatever_the_global_generator(
    dataset: Dataset, config: TrainingConfig, augmentation: dict[str, Any]
) -> None:
    config = augmented(config, augmentation)
    torch.manual_seed(1)
    one, first = train(dataset, config)
    torch.manual_seed(2)
    other, second = train(dataset, config)
    assert numbers(first.records) == numbers(second.records)
    assert_equal_weights(one, other)


def test_other_seeds_give_other_numbers(dataset: Dataset, config: TrainingConfig) -> None:
    losses = {train(dataset, config, seed=s)[1].records[-1].train_loss for s in range(3)}
    assert len(losses) == 3


def test_plain_and_distilled_students_see_the_same_batches_and_teachers_others(
    dataset: Dataset, config: TrainingConfig
) -> None:
    orders = {}
    for role in ("teacher", "student", "distilled"):
        spy = OrderSpy()
        train(dataset, config, role=role, method=spy)
        orders[role] = spy.ids
    assert orders["student"] == orders["distilled"] != orders["teacher"]


def test_what_a_model_draws_itself_comes_from_the_runs_seed(
    dataset: Dataset, config: TrainingConfig
) -> None:
    losses = []
    for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
        model = dropout_model()
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        _, result = train(dataset, config, seed=seed, model=model)
        assert torch.equal(torch.get_rng_state(), before)
        losses.append(result.records[-1].train_loss)
    assert losses[0] == losses[1] != losses[2]


def test_gradients_are_clipped(dataset: Dataset, config: TrainingConfig) -> None:
    config = config.model_copy(update={"optimizer": "sgd", "learning_rate": 1.0, "momentum": 0.0})
    before = initialised_model("lenet5", dataset, seed=0, role=Role.STUDENT).state_dict()
    model, _ = train(dataset, config.model_copy(update={"gradient_clip": 1e-4}))
    moved = [(value - before[name]).square().sum() for name, value in model.state_dict().items()]
    # 12 steps of at most 1e-4 each.
    assert 0 < float(torch.stack(moved).sum().sqrt()) <= 12e-4 * 1.01


def test_gradients_below_the_largest_norm_stay(dataset: Dataset, config: TrainingConfig) -> None:
    free, _ = train(dataset, config)
    clipped, _ = train(dataset, config.model_copy(update={"gradient_clip": 1e6}))
    assert_equal_weights(free, clipped)


def test_away_from_a_terminal_nothing_is_said(
    dataset: Dataset, config: TrainingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    train(dataset, config)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_bar_shows_epoch_loss_accuracy_and_speed(
    dataset: Dataset, config: TrainingConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = io.StringIO()

    def bar(total: int, description: str, unit: str) -> "tqdm[Any]":
        return tqdm(total=total, desc=description, unit=unit, file=terminal, mininterval=0)

    monkeypatch.setattr("kdplatform.training.loop.progress_bar", bar)
    train(dataset, config)
    last = terminal.getvalue().rstrip().split("\r")[-1]
    assert re.search(r"student epoch 3/3: 100%.* 150/150 .*images/s, accuracy=.*%, loss=", last)


def test_the_saved_model_takes_raw_images(dataset: Dataset, config: TrainingConfig) -> None:
    model, _ = train(dataset, config)
    assert isinstance(model, InputNormalization)
    assert dataset.test.inputs.dtype == torch.uint8
    assert model(dataset.test.inputs).shape == (20, 4)
