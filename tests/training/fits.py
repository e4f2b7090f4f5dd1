"""What tests of the loop share: a fit of the tiny problem, and what it is compared by."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from kdplatform.data import Dataset, Split
from kdplatform.methods import Batch, Loss, Method, Run, build_method
from kdplatform.methods import kd as kd_method
from kdplatform.roles import Role
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import EpochRecord, FitResult, fit, initialised_model

CPU = torch.device("cpu")
CLASSES = 4
SIDE = 8


def draw_split(count: int, first_id: int) -> Split:
    generator = torch.Generator().manual_seed(first_id)
    labels = torch.arange(count) % CLASSES
    inputs = torch.randint(0, 100, (count, 3, SIDE, SIDE), generator=generator)
    for row, label in enumerate(labels.tolist()):
        inputs[row, :, 2 * label : 2 * label + 2] += 100
    ids = np.arange(first_id, first_id + count, dtype=np.int64)
    return Split(inputs.to(torch.uint8), labels, ids, pd.DataFrame(index=range(count)))


def kd(**fields: Any) -> Method[Any]:
    """Returns plain distillation with these fields."""
    return build_method(kd_method.Config(**fields))


def augmented(config: TrainingConfig, augmentation: Mapping[str, object]) -> TrainingConfig:
    """Returns the configuration with another augmentation, checked."""
    return TrainingConfig.model_validate({**config.model_dump(), "augmentation": augmentation})


def train(
    dataset: Dataset,
    config: TrainingConfig,
    *,
    seed: int = 0,
    role: str = "student",
    method: Method[Any] | None = None,
    **arguments: Any,
) -> tuple[nn.Module, FitResult]:
    model = arguments.pop("model", None)
    model = model or initialised_model(config.model, dataset, seed=seed, role=Role(role))
    method = method or build_method(MethodConfig())
    arguments = {"validation": dataset.val, **arguments}
    result = fit(
        model, dataset.train, method, config, seed=seed, role=Role(role), device=CPU, **arguments
    )
    return model, result


def numbers(records: tuple[EpochRecord, ...]) -> list[dict[str, Any]]:
    """Returns what of the records does not depend on how busy the machine is."""
    timeless = [dataclasses.asdict(record) for record in records]
    for record in timeless:
        del record["seconds"], record["images_per_second"]
    return timeless


def assert_equal_weights(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


AUGMENTED = {"crop_padding": 1, "horizontal_flip": True}


class OrderSpy(Method[MethodConfig]):
    """Keeps the ids it is given, in their order."""

    def __init__(self) -> None:
        super().__init__(MethodConfig())
        self.ids: list[int] = []

    def loss(self, batch: Batch, run: Run) -> Loss:
        self.ids.extend(batch.ids.tolist())
        student = run.student(batch.inputs)
        return Loss(student.logits.square().mean(dim=1), student, {})


class Dropout(nn.Module):
    """A model that draws random numbers of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images.float() / 255)
        return logits


def dropout_model() -> nn.Module:
    torch.manual_seed(0)
    return Dropout()
