"""From a project file and overrides to a project. Every check that a name exists is here."""

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import yaml
from pydantic import BaseModel

from kdplatform.data import dataset_config_class
from kdplatform.errors import UserError, unknown_name
from kdplatform.files import not_there, user_path
from kdplatform.methods._groups import grouped_by_project
from kdplatform.models import model_names
from kdplatform.models.pretrained import pretrained_names
from kdplatform.models.user_models import is_user_model
from kdplatform.settings.fields import (
    Content,
    Known,
    Shape,
    field_of,
    set_field,
    unknown_field,
    validated,
)
from kdplatform.settings.methods import (
    SHARED_FIELDS,
    method_class,
    methods_by_block,
    takes,
    with_method,
)
from kdplatform.settings.schema import ProjectConfig, TrainingConfig, names
from kdplatform.settings.teachers import check_teachers
from kdplatform.settings.words import plain_text
from kdplatform.settings.yaml_files import read_mapping
from kdplatform.shipped import shipped

PROJECTS_FOLDER = shipped("projects")
_DEFAULT_METHOD = "kd"
# libyaml if PyYAML has it: a run then writes its configuration in a tenth of the time.
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def project_names(folder: Path = PROJECTS_FOLDER) -> tuple[str, ...]:
    """Returns the projects that come with the platform."""
    return tuple(sorted(path.stem for path in folder.glob("*.yaml")))


def load_project(
    project: str,
    overrides: Mapping[str, str] | None = None,
    known: Known | None = None,
    given_as: str = "project",
) -> ProjectConfig:
    """Loads a project file and applies overrides to its fields.

    Args:
        project: a name in `projects/`, or the path of a YAML file.
        overrides: field name, dotted (`student.epochs`) or short (`temperature`), to the text of
            its value. Another dataset or method than the file's starts from its own defaults.
        known: names to suggest for one that does not exist; None: those of all fields.
        given_as: the parameter that named the file.

    Raises:
        UserError: the project, a field, a name or a value is not allowed; says what is allowed.
    """
    content = read_mapping(given_as, _project_path(project))
    overrides = dict(overrides or {})
    blocks = _compared(content, overrides)
    if not blocks:
        return _loaded(content, overrides, known)
    return _with_methods(content, overrides, known, blocks)


def dump_yaml(config: ProjectConfig) -> str:
    """Returns the resolved configuration as YAML that `load_project` reads back."""
    text: str = yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False)
    return text


def _loaded(content: Content, overrides: Mapping[str, str], known: Known | None) -> ProjectConfig:
    """Returns the project of a file's content, with overrides, by one method."""
    shape = _chosen(content, overrides)
    fields = shape.fields()
    spelled: dict[str, str] = {}
    for name, text in overrides.items():
        path = field_of(name, shape)
        if path not in fields:
            raise unknown_field("parameter", name, path, shape, known)
        if path in spelled:
            raise UserError(f"{spelled[path]} and {name} set the same field; allowed: one of them")
        spelled[path] = name
        set_field(content, path, text)
    return _checked(validated(content, shape, spelled), spelled)


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


def _chosen(content: Content, overrides: Mapping[str, str]) -> Shape:
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
        "distillation": method_class(
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
            classes[path] = method_class(path, name or "cross_entropy", distils=False)
    return Shape(classes)


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
    known: Known | None,
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
    classes = {name: method_class("methods", name, distils=True) for name in blocks}
    own_class = method_class("distillation.method", own_name, distils=True)

    def loaded(block: Content, fits: Callable[[str], bool]) -> ProjectConfig:
        changed = copy.deepcopy({**content, "distillation": block})
        return _loaded(changed, {k: v for k, v in overrides.items() if fits(k)}, known)

    def of_own_or_none(name: str) -> bool:
        # A field that no method has is kept, so that it is refused.
        return not any(takes(own, name) for own in classes.values()) or takes(own_class, name)

    methods = []
    for name, block in blocks.items():
        chosen = own_block if name == own_name and len(block) == 1 else {**shared, **block}
        methods.append(loaded(chosen, partial(takes, classes[name])).distillation)
    project = loaded(own_block, of_own_or_none)
    for name in ("teacher_seed", "teachers"):
        given = dict.fromkeys(getattr(own, name) for own in [project.distillation, *methods])
        if len(given) > 1:
            words = " and ".join(map(plain_text, given))
            raise UserError(f"methods: {name} is {words}; allowed: the same for all")
    return project.model_copy(update={"methods": tuple(methods)})


def _checked(config: ProjectConfig, spelled: Mapping[str, str]) -> ProjectConfig:
    """Returns the project after checking its names and the attributes that its methods use.

    Raises:
        UserError: a name does not exist, or a method needs groups and the project has none.
    """
    if "attributes" not in config.model_fields_set:
        # The sensitive columns of a table are named to be compared.
        own = getattr(config.dataset, "attributes", ())
        config = config.model_copy(update={"attributes": own})
    for section, block in (("teacher", config.teacher), ("student", config.student)):
        _check_model(section, block, spelled)
    for name in config.tuning.methods:
        method_class("tuning.methods", name, distils=True)
        with_method(config, name)
    for method in (config.distillation, *config.methods):
        check_teachers(config, method)
    teacher, student, distillation = (
        grouped_by_project(method, config.attributes, config.name)
        for method in methods_by_block(config).values()
    )
    return config.model_copy(
        update={
            "teacher": config.teacher.model_copy(update={"method": teacher}),
            "student": config.student.model_copy(update={"method": student}),
            "distillation": distillation,
        }
    )


def _check_model(section: str, block: TrainingConfig, spelled: Mapping[str, str]) -> None:
    model, own = block.model, is_user_model(block.model)
    if not own and model not in model_names():
        name = f"{section}.model"
        raise unknown_name(spelled.get(name, name), model, model_names())
    if block.logits:
        return
    fields = ("pretrained", "weights", "image_size", "mean", "std")
    given = [name for name in fields if getattr(block, name) not in (None, False)]
    if own and given:
        raise UserError(
            f"{section}: {', '.join(given)} cannot be set with model={model!r}; allowed: the "
            "function itself loads weights and resizes and normalises its inputs"
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
