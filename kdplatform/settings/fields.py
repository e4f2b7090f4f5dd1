"""The fields of a project: their names, what each takes, and values set or refused by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from kdplatform.errors import UserError, unknown_name
from kdplatform.methods import method_config_classes, method_names
from kdplatform.settings.schema import MethodConfig, ProjectConfig
from kdplatform.settings.words import allowed

# Short names of the fields that are set most often. `temperature` and `alpha` are the method's,
# whatever their names there.
SHORTCUTS = {
    "temperature": "distillation.temperature",
    "alpha": "distillation.alpha",
    "method": "distillation.method",
}
# Short names that only `tune` takes.
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
Content = dict[str, Any]


@dataclass(frozen=True)
class FieldDescription:
    """One configuration field, for `--help` and error messages."""

    name: str
    allowed: str
    description: str


@dataclass(frozen=True)
class Known:
    """The names that a command has: they are suggested for one that does not exist.

    Attributes:
        parameters: names besides those of fields.
        takes: whether the command takes the field of a name.
    """

    parameters: Sequence[str] = ()
    takes: Callable[[str], bool] = lambda name: True


@dataclass(frozen=True)
class Shape:
    """The classes of blocks whose fields depend on a name in them, by the block's path."""

    classes: Mapping[str, type[BaseModel]]

    def fields(self) -> dict[str, FieldDescription]:
        """Returns every field by its dotted name, in the order of the project file."""
        return {field.name: field for field in self._describe(ProjectConfig, "")}

    def _describe(self, section: type[BaseModel], prefix: str) -> Iterator[FieldDescription]:
        for name, field in section.model_fields.items():
            path = prefix + name
            inner = self.classes.get(path, field.annotation)
            if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
                # The method's own class allows its own name alone.
                distilling = path == "distillation.method"
                takes = "name" if distilling else allowed(field)
                said = "how the student learns" if distilling else field.description or ""
                yield FieldDescription(path, takes, said)
                continue
            of_method = name == "method"
            if of_method:
                yield FieldDescription(path, "text", field.description or "")
            for found in self._describe(inner, f"{path}."):
                if not (of_method and found.name == f"{path}.method"):
                    yield found


def describe_fields(config: ProjectConfig) -> list[FieldDescription]:
    """Returns every field of a project in the order of its file, with the project's value."""
    shape = Shape(
        {
            "dataset": type(config.dataset),
            "teacher.method": type(config.teacher.method),
            "student.method": type(config.student.method),
            "distillation": type(config.distillation),
        }
    )
    return list(shape.fields().values())


def field_of(name: str, shape: Shape) -> str:
    """Returns the field that a name means. The method defines its T and alpha."""
    method = shape.classes["distillation"]
    assert issubclass(method, MethodConfig)
    own = {"temperature": method.temperature_field, "alpha": method.alpha_field}
    if own.get(name):
        return f"distillation.{own[name]}"
    return (SHORTCUTS | TUNING_SHORTCUTS).get(name, name)


def unknown_field(
    kind: str, name: str, path: str, shape: Shape, known: Known | None = None
) -> UserError:
    """Returns the error for a field that does not exist. It names the methods that have it."""
    block, _, leaf = path.rpartition(".")
    if block in ("distillation", "teacher.method", "student.method") and block in shape.classes:
        kinds = {n: method_config_classes(n).get(block == "distillation") for n in method_names()}
        having = [n for n, own in kinds.items() if own is not None and leaf in own.model_fields]
        if having:
            chosen = shape.classes[block].model_fields["method"].default
            having_it = ", ".join(having)
            return UserError(
                f"{name} is no field of method={chosen!r}; methods that have it: {having_it}"
            )
    known = known or Known()
    short = SHORTCUTS if kind == "parameter" else {}
    fields = filter(known.takes, (*shape.fields(), *short))
    return unknown_name(kind, name, {*fields, *known.parameters})


def set_field(content: Content, path: str, text: str) -> None:
    """Sets a field in the content of a project file.

    Raises:
        UserError: the file has a value where the field's block is.
    """
    *sections, leaf = path.split(".")
    if leaf == "method" and sections[-1:] in (["teacher"], ["student"]):
        sections.append("method")
    block = content
    for section in sections:
        inner = block.setdefault(section, {})
        if not isinstance(inner, dict):
            raise UserError(f"{section} is {inner!r} in the project file; allowed: a block")
        block = inner
    block[leaf] = text


def validated(content: Content, shape: Shape, spelled: Mapping[str, str]) -> ProjectConfig:
    """Returns the project of a content whose names are known.

    Args:
        spelled: the user's spelling of fields that were set on the command line.

    Raises:
        UserError: a value is not allowed; says what is.
    """
    place: tuple[str, ...] = ()
    try:
        for path, own in shape.classes.items():
            *outer, leaf = path.split(".")
            block = content[outer[0]] if outer else content
            if isinstance(block.get(leaf, {}), dict):
                place = (*outer, leaf)
                block[leaf] = own.model_validate(block.get(leaf, {}))
        place = ()
        return ProjectConfig.model_validate(content)
    except ValidationError as error:
        raise UserError(_one_line(error, shape, spelled, place)) from None


def _one_line(
    error: ValidationError, shape: Shape, spelled: Mapping[str, str], prefix: Sequence[str]
) -> str:
    """Reports the first problem of a validation in one line: field, value, what is allowed.

    Args:
        spelled: the user's spelling of fields that were set on the command line.
        prefix: the path of the validated block in the configuration.
    """
    problem, fields = error.errors()[0], shape.fields()
    kind, location = problem["type"], [*prefix, *map(str, problem["loc"])]
    if kind == "extra_forbidden":
        path = ".".join(location)
        return str(unknown_field("field", path, path, shape))
    if kind == "missing":
        return f"{'.'.join(location)} is missing in the project file"
    # The position of a value inside a list or union is no field that the user can name.
    while len(location) > 1 and ".".join(location) not in fields:
        location.pop()
    name = ".".join(location)
    shown = spelled.get(name, name)
    message = _MESSAGES.get(kind, problem["msg"].removeprefix("Value error, "))
    if name not in fields and not kind.endswith("_type"):
        return f"{shown}: {message}" if shown else message
    reason = "" if kind.endswith(_SAID_BY_ALLOWED) else f": {message}"
    allowed_words = fields[name].allowed if name in fields else "a block of fields"
    return f"{shown}={problem['input']!r} is not allowed{reason}; allowed: {allowed_words}"
