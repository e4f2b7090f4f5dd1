"""Typed configuration: what a project file may say, with every unknown name rejected."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
    gradient_clip: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_none)] = Field(
        None, description="largest gradient norm; none: not clipped"
    )
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


# Short spellings of the fields that are set most often.
SHORTCUTS = {
    "temperature": "distillation.temperature",
    "alpha": "distillation.alpha",
    "method": "distillation.method",
}


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


def load_project(project: str, overrides: Mapping[str, str] | None = None) -> ProjectConfig:
    """Loads a project file and applies overrides to its fields.

    Args:
        project: a name in `projects/`, or the path of a YAML file.
        overrides: field name, dotted (`student.epochs`) or short (`temperature`), to the text of
            its value.

    Raises:
        UserError: the project, a field or a value is not allowed; says which and what is.
    """
    content = _read_yaml(_project_path(project))
    dataset_name = _chosen_dataset(content, overrides or {})
    known = [field.name for field in describe_fields(dataset_name)]
    for name, text in (overrides or {}).items():
        path = SHORTCUTS.get(name, name)
        if path not in known:
            raise unknown_name("field", name, [*known, *SHORTCUTS])
        _set_field(content, path, text)
    try:
        return ProjectConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(_one_line(error, dataset_name)) from None


def dump_yaml(config: ProjectConfig) -> str:
    """Returns the resolved configuration as YAML that `load_project` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


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


def plain_text(value: object) -> str:
    """Returns a value as it is written on the command line."""
    if isinstance(value, tuple):
        return ",".join(map(plain_text, value)) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def allowed(field: FieldInfo) -> str:
    """Says in words what a field takes, such as `integer >= 1` or `sgd | adamw`."""
    return _type_words(field.annotation, field.metadata)


def _type_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return _type_words(inner, [*metadata, *extra])
    if origin is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if origin in (Union, UnionType):
        return " | ".join(_type_words(part) for part in get_args(annotation))
    if origin is tuple:
        return f"list of {_type_words(get_args(annotation)[0])}"
    words = {int: "integer", float: "number", bool: "true | false", str: "text", Path: "path"}
    base = words.get(annotation, "none" if annotation is type(None) else str(annotation))
    return f"{base} {_bounds(metadata)}".strip()


def _bounds(metadata: Sequence[Any]) -> str:
    signs = {
        annotated_types.Gt: (">", "gt"),
        annotated_types.Ge: (">=", "ge"),
        annotated_types.Lt: ("<", "lt"),
        annotated_types.Le: ("<=", "le"),
    }
    # Inside a list or an optional value the bounds lie one level deeper.
    flat = [
        m for item in metadata for m in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    bounds = [(*signs[type(m)], m) for m in flat if type(m) in signs]
    return " and ".join(f"{sign} {getattr(bound, name):g}" for sign, name, bound in bounds)


def _project_path(project: str) -> Path:
    path = Path(project)
    if path.suffix in {".yaml", ".yml"}:
        if not path.is_file():
            raise UserError(
                f"project={project!r} is no file; allowed: a YAML file or a name of "
                f"{', '.join(project_names())}"
            )
        return path
    if project not in project_names():
        raise unknown_name("project", project, project_names())
    return PROJECTS_FOLDER / f"{project}.yaml"


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = " ".join((error.problem or "malformed").split())
        raise UserError(f"{path}{where}: not valid YAML: {problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except OSError as error:
        raise UserError(f"project={str(path)!r} cannot be read ({error.strerror})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a project file is a mapping of fields, such as 'name: digits'")
    return content


def _chosen_dataset(content: Mapping[str, Any], overrides: Mapping[str, str]) -> str:
    from kdplatform.data import dataset_config_class

    dataset = content.get("dataset")
    if not isinstance(dataset, dict) or "name" not in dataset:
        raise UserError("dataset.name is missing in the project file")
    name = overrides.get("dataset.name", str(dataset["name"]))
    dataset_config_class(name)
    return name


def _set_field(content: dict[str, Any], path: str, text: str) -> None:
    *sections, leaf = path.split(".")
    block = content
    for section in sections:
        inner = block.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"{section} is {inner!r} in the project file; allowed: a block")
        block = inner
    block[leaf] = text


def _one_line(error: ValidationError, dataset_name: str, prefix: Sequence[str] = ()) -> str:
    """Says the first problem of a validation in one line: field, value, what is allowed."""
    problem = error.errors()[0]
    cause = problem.get("ctx", {}).get("error")
    if isinstance(cause, ValidationError):
        return _one_line(cause, dataset_name, [*prefix, *map(str, problem["loc"])])
    fields = {field.name: field for field in describe_fields(dataset_name)}
    location = [*prefix, *map(str, problem["loc"])]
    # The place of a value inside a list or union is not a field the user can name.
    while (
        len(location) > 1
        and ".".join(location) not in fields
        and problem["type"]
        not in (
            "extra_forbidden",
            "missing",
        )
    ):
        location.pop()
    name = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return str(unknown_name("field", name, fields))
    if problem["type"] == "missing":
        return f"{name} is missing in the project file"
    message = problem["msg"].removeprefix("Value error, ")
    if name not in fields:
        return f"{name}: {message}" if name else message
    return f"{name}={problem['input']!r} is not allowed: {message}; allowed: {fields[name].allowed}"
