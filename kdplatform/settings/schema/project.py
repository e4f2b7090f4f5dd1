"""A study: its data, its models and what is compared."""

import re
from typing import Self

from pydantic import BaseModel, Field, SerializeAsAny, model_validator

from kdplatform.settings.schema.conditions import EvaluationConfig
from kdplatform.settings.schema.fields import NEUTRAL, Names, Section, Seeds, Temperatures
from kdplatform.settings.schema.training import DistillationConfig, MethodConfig, TrainingConfig
from kdplatform.settings.schema.tuning import TuningConfig


class DatasetConfig(Section):
    """The configuration of every dataset. Each dataset adds its own fields."""

    name: str = Field(description="name of a dataset of kdplatform/data")
    imbalance: float = Field(
        1.0,
        ge=1,
        description="training examples of the first class divided by those of the last; the "
        "classes between fall exponentially; 1: unchanged",
        json_schema_extra=NEUTRAL,
    )
    imbalance_seed: int = Field(
        0, ge=0, description="seed that chooses the kept examples", json_schema_extra=NEUTRAL
    )
    unlabeled_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training split whose labels are hidden",
        json_schema_extra=NEUTRAL,
    )
    unlabeled_seed: int = Field(
        0, ge=0, description="seed that chooses the hidden labels", json_schema_extra=NEUTRAL
    )


class ProjectConfig(Section):
    """A study: its data, its pair of models, its temperatures, seeds and attributes."""

    name: str = Field(description="name of the project", pattern=r"^[A-Za-z0-9_.-]+$")
    dataset: SerializeAsAny[DatasetConfig]
    teacher: TrainingConfig
    student: TrainingConfig
    distillation: SerializeAsAny[DistillationConfig]
    temperatures: Temperatures = Field(min_length=1, description="temperatures of the study")
    methods: tuple[SerializeAsAny[DistillationConfig], ...] = Field(
        (),
        description="methods that a sweep compares; none: distillation.method",
        json_schema_extra=NEUTRAL,
    )
    seeds: Seeds = Field((0,), min_length=1, description="seeds such as 0, 0-4 or 0,2,5")
    attributes: Names = Field(
        (), description="attributes whose groups are compared; not given: dataset.attributes"
    )
    min_group_size: int = Field(
        30, ge=1, description="groups with fewer examples than this are listed but not measured"
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    tuning: TuningConfig = TuningConfig()

    @property
    def compared_methods(self) -> tuple[DistillationConfig, ...]:
        """The methods of a sweep."""
        return self.methods or (self.distillation,)

    @property
    def shared_teacher_seed(self) -> int | None:
        """The seed of the one teacher that all students learn from; None: each seed has its own.

        A frozen teacher is the same for every seed, and so are several that no seed chooses: they
        are one ensemble, of seed 0.
        """
        if self.teacher.frozen:
            return 0
        if named := self.distillation.teachers:
            if any(entry.rpartition(":")[2] == "same" for entry in named):
                return None
            one = len(named) == 1 and re.fullmatch(r"\d{1,9}", named[0])
            return int(named[0]) if one else 0
        chosen = self.distillation.teacher_seed
        return None if chosen == "same" else chosen

    def teacher_seed(self, seed: int) -> int:
        """Returns the seed of the teacher that the students of `seed` learn from."""
        shared = self.shared_teacher_seed
        return seed if shared is None else shared

    @model_validator(mode="after")
    def _students_train(self) -> Self:
        if self.student.logits:
            raise ValueError("student.logits is not allowed; allowed: teacher.logits")
        if self.student.frozen:
            raise ValueError("student.frozen=True is not allowed; allowed: false, students train")
        return self


def neutral_values(config: BaseModel, prefix: str = "") -> dict[str, object]:
    """Returns the default of every `NEUTRAL` field, by the names that `flatten` gives.

    Records from before such a field were made at its default.
    """
    found: dict[str, object] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            found |= neutral_values(value, f"{prefix}{name}.")
        elif field.json_schema_extra == NEUTRAL:
            found[prefix + name] = field.default
    return found


def flatten(config: BaseModel, prefix: str = "") -> dict[str, object]:
    """Returns every field as dotted name and plain value. A method is under its block's name.

    Of the methods that a sweep compares it has only the names. The method of `teacher.method` is
    `teacher.method`, and its own fields are `teacher.method.field`.
    """
    flat: dict[str, object] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(config, EvaluationConfig):
            flat[prefix + name] = {key: own.given() for key, own in value.items()}
        elif name == "methods" and isinstance(config, ProjectConfig):
            flat[prefix + name] = tuple(method.method for method in config.methods)
        elif not isinstance(value, BaseModel):
            flat[prefix + name] = value
        elif isinstance(value, MethodConfig) and name == "method":
            flat[prefix + name] = value.method
            own = flatten(value, f"{prefix}{name}.")
            flat |= {key: field for key, field in own.items() if key != f"{prefix}{name}.method"}
        else:
            flat |= flatten(value, f"{prefix}{name}.")
    return flat
