"""From a project file and overrides to a project. Every check that a name exists is here."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from kdplatform.data import dataset_config_class
from kdplatform.errors import UserError, unknown_name
from kdplatform.files import not_there, user_path
from kdplatform.methods import method_config_classes, method_names
from kdplatform.methods._groups import CLASSES, column_of, grouped_by_project, grouping
from kdplatform.models import model_names
from kdplatform.models.pretrained import pretrained_names
from kdplatform.models.user_models import is_user_model, with_absolute_file
from kdplatform.settings.schema import (
    DistillationConfig,
    MethodConfig,
    ProjectConfig,
    TrainingConfig,
    names,
)
from kdplatform.settings.teachers import absolute_entries, check_teachers
from kdplatform.settings.words import allowed, plain_text
from kdplatform.settings.yaml_files import read_mapping
from kdplatform.shipped import shipped

PROJECTS_FOLDER = shipped("projects")
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
_DEFAULT_METHOD = "kd"
# What says which teachers a student has, whatever the method.
SHARED_FIELDS = frozenset(DistillationConfig.model_fields) - {"method"}
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
# libyaml if PyYAML has it: a run then writes its configuration in a tenth of the time.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


@dataclass(frozen=True)
class FieldDescription:
    """One configuration field, for `--help` and error messages."""

    name: str
    allowed: str
    description: str


@dataclass(frozen=True)
class _Shape:
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


def project_names(folder: Path = PROJECTS_FOLDER) -> tuple[str, ...]:
    """Returns the projects that come with the platform."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def load_project(
    project: str,
    overrides: Mapping[str, str] | None = None,
    parameters: Sequence[str] = (),
    given_as: str = "project",
) -> ProjectConfig:
    """Loads a project file and applies overrides to its fields.

    Args:
        project: a name in `projects/`, or the path of a YAML file.
        overrides: field name, dotted (`student.epochs`) or short (`temperature`), to the text of
            its value. Another dataset or method than the file's starts from its own defaults.
        parameters: further names to suggest for a name that does not exist.
        given_as: the parameter that named the file.

    Raises:
        UserError: the project, a field, a name or a value is not allowed; says what is allowed.
    """
    content = read_mapping(given_as, _project_path(project))
    overrides = dict(overrides or {})
    blocks = _compared(content, overrides)
    if not blocks:
        return _loaded(content, overrides, parameters)
    return _with_methods(content, overrides, parameters, blocks)


def _loaded(
    content: Content, overrides: Mapping[str, str], parameters: Sequence[str]
) -> ProjectConfig:
    """Returns the project of a file's content, with overrides, by one method."""
    shape = _chosen(content, overrides)
    fields = shape.fields()
    spelled: dict[str, str] = {}
    for name, text in overrides.items():
        path = _path(name, shape)
        if path not in fields:
            raise _unknown_field("parameter", name, path, shape, parameters)
        if path in spelled:
            raise UserError(f"{spelled[path]} and {name} set the same field; allowed: one of them")
        spelled[path] = name
        _set_field(content, path, text)
    return _checked(_validated(content, shape, spelled), spelled)


def describe_fields(config: ProjectConfig) -> list[FieldDescription]:
    """Returns every field of a project in the order of its file, with the project's value."""
    shape = _Shape(
        {
            "dataset": type(config.dataset),
            "teacher.method": type(config.teacher.method),
            "student.method": type(config.student.method),
            "distillation": type(config.distillation),
        }
    )
    return list(shape.fields().values())


def dump_yaml(config: ProjectConfig) -> str:
    """Returns the resolved configuration as YAML that `load_project` reads back."""
    text: str = yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)
    return text


def with_absolute_paths(config: ProjectConfig) -> ProjectConfig:
    """Returns the same study with absolute paths, so that it can be started from any folder.

    The paths are those of data, weights and the user's own models.
    """
    dataset = config.dataset
    places = {
        name: str(user_path(f"dataset.{name}", value).resolve())
        for name in ("root", "file")
        if (value := getattr(dataset, name, ""))
    }
    update: dict[str, object] = {"dataset": dataset.model_copy(update=places)}
    for name, block in (("teacher", config.teacher), ("student", config.student)):
        weights = block.weights
        if weights is not None and (path := user_path(f"{name}.weights", weights)).exists():
            weights = str(path.resolve())
        own = with_absolute_file(block.model) if is_user_model(block.model) else block.model
        logits = tuple(str(user_path(f"{name}.logits", file).resolve()) for file in block.logits)
        own_places = {"weights": weights, "model": own, "logits": logits}
        update[name] = block.model_copy(update=own_places)
    update["distillation"] = config.distillation.model_copy(
        update={"teachers": absolute_entries(config.distillation.teachers)}
    )
    return config.model_copy(update=update)


