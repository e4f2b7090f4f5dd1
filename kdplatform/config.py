"""Typed configuration: what a project file may say, with every unknown name rejected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)

from kdplatform import text_values
from kdplatform.errors import UserError, unknown_name
from kdplatform.field_words import allowed, plain_text
from kdplatform.files import not_there, user_path
from kdplatform.training_config import (
    LOSS_TEMPERATURES,
    AugmentationConfig,
    NotAmongError,
    Section,
    TrainingConfig,
)
from kdplatform.tuning.config import TuningConfig
from kdplatform.yaml_files import read_mapping

__all__ = [
    "PROJECTS_FOLDER",
    "SHORTCUTS",
    "TUNING_SHORTCUTS",
    "AugmentationConfig",
    "DatasetConfig",
    "DistillationConfig",
    "FieldDescription",
    "ProjectConfig",
    "Section",
    "TrainingConfig",
    "TuningConfig",
    "describe_fields",
    "dump_yaml",
    "flatten",
    "load_project",
    "project_names",
    "with_absolute_paths",
]

PROJECTS_FOLDER = Path(__file__).resolve().parent.parent / "projects"


Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(text_values.integers)]
Temperatures = Annotated[
    tuple[Annotated[float, LOSS_TEMPERATURES], ...], BeforeValidator(text_values.numbers)
]
Names = Annotated[tuple[str, ...], BeforeValidator(text_values.names)]


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) != len(values):
        raise ValueError("a value is given twice")
    return values


class DatasetConfig(Section):
    """What every dataset's configuration has; each dataset adds its own fields."""

    name: str = Field(description="dataset, one of kdplatform/data")

    @field_validator("*")
    @classmethod
    def _names_once(cls, value: object) -> object:
        return _each_once(value) if isinstance(value, tuple) else value


class DistillationConfig(Section):
    """How the distilled student learns from the teacher."""

    method: str = Field("kd", description="objective, one of kdplatform/objectives")
    temperature: Annotated[float, LOSS_TEMPERATURES] = Field(
        description="softmax temperature T of teacher and student"
    )
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
            raise NotAmongError(value, method_names())
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
    min_group_size: int = Field(
        30, ge=1, description="examples a group needs to be measured; 1 counts every group"
    )
    tuning: TuningConfig = TuningConfig()

    @property
    def shared_teacher_seed(self) -> int | None:
        """The seed of the one teacher that all students learn from; None: each seed has its own.

        A frozen teacher is the same for every seed.
        """
        if self.teacher.frozen:
            return 0
        chosen = self.distillation.teacher_seed
        return None if chosen == "same" else chosen

    @model_validator(mode="after")
    def _students_train(self) -> Self:
        if self.student.frozen:
            raise ValueError("student.frozen=True is not allowed; allowed: false, students train")
        return self

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
    def _values_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        return _each_once(value)


# Short spellings of the fields that are set most often.
SHORTCUTS = {
    "temperature": "distillation.temperature",
    "alpha": "distillation.alpha",
    "method": "distillation.method",
}
# Short spellings that only `tune` takes.
TUNING_SHORTCUTS = {
    name: f"tuning.{name}"
    for name in (
        "trials",
        "unfairness",
        "attribute",
        "mode",
        "sampler",
        "seeds_per_trial",
        "confirm_seeds",
    )
}


# Kinds of problems to which "allowed: number > 0" is the whole answer.
_SAID_BY_ALLOWED = (
    "_type",
    "_parsing",
    "_from_float",
    "literal_error",
    "greater_than",
    "greater_than_equal",
    "less_than",
    "less_than_equal",
)
_MESSAGES = {"finite_number": "not a finite number", "too_short": "empty"}


@dataclass(frozen=True)
class FieldDescription:
    """One configuration field as `--help` and error messages show it."""

    name: str
    allowed: str
    default: str
    description: str


