"""Training on images that stay in their files gives what training on them in memory gives."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kdplatform.objectives import build_objective
from torch import nn

from kdplatform.data import Dataset, Split, StreamedInputs
from kdplatform.errors import UserError
from kdplatform.settings.schema import DistillationConfig, TrainingConfig
from kdplatform.training import (
    EpochRecord,
    TeacherModel,
    fit,
    initialised_model,
    predict_logits,
)

CPU = torch.device("cpu")
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


def with_workers(dataset: Dataset, workers: int) -> Split:
    inputs = dataset.train.inputs
    assert isinstance(inputs, StreamedInputs)
    files = [inputs.path(row).name for row in range(len(inputs))]
    root = inputs.path(0).parent
    return replace(dataset.train, inputs=StreamedInputs(root, files, size=8, workers=workers))


def train(
    dataset: Dataset, config: TrainingConfig, split: Split | None = None, **fields: Any
) -> tuple[nn.Module, list[EpochRecord]]:
    model = initialised_model("lenet5", dataset, seed=0, role="student")
    augmentation = fields.pop("augmentation", {})
    config = TrainingConfig.model_validate(config.model_dump() | {"augmentation": augmentation})
    result = fit(
        model,
        split or dataset.train,
        fields.pop("objective", build_objective(None)),
        config,
        seed=0,
        role="student",
        device=CPU,
        validation=dataset.val,
        **fields,
    )
    return model, list(result.records)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_channel_statistics_and_logits_are_those_from_memory(
    dataset: Dataset, streamed: Dataset
) -> None:
    for ours, theirs in zip(
        streamed.channel_statistics(), dataset.channel_statistics(), strict=True
    ):
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
    expected, records = train(dataset, config, augmentation=augmentation)
    model, ours = train(
        streamed, config, with_workers(streamed, workers), augmentation=augmentation
    )
    assert torch.equal(weights(model), weights(expected))
    assert [r.val_loss for r in ours] == [r.val_loss for r in records]


def test_random_resized_crops_do_not_depend_on_the_number_of_workers(
    streamed: Dataset, config: TrainingConfig
) -> None:
    models = [
        train(streamed, config, with_workers(streamed, workers), augmentation=CROPS)[0]
        for workers in (0, 1, 2)
    ]
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert torch.equal(weights(models[0]), weights(models[2]))
    plain, _ = train(streamed, config)
    assert not torch.equal(weights(models[0]), weights(plain))


class _KilledError(Exception):
    pass


def test_a_killed_fit_goes_on_bit_for_bit(
    streamed: Dataset, config: TrainingConfig, tmp_path: Path
) -> None:
    def die(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise _KilledError

    split = with_workers(streamed, 2)
    kept = {"checkpoint": tmp_path / "checkpoint", "identity": "run", "augmentation": CROPS}
    with pytest.raises(_KilledError):
        train(streamed, config, split, on_epoch=die, **kept)
    resumed, records = train(streamed, config, split, **kept)
    model, expected = train(streamed, config, split, augmentation=CROPS)
    assert len(records) == config.epochs
    assert torch.equal(weights(resumed), weights(model))
    assert [r.train_loss for r in records] == [r.train_loss for r in expected]


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
        build_objective(DistillationConfig(temperature=4)),
        TrainingConfig.model_validate(config.model_dump() | {"augmentation": CROPS, "epochs": 1}),
        seed=0,
        role="distilled",
        device=CPU,
        teacher=TeacherModel(teacher),
    )
    assert sum(len(images) for images in seen) == len(streamed.train)
    for theirs, ours in zip(seen, student_saw, strict=True):
        assert torch.equal(theirs, ours)


def test_random_resized_crops_of_images_in_memory_are_refused(
    dataset: Dataset, config: TrainingConfig
) -> None:
    with pytest.raises(UserError, match=r"random_resized_crop=True .*\(dataset\.storage=stream\)"):
        train(dataset, config, augmentation=CROPS)