def with_method(project: ProjectConfig, name: str) -> DistillationConfig:
    """Returns the project's distillation by another method, at that method's own defaults.

    Raises:
        UserError: there is no such method, it needs no teacher, or the project lacks the groups
            that it needs.
    """
    if name == project.distillation.method:
        return project.distillation
    own = _method_class("method", name, distils=True)
    assert issubclass(own, DistillationConfig)
    shared = {name: getattr(project.distillation, name) for name in SHARED_FIELDS}
    config = own.model_validate(shared)
    return grouped_by_project(config, project.attributes, project.name)


def method_remarks(config: ProjectConfig, overrides: Iterable[str]) -> list[str]:
    """Names the methods of a sweep with one arm, and the given fields that not all of them have.

    Args:
        overrides: names of the fields that were given.

    Raises:
        UserError: temperatures or a field were given, and no method has them.
    """
    methods = config.compared_methods
    without = [method.method for method in methods if method.softmax_temperature is None]
    said = []
    if without:
        has = "has" if len(without) == 1 else "have"
        if "temperatures" in overrides and len(without) == len(methods):
            raise UserError(
                f"temperatures={plain_text(config.temperatures)} is not allowed with "
                f"{','.join(without)}, which {has} no temperature; allowed: without temperatures"
            )
        said = [f"{', '.join(without)}: {has} no temperature; one arm each, whatever T"]
    for name in filter(_is_of_method, overrides if config.methods else ()):
        lacking = [method.method for method in methods if not _takes(type(method), name)]
        if lacking and len(lacking) == len(methods):
            raise UserError(f"{name} is not for {', '.join(lacking)}: none of them takes it")
        if lacking:
            said.append(f"{name} is not for {', '.join(lacking)}; it sets the other methods alone")
    return said


def own_alpha_remark(config: ProjectConfig, overrides: Iterable[str]) -> list[str]:
    """Says that a given alpha is a method's own, not the weight of its distillation term."""
    method = config.distillation
    of_its_own = method.alpha_field is None and "alpha" in type(method).model_fields
    if config.methods or not of_its_own or "alpha" not in overrides:
        return []
    return [f"alpha is that of {method.method}'s paper: the weight of one part of its loss"]


def grouping_attributes(config: ProjectConfig) -> dict[str, tuple[str, ...]]:
    """Returns the attributes whose groups methods go by, by the field that names them."""
    return {
        f"{path}.attribute": (column_of(grouped.attribute),)
        for path, method in [
            *_methods(config).items(),
            *((f"methods.{method.method}", method) for method in config.methods),
        ]
        if (grouped := grouping(method)) is not None and grouped.attribute != CLASSES
    }


def shortened_warmups(config: ProjectConfig) -> list[str]:
    """Names the warm-ups that are longer than their training and are cut to it."""
    return [
        f"{name}.warmup_epochs={block.warmup_epochs:g} is cut to {name}.epochs={block.epochs}"
        for name, block in (("teacher", config.teacher), ("student", config.student))
        if block.warmup < block.warmup_epochs and not block.frozen
    ]


# ---- which blocks there are


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


def _chosen(content: Content, overrides: Mapping[str, str]) -> _Shape:
    """Returns the classes of dataset and methods. A block of another name is emptied.

    Only the fields that every dataset or method has remain when the name of a block changes.
    """
    dataset = _name_in(content, "dataset", "name", overrides.get("dataset.name"))
    if dataset is None:
        raise UserError("dataset.name is missing in the project file")
    method = overrides.get("method", overrides.get("distillation.method"))
    distilling = _name_in(content, "distillation", "method", method) or _DEFAULT_METHOD
    classes: dict[str, type[BaseModel]] = {
        "dataset": dataset_config_class(dataset),
        "distillation": _method_class(
            "method" if "method" in overrides else "distillation.method", distilling, distils=True
        ),
    }
    for section in ("teacher", "student"):
        block = content.get(section)
        path = f"{section}.method"
        if isinstance(block, dict):
            if not isinstance(block.get("method", {}), dict):
                block["method"] = {"method": str(block["method"])}
            name = _name_in(block, "method", "method", overrides.get(path))
            classes[path] = _method_class(path, name or "cross_entropy", distils=False)
    return _Shape(classes)


