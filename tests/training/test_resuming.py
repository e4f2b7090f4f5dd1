"""A fit goes on where it was stopped, to the same numbers."""

from pathlib import Path
from typing import Any

import pytest
from fits import AUGMENTED, OrderSpy, assert_equal_weights, dropout_model, numbers, train

from kdplatform.data import Dataset
from kdplatform.settings.schema import TrainingConfig
from kdplatform.training import EpochRecord


class InterruptedFitError(Exception):
    """Stands for whatever ends a process."""


RESUMED: dict[str, dict[str, Any]] = {
    "adamw": {},
    "sgd, warm-up, step": {
        "optimizer": "sgd",
        "schedule": "step",
        "milestones": (1,),
        "warmup_epochs": 0.5,
    },
    "augmented": {"augmentation": AUGMENTED},
    "batch norm": {"model": "resnet20"},
    "fp32": {"precision": "fp32"},
}


@pytest.mark.parametrize("finished_epochs", [1, 2])
@pytest.mark.parametrize("case", [*RESUMED, "dropout"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    case: str, finished_epochs: int, dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    config = TrainingConfig.model_validate({**config.model_dump(), **RESUMED.get(case, {})})

    def fresh() -> dict[str, Any]:
        return {"model": dropout_model()} if case == "dropout" else {}

    def stop(record: EpochRecord) -> None:
        if record.epoch == finished_epochs:
            raise InterruptedFitError

    whole, expected = train(dataset, config, **fresh())
    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    with pytest.raises(InterruptedFitError):
        train(dataset, config, on_epoch=stop, **saved, **fresh())
    reported: list[EpochRecord] = []
    resumed, result = train(dataset, config, on_epoch=reported.append, **saved, **fresh())

    assert result.restored_epochs == finished_epochs
    assert numbers(result.records) == numbers(expected.records)
    assert tuple(reported) == result.records
    assert_equal_weights(resumed, whole)


def test_a_finished_run_is_restored_without_training(
    dataset: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    saved = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    one, first = train(dataset, config, **saved)
    spy = OrderSpy()
    other, second = train(dataset, config, method=spy, **saved)
    assert second.records == first.records
    assert spy.ids == []
    assert_equal_weights(one, other)


@pytest.mark.parametrize("damage", ["altered", "cut short", "another run"])
def test_a_checkpoint_that_is_no_good_is_ignored(
    damage: str,
    dataset: Dataset,
    config: TrainingConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint = tmp_path / "checkpoint"
    train(dataset, config, checkpoint=checkpoint, identity="run")
    data = checkpoint.read_bytes()
    if damage == "altered":
        checkpoint.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    if damage == "cut short":
        checkpoint.write_bytes(data[:5000])
    identity = "another" if damage == "another run" else "run"
    _, result = train(dataset, config, checkpoint=checkpoint, identity=identity)
    assert result.restored_epochs == 0
    assert capsys.readouterr().err.count("training starts again") == 1
