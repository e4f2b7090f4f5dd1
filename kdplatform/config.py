"""Typed configuration: what a project file may say, with every unknown name rejected."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Self, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from kdplatform.errors import UserError, unknown_name

PROJECTS_FOLDER = Path(__file__).resolve().parent.parent / "projects"


class Section(BaseModel):
    """A block of the configuration: immutable, finite numbers only, unknown names rejected."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )


def parse_integers(text: str) -> list[int]:
    """Parses `0-4`, `3` or `0,2,5-7` into integers.

    Raises:
        ValueError: a part is not an integer or a rising range.
    """
    numbers: list[int] = []
    for part in text.split(","):
        low, dash, high = part.strip().partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"{part.strip()!r} is neither a number nor a range such as 0-4")
        if dash and int(high) < int(low):
            raise ValueError(f"{part.strip()!r} runs downwards")
        numbers.extend(range(int(low), int(high or low) + 1))
    return numbers


def _integers(value: object) -> object:
    if isinstance(value, int):
        return (value,)
    return parse_integers(value) if isinstance(value, str) else value


def _numbers(value: object) -> object:
    """Accepts `1-10,20,30.5`: whole ranges and single numbers."""
    if isinstance(value, int | float):
        return (value,)
    if not isinstance(value, str):
        return value
    numbers: list[object] = []
    for part in value.split(","):
        numbers.extend(parse_integers(part) if "-" in part else [part.strip()])
    return numbers


def _names(value: object) -> object:
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _none(value: object) -> object:
    return None if isinstance(value, str) and value.lower() in {"none", "null"} else value


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(_integers)]
Temperatures = Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_numbers)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]


class DatasetConfig(Section):
    """What every dataset's configuration has; each dataset adds its own fields."""

    name: str = Field(description="dataset, one of kdplatform/data")


class AugmentationConfig(Section):
    """Random changes of the training images, drawn anew in every epoch."""

    crop_padding: int = Field(0, ge=0, description="pixels added around before a random crop")
    horizontal_flip: bool = Field(False, description="mirror half of the images")

    @property
    def active(self) -> bool:
        """Whether inputs differ from epoch to epoch."""
        return self.horizontal_flip or self.crop_padding > 0


class TrainingConfig(Section):
    """One model and how it is trained."""

    model: str = Field(description="architecture, one of kdplatform/models")
    epochs: int = Field(ge=1, description="passes over the training split")
    batch_size: int = Field(128, ge=1, description="examples per step")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="optimiser")
    learning_rate: float = Field(gt=0, description="highest learning rate of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    schedule: Literal["constant", "step", "cosine"] = Field(
        "cosine", description="learning rate over the epochs"
    )
    milestones: Annotated[tuple[int, ...], BeforeValidator(_integers)] = Field(
        (), description="epochs after which schedule=step multiplies the rate by decay"
    )
    decay: float = Field(0.1, gt=0, le=1, description="factor at each milestone")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear warm-up")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="smoothing of the hard labels")
    gradient_clip: Annotated[
        Annotated[float, Field(gt=0)] | None, BeforeValidator(_none)
    ] = Field(None, description="largest gradient norm; none: not clipped")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the hardware computes in it, else fp32"
    )
    channels_last: bool = Field(True, description="NHWC memory layout")
    augmentation: AugmentationConfig = AugmentationConfig()

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        from kdplatform.models import model_names

        if value not in model_names():
            raise unknown_name("model", value, model_names())
        return value

    @model_validator(mode="after")
    def _milestones_fit(self) -> Self:
        if self.milestones and self.schedule != "step":
            raise ValueError(f"milestones={self.milestones} need schedule='step'")
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs:g} allowed: at most epochs={self.epochs}"
            )
        return self


class DistillationConfig(Section):
    """How the distilled student learns from the teacher."""

    method: str = Field("kd", description="objective, one of kdplatform/objectives")
    temperature: float = Field(gt=0, description="softmax temperature T of teacher and student")
    alpha: float = Field(0.8, ge=0, le=1, description="weight of the distillation term")
    scale_by_t2: bool = Field(True, description="multiply the distillation term by T^2")
    teacher_seed: Literal["same"] | Annotated[int, Field(ge=0)] = Field(
        "same", description="same: students of seed i learn from teacher i; a number: all from one"
    )

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        from kdplatform.objectives import method_names

        if value not in method_names():
            raise unknown_name("method", value, method_names())
        return value


class ProjectConfig(Section):
    """A study: its data, its pair of models, its temperatures, seeds and attributes."""

    name: str = Field(description="name of the project", pattern=r"^[A-Za-z0-9_.-]+$")
    dataset: SerializeAsAny[DatasetConfig]
    teacher: TrainingConfig
    student: TrainingConfig
    distillation: DistillationConfig
    temperatures: Temperatures = Field(min_length=1, description="temperatures of the study")
    seeds: Seeds = Field((0,), min_length=1, description="seeds such as 0, 0-4 or 0,2,5")
    attributes: Names = Field((), description="attributes whose groups are compared")

    @field_validator("dataset", mode="before")
    @classmethod
    def _dataset_of_its_own_kind(cls, value: object) -> object:
        from kdplatform.data import dataset_config_class

        if not isinstance(value, Mapping):
            return value
        name = str(value.get("name", ""))
        return dataset_config_class(name).model_validate(dict(value))

    @field_validator("seeds", "temperatures", "attributes")
    @classmethod
    def _each_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a value is given twice")
        return value