def _name_in(content: Content, block_name: str, key: str, asked: str | None) -> str | None:
    """Returns the name in a block, and empties the block if another name is requested."""
    block = content.get(block_name)
    own = block.get(key) if isinstance(block, dict) else None
    if asked is None or asked == own:
        return None if own is None else str(own)
    kept = SHARED_FIELDS if block_name == "distillation" else frozenset[str]()
    old = block if isinstance(block, dict) else {}
    content[block_name] = {k: v for k, v in old.items() if k in kept} | {key: asked}
    return asked


def _method_class(parameter: str, name: str, *, distils: bool) -> type[MethodConfig]:
    """Returns the configuration class of a method that needs a teacher, or of one that needs none.

    Raises:
        UserError: there is no such method, or it is one of the other kind.
    """
    own = method_config_classes(name) if name in method_names() else {}
    if distils in own:
        return own[distils]
    known = [n for n in method_names() if distils in method_config_classes(n)]
    if own:
        kind = "learns from a teacher" if not distils else "needs no teacher"
        raise UserError(f"{parameter}={name!r} {kind}; allowed: {', '.join(known)}")
    raise unknown_name(parameter, name, known)


# ---- the methods that a sweep compares


def _compared(content: Content, overrides: dict[str, str]) -> dict[str, Content]:
    """Extracts the compared methods from a file and the overrides, as blocks by name.

    A single method requested by name is swept alone, whatever the file compares.

    Raises:
        UserError: the value is no list of methods, or lists one twice.
    """
    chosen, text = content.pop("methods", None), overrides.pop("methods", None)
    single = next((name for name in ("method", "distillation.method") if name in overrides), None)
    chosen = chosen if text is None else text
    try:
        entries = names(chosen or ())
    except ValueError as error:
        raise UserError(f"methods={chosen!r} is not allowed: {error}") from None
    if not isinstance(entries, tuple | list):
        raise UserError(f"methods={chosen!r} is not allowed; allowed: list of methods")
    if single is not None:
        if text is not None and entries:
            raise UserError(
                f"methods={text!r} and {single}={overrides[single]!r} are both given; allowed: one "
                "of them"
            )
        return {}
    blocks: dict[str, Content] = {}
    for entry in entries:
        block = entry if isinstance(entry, dict) else {"method": entry}
        name = str(block.get("method"))
        if name in blocks:
            raise UserError(f"methods: {name!r} is given twice; allowed: each method once")
        blocks[name] = block
    return blocks


def _with_methods(
    content: Content,
    overrides: Mapping[str, str],
    parameters: Sequence[str],
    blocks: Mapping[str, Content],
) -> ProjectConfig:
    """Returns the project with the compared methods, each with its own fields.

    A method has its own defaults, unless its block or the project's sets other values.

    Raises:
        UserError: no method has a field that was given, or they have other teachers.
    """
    own_block = content.get("distillation")
    own_block = own_block if isinstance(own_block, dict) else {}
    own_name = str(own_block.get("method", _DEFAULT_METHOD))
    shared = {name: value for name, value in own_block.items() if name in SHARED_FIELDS}
    classes = {name: _method_class("methods", name, distils=True) for name in blocks}
    own_class = _method_class("distillation.method", own_name, distils=True)

    def loaded(block: Content, fits: Callable[[str], bool]) -> ProjectConfig:
        changed = copy.deepcopy({**content, "distillation": block})
        return _loaded(changed, {k: v for k, v in overrides.items() if fits(k)}, parameters)

    def of_own_or_none(name: str) -> bool:
        # A field that no method has is kept, so that it is refused.
        return not any(_takes(own, name) for own in classes.values()) or _takes(own_class, name)

    methods = []
    for name, block in blocks.items():
        chosen = own_block if name == own_name and len(block) == 1 else {**shared, **block}
        methods.append(loaded(chosen, partial(_takes, classes[name])).distillation)
    project = loaded(own_block, of_own_or_none)
    for name in ("teacher_seed", "teachers"):
        given = dict.fromkeys(getattr(own, name) for own in [project.distillation, *methods])
        if len(given) > 1:
            words = " and ".join(map(plain_text, given))
            raise UserError(f"methods: {name} is {words}; allowed: the same for all")
    return project.model_copy(update={"methods": tuple(methods)})


