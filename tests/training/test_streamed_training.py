"""Training on images that stay in their files gives what training on them in memory gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fits import CPU, assert_equal_weights, augmented, kd, numbers, train

from kdplatform.data import Dataset, Split, StreamedInputs
from kdplatform.errors import UserError
from kdplatform.settings.schema import TrainingConfig
from kdplatform.training import (
    EpochRecord,
    Teacher,
    fit,
    initialised_model,
    predict_logits,
)

CROPS = {"random_resized_crop": True, "horizontal_flip": True}


@pytest.fixture(scope="module")
def streamed(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The tiny problem as files."""
    from PIL import Image

    root = tmp_path_factory.mktemp("images")

    def written(split: Split, name: str) -> Split:
        assert isinstance(split.inputs, torch.Tensor)
        for row, image in enumerate(split.inputs):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(root / f"{name}{row}.png")
        files = [f"{name}{row}.png" for row in range(len(split))]
        return replace(split, inputs=StreamedInputs(root, files, size=8, workers=0))

    return replace(
        dataset, **{name: written(split, name) for name, split in dataset.splits().items()}
    )


def with_workers(dataset: Dataset, workers: int) -> Dataset:
    inputs = dataset.train.inputs
    assert isinstance(inputs, StreamedInputs)
    files = [inputs.path(row).name for row in range(len(inputs))]
    root = inputs.path(0).parent
    inputs = StreamedInputs(root, files, size=8, workers=workers)
    return replace(dataset, train=replace(dataset.train, inputs=inputs))


def test_channel_statistics_and_logits_are_those_from_memory(
    dataset: Dataset, streamed: Dataset
) -> None:
    for ours, theirs in zip(streamed.channel_statistics, dataset.channel_statistics, strict=True):
        assert torch.equal(ours, theirs)
    model = initialised_model("lenet5", dataset, seed=0, role="teacher")
    logits = [predict_logits(model, d.test.inputs, device=CPU) for d in (dataset, streamed)]
    assert torch.equal(*logits)


@pytest.mark.parametrize("augmentation", [{}, {"crop_padding": 1, "horizontal_flip": True}])
@pytest.mark.parametrize("workers", [0, 2])
def test_weights_are_those_from_memory_bit_for_bit(
    dataset: Dataset,
    streamed: Dataset,
    config: TrainingConfig,
    augmentation: dict[str, Any],
    workers: int,
) -> None:
    config = augmented(config, augmentation)
    expected, result = train(dataset, config)
    model, ours = train(with_workers(streamed, workers), config)
    assert_equal_weights(model, expected)
    assert [r.val_loss for r in ours.records] == [r.val_loss for r in result.records]


def test_random_resized_crops_do_not_depend_on_the_number_of_workers(
    streamed: Dataset, config: TrainingConfig
) -> None:
    models = [
        train(with_workers(streamed, workers), augmented(config, CROPS))[0] for workers in (0, 1, 2)
    ]
    assert_equal_weights(models[0], models[1])
    assert_equal_weights(models[0], models[2])
    plain, _ = train(streamed, config)
    with pytest.raises(AssertionError):
        assert_equal_weights(models[0], plain)


class _KilledError(Exception):
    pass


def test_a_killed_fit_goes_on_bit_for_bit(
    streamed: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    def die(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise _KilledError

    config, data = augmented(config, CROPS), with_workers(streamed, 2)
    kept = {"checkpoint": tmp_path / "checkpoint", "identity": "run"}
    with pytest.raises(_KilledError):
        train(data, config, on_epoch=die, **kept)
    resumed, result = train(data, config, **kept)
    model, expected = train(data, config)
    assert len(result.records) == config.epochs
    assert_equal_weights(resumed, model)
    assert numbers(result.records) == numbers(expected.records)


def test_the_teacher_sees_the_crops_that_the_student_sees(
    streamed: Dataset, config: TrainingConfig
) -> None:
    seen: list[torch.Tensor] = []
    teacher = initialised_model("lenet5", streamed, seed=0, role="teacher")
    teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    student_saw: list[torch.Tensor] = []
    model = initialised_model("lenet5", streamed, seed=0, role="distilled")
    model.register_forward_pre_hook(lambda module, inputs: student_saw.append(inputs[0]))
    fit(
        model,
        streamed.train,
        kd(temperature=4),
        augmented(config.model_copy(update={"epochs": 1}), CROPS),
        seed=0,
        role="distilled",
        device=CPU,
        teacher=Teacher(None, lambda: teacher),
    )
    assert sum(len(images) for images in seen) == len(streamed.train)
    for theirs, ours in zip(seen, student_saw, strict=True):
        assert torch.equal(theirs, ours)


def test_random_resized_crops_of_images_in_memory_are_refused(
    dataset: Dataset, config: TrainingConfig
) -> None:
    with pytest.raises(UserError, match=r"random_resized_crop=True .*\(dataset\.storage=stream\)"):
        train(dataset, augmented(config, CROPS))
