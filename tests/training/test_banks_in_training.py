"""Memory banks and mean teachers in a training: banks beside the checkpoint, other views."""

from pathlib import Path
from typing import Any

import pytest
import torch
from fits import AUGMENTED, CPU, assert_equal_weights, augmented, numbers, train
from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.errors import UserError
from kdplatform.methods import Batch, Output, build_method
from kdplatform.methods import feature as feature_method
from kdplatform.methods.crckd import Config
from kdplatform.roles import Role
from kdplatform.settings.schema import TrainingConfig
from kdplatform.training import Teacher, TeacherTable, initialised_model, predict_logits

SMALL = {"positives": 3, "negatives": 10, "width": 16, "start_epoch": 0}


@pytest.fixture
def teacher(dataset: Dataset) -> Teacher:
    network = initialised_model("resnet20", dataset, seed=5, role=Role.TEACHER)
    table = TeacherTable(predict_logits(network, dataset.train.inputs, device=CPU))
    return Teacher(table, lambda: network)


@pytest.mark.parametrize("kind", ["mean", "frozen"])
def test_training_goes_on_bit_for_bit_with_its_banks(
    kind: Any, dataset: Dataset, config: TrainingConfig, teacher: Teacher, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    def stop(record: Any) -> None:
        if record.epoch == 2:
            raise StopError

    moved = augmented(config, AUGMENTED)
    given = {"teacher": teacher, "checkpoint": tmp_path / "checkpoint", "identity": "run"}
    whole, cut, resumed = (build_method(Config(teacher=kind, **SMALL)) for _ in range(3))
    model, expected = train(dataset, moved, method=whole, teacher=teacher)
    with pytest.raises(StopError):
        train(dataset, moved, method=cut, on_epoch=stop, **given)
    parts = list(tmp_path.glob("checkpoint.*.part"))
    assert len(parts) == 2  # the banks of two epochs, not of three
    assert all(part.stat().st_size > 4 * 50 * 16 for part in parts)
    again, result = train(dataset, moved, method=resumed, **given)
    assert result.restored_epochs == 2
    assert_equal_weights(model, again)
    assert numbers(expected.records) == numbers(result.records)
    for bank in ("student_bank", "teacher_bank"):
        assert torch.equal(getattr(whole, bank), getattr(resumed, bank))
        torch.testing.assert_close(getattr(whole, bank).norm(dim=1), torch.ones(50))


def test_banks_are_not_in_the_checkpoint_itself(
    dataset: Dataset, config: TrainingConfig, teacher: Teacher, tmp_path: Path
) -> None:
    path = tmp_path / "checkpoint"
    sizes = []
    for width in (4, 4000):
        method = build_method(Config(teacher="frozen", **{**SMALL, "width": width}))
        one = config.model_copy(update={"epochs": 1, "optimizer": "sgd", "momentum": 0.0})
        train(dataset, one, method=method, teacher=teacher, checkpoint=path, identity=str(width))
        sizes.append(path.stat().st_size - 4 * sum(p.numel() for p in _layers(method)))
    banks = sum(part.stat().st_size for part in tmp_path.glob("checkpoint.*.part"))
    assert banks > 2 * 4 * 50 * 4000
    assert abs(sizes[1] - sizes[0]) < 10_000


def _layers(method: Any) -> list[Tensor]:
    return [*method.student_projection.parameters(), *method.teacher_projection.parameters()]


def test_the_mean_teacher_sees_another_view_where_training_augments(
    dataset: Dataset, config: TrainingConfig
) -> None:
    class Spy(type(build_method(Config()))):  # type: ignore[misc]
        pairs: list[bool]

        def _teacher(self, batch: Batch, run: Any) -> Output:
            ask, seen = run.ask, []

            def spy(network: nn.Module, inputs: Tensor, *, features: bool = False) -> Output:
                seen.append(inputs)
                return ask(network, inputs, features=features)

            run.ask = spy
            answer = super()._teacher(batch, run)
            run.ask = ask
            self.pairs.append(torch.equal(seen[0], batch.inputs))
            return answer

    for moved, view, same in (
        (augmented(config, AUGMENTED), True, False),
        (augmented(config, AUGMENTED), False, True),
        (config, True, True),
    ):
        method = Spy(Config(another_view=view, **SMALL))
        method.pairs = []
        train(dataset, moved.model_copy(update={"epochs": 1}), method=method)
        assert method.pairs == [same] * 4


def test_terms_that_never_count_are_said(
    dataset: Dataset, config: TrainingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    method = build_method(Config(**{**SMALL, "start_epoch": 3}))
    train(dataset, config, method=method)
    said = capsys.readouterr().err
    assert "start_epoch=3 is not within the 3 epochs of training: the mean teacher's" in said


def test_features_of_a_teacher_of_another_width_are_learnt_from(
    dataset: Dataset, config: TrainingConfig, teacher: Teacher
) -> None:
    losses = {}
    for kind in ("fitnet", "rkd", "similarity", "selectivity"):
        method = build_method(feature_method.Config(kind=kind, ce_weight=0))  # type: ignore[arg-type]
        _, result = train(dataset, config, method=method, teacher=teacher)
        losses[kind] = [record.train_parts["feature"] for record in result.records]
    assert method.needs.teacher == "live"
    for kind, values in losses.items():
        assert values[-1] < values[0], kind


def test_features_of_a_table_are_refused_in_one_line(
    dataset: Dataset, config: TrainingConfig
) -> None:
    table = Teacher(TeacherTable(torch.zeros(50, 4)), None)
    with pytest.raises(
        UserError, match="the teacher is a table of logits and cannot serve other inputs"
    ):
        train(dataset, config, method=build_method(feature_method.Config()), teacher=table)
