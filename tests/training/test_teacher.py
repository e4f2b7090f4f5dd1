from typing import Any

import pytest
import torch
from fits import CPU, augmented, kd, train

from kdplatform.data import Dataset
from kdplatform.methods import Batch
from kdplatform.models.normalization import InputNormalization
from kdplatform.settings.schema import TrainingConfig
from kdplatform.training import (
    Teacher,
    TeacherTable,
    initialised_model,
    predict_logits,
)


@pytest.fixture
def teacher_model(dataset: Dataset) -> InputNormalization:
    return initialised_model("resnet20", dataset, seed=0, role="teacher")


def asked(model: InputNormalization) -> Teacher:
    """Returns a teacher that is its network alone."""
    return Teacher(None, lambda: model)


def distil(dataset: Dataset, config: TrainingConfig, teacher: Teacher) -> list[float]:
    method = kd(temperature=4.0)
    _, result = train(dataset, config, role="distilled", method=method, teacher=teacher)
    return [record.train_loss for record in result.records]


def test_table_and_model_say_the_same(dataset: Dataset, teacher_model: InputNormalization) -> None:
    rows = torch.tensor([3, 1, 41, 0])
    batch = Batch(
        inputs=dataset.train.inputs[rows],
        labels=dataset.train.labels[rows],
        ids=rows,
        rows=rows,
    )
    table = TeacherTable(predict_logits(teacher_model, dataset.train.inputs, device=CPU))
    torch.testing.assert_close(
        table(batch), asked(teacher_model)(batch).logits, rtol=1e-4, atol=1e-5
    )


def test_distilling_from_cached_logits_is_distilling_from_the_teacher(
    dataset: Dataset, config: TrainingConfig, teacher_model: InputNormalization
) -> None:
    config = config.model_copy(update={"precision": "fp32"})
    table = TeacherTable(predict_logits(teacher_model, dataset.train.inputs, device=CPU))
    cached = distil(dataset, config, Teacher(table, None))
    assert cached == pytest.approx(distil(dataset, config, asked(teacher_model)), rel=1e-3)


@pytest.mark.parametrize("augmentation", [{}, {"crop_padding": 1, "horizontal_flip": True}])
def test_distilling_changes_nothing_in_the_teacher(
    dataset: Dataset,
    config: TrainingConfig,
    teacher_model: InputNormalization,
    augmentation: dict[str, Any],
) -> None:
    before = {name: value.clone() for name, value in teacher_model.state_dict().items()}
    config = augmented(config, augmentation)
    teacher = asked(teacher_model)
    teacher_model.train()
    distil(dataset, config, teacher)
    assert any("running_mean" in name for name in before)
    for name, value in teacher_model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in teacher_model.parameters())


def test_teacher_sees_the_augmented_images(
    dataset: Dataset, config: TrainingConfig, teacher_model: InputNormalization
) -> None:
    seen: list[torch.Tensor] = []

    class Spy(Teacher):
        def __call__(self, batch: Batch, **named: Any) -> Any:
            seen.append(batch.inputs - dataset.train.inputs[batch.rows])
            return super().__call__(batch, **named)

    spy = Spy(None, lambda: teacher_model)
    distil(dataset, augmented(config, {"horizontal_flip": True}), spy)
    changed = torch.cat(seen).flatten(1).any(dim=1).float().mean()
    assert 0.3 < changed < 0.7