def project_names(folder: Path = PROJECTS_FOLDER) -> tuple[str, ...]:
    """Returns the projects that come with the platform."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def load_project(
    project: str, overrides: Mapping[str, str] | None = None, parameters: Sequence[str] = ()
) -> ProjectConfig:
    """Loads a project file and applies overrides to its fields.

    Args:
        project: a name in `projects/`, or the path of a YAML file.
        overrides: field name, dotted (`student.epochs`) or short (`temperature`), to the text of
            its value. Another `dataset.name` than the file's starts from that dataset's defaults.
        parameters: what else a user may have meant by a name that does not exist.

    Raises:
        UserError: the project, a field or a value is not allowed; says which and what is.
    """
    overrides = overrides or {}
    content = read_mapping("project", _project_path(project))
    dataset_name = _choose_dataset(content, overrides)
    fields = {field.name: field for field in describe_fields(dataset_name)}
    spelled: dict[str, str] = {}
    for name, text in overrides.items():
        path = (SHORTCUTS | TUNING_SHORTCUTS).get(name, name)
        if path not in fields:
            raise unknown_name("parameter", name, {*fields, *SHORTCUTS, *parameters})
        if path in spelled:
            raise UserError(f"{spelled[path]} and {name} set the same field; allowed: one of them")
        spelled[path] = name
        _set_field(content, path, text)
    try:
        return ProjectConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(_one_line(error, fields, spelled)) from None


def dump_yaml(config: ProjectConfig) -> str:
    """Returns the resolved configuration as YAML that `load_project` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def with_absolute_paths(config: ProjectConfig) -> ProjectConfig:
    """Returns the same study, to be started from any folder: where the data lie is absolute."""
    dataset = config.dataset
    places = {
        name: str(user_path(f"dataset.{name}", value).resolve())
        for name in ("root", "file")
        if (value := getattr(dataset, name, ""))
    }
    return config.model_copy(update={"dataset": dataset.model_copy(update=places)})


def flatten(config: BaseModel, prefix: str = "") -> dict[str, object]:
    """Returns every field as dotted name and plain value."""
    flat: dict[str, object] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def describe_fields(dataset_name: str) -> list[FieldDescription]:
    """Returns every field of a project with this dataset, in the order of the project file."""
    from kdplatform.data import dataset_config_class

    return list(_describe(ProjectConfig, dataset_config_class(dataset_name), ""))


def _describe(
    section: type[BaseModel], dataset_class: type[DatasetConfig], prefix: str
) -> Iterator[FieldDescription]:
    for name, field in section.model_fields.items():
        inner = dataset_class if name == "dataset" else field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _describe(inner, dataset_class, f"{prefix}{name}.")
            continue
        default = "" if field.is_required() else plain_text(field.default)
        yield FieldDescription(prefix + name, allowed(field), default, field.description or "")


def _project_path(project: str) -> Path:
    if project.endswith((".yaml", ".yml")):
        path = user_path("project", project)
        if not path.is_file():
            names = ", ".join(project_names())
            raise not_there("project", project, path, f"a YAML file or a name of {names}")
        return path
    if project not in project_names():
        raise unknown_name("project", project, project_names())
    return PROJECTS_FOLDER / f"{project}.yaml"


def _choose_dataset(content: dict[str, Any], overrides: Mapping[str, str]) -> str:
    """Returns the dataset's name, and empties the file's block when that is of another dataset."""
    from kdplatform.data import dataset_config_class

    block = content.get("dataset")
    own = block.get("name") if isinstance(block, dict) else None
    name = overrides.get("dataset.name", own)
    if name is None:
        raise UserError("dataset.name is missing in the project file")
    dataset_config_class(str(name))
    if name != own:
        content["dataset"] = {}
    return str(name)


def _set_field(content: dict[str, Any], path: str, text: str) -> None:
    *sections, leaf = path.split(".")
    block = content
    for section in sections:
        inner = block.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"{section} is {inner!r} in the project file; allowed: a block")
        block = inner
    block[leaf] = text


def _one_line(
    error: ValidationError,
    fields: Mapping[str, FieldDescription],
    spelled: Mapping[str, str],
    prefix: Sequence[str] = (),
) -> str:
    """Says the first problem of a validation in one line: field, value, what is allowed.

    Args:
        spelled: how the user wrote the names of fields that were set on the command line.
        prefix: where in the configuration the validated block stands.
    """
    problem = error.errors()[0]
    kind, location = problem["type"], [*prefix, *map(str, problem["loc"])]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, ValidationError):
        return _one_line(cause, fields, spelled, location)
    if kind == "extra_forbidden":
        return str(unknown_name("field", ".".join(location), fields))
    if kind == "missing":
        return f"{'.'.join(location)} is missing in the project file"
    # The place of a value inside a list or union is not a field the user can name.
    while len(location) > 1 and ".".join(location) not in fields:
        location.pop()
    name = ".".join(location)
    shown = spelled.get(name, name)
    if isinstance(cause, NotAmongError):
        return str(unknown_name(shown, cause.value, cause.known))
    message = _MESSAGES.get(kind, problem["msg"].removeprefix("Value error, "))
    if name not in fields and not kind.endswith("_type"):
        return f"{shown}: {message}"
    reason = "" if kind.endswith(_SAID_BY_ALLOWED) else f": {message}"
    allowed_words = fields[name].allowed if name in fields else "a block of fields"
    return f"{shown}={problem['input']!r} is not allowed{reason}; allowed: {allowed_words}"