def _is_of_method(name: str) -> bool:
    """Whether an override sets a field of the distillation's method."""
    return name in ("temperature", "alpha") or name.startswith("distillation.")


def _takes(own: type[MethodConfig], name: str) -> bool:
    """Whether an override can apply to a method: it sets one of its fields, or another part."""
    fields = {"temperature": own.temperature_field, "alpha": own.alpha_field}
    if name in fields:
        return fields[name] is not None
    return not _is_of_method(name) or name.removeprefix("distillation.") in own.model_fields


# ---- fields


def _path(name: str, shape: _Shape) -> str:
    """Returns the field that a name means. The method defines its T and alpha."""
    method = shape.classes["distillation"]
    assert issubclass(method, MethodConfig)
    own = {"temperature": method.temperature_field, "alpha": method.alpha_field}
    if own.get(name):
        return f"distillation.{own[name]}"
    return (SHORTCUTS | TUNING_SHORTCUTS).get(name, name)


def _unknown_field(
    kind: str, name: str, path: str, shape: _Shape, parameters: Sequence[str] = ()
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
    short = SHORTCUTS if kind == "parameter" else {}
    return unknown_name(kind, name, {*shape.fields(), *short, *parameters})


def _set_field(content: Content, path: str, text: str) -> None:
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


def _validated(content: Content, shape: _Shape, spelled: Mapping[str, str]) -> ProjectConfig:
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
    error: ValidationError, shape: _Shape, spelled: Mapping[str, str], prefix: Sequence[str]
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
        return str(_unknown_field("field", path, path, shape))
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


# ---- names


def _checked(config: ProjectConfig, spelled: Mapping[str, str]) -> ProjectConfig:
    """Returns the project after checking its names and the attributes that its methods use.

    Raises:
        UserError: a name does not exist, or a method needs groups and the project has none.
    """
    for section, block in (("teacher", config.teacher), ("student", config.student)):
        _check_model(section, block, spelled)
    for name in config.tuning.methods:
        _method_class("tuning.methods", name, distils=True)
        with_method(config, name)
    for method in (config.distillation, *config.methods):
        check_teachers(config, method)
    teacher, student, distillation = (
        grouped_by_project(method, config.attributes, config.name)
        for method in _methods(config).values()
    )
    return config.model_copy(
        update={
            "teacher": config.teacher.model_copy(update={"method": teacher}),
            "student": config.student.model_copy(update={"method": student}),
            "distillation": distillation,
        }
    )


def _methods(config: ProjectConfig) -> dict[str, MethodConfig]:
    return {
        "teacher.method": config.teacher.method,
        "student.method": config.student.method,
        "distillation": config.distillation,
    }


def _check_model(section: str, block: TrainingConfig, spelled: Mapping[str, str]) -> None:
    model, own = block.model, is_user_model(block.model)
    if not own and model not in model_names():
        name = f"{section}.model"
        raise unknown_name(spelled.get(name, name), model, model_names())
    if block.logits:
        return
    given = (block.weights, block.image_size, block.mean)
    if own and (block.pretrained or any(value is not None for value in given)):
        raise UserError(
            f"{section}: model={model!r} brings weights and inputs of its own; allowed: without "
            "pretrained, weights, image_size, mean and std"
        )
    if block.pretrained and model not in pretrained_names():
        raise UserError(
            f"{section}: pretrained=True is not allowed with model={model!r}; allowed: with "
            f"{', '.join(pretrained_names())}"
        )
    if block.frozen and not (own or block.pretrained or block.weights is not None):
        raise UserError(
            f"{section}: frozen=True is not allowed for fresh weights; allowed: with "
            "pretrained=true, weights, or a model of yours, module:function"
        )
