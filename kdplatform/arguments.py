"""The parameters of the entry points, and how a command line is read into them.

MLproject declares the same names and defaults. A configuration field that is not declared there
(`-P student.epochs=3`) arrives as `--student.epochs 3` and is an override.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from kdplatform.errors import UserError, unknown_name
from kdplatform.files import home_folder, not_there, user_path
from kdplatform.settings.project import TUNING_SHORTCUTS

FROM_PROJECT = "from-project"
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Parameter:
    """A parameter of an entry point.

    Its allowed values and its meaning are texts. A field of the configuration has its own.

    Attributes:
        field: the field that it sets; empty if it has the same name.
    """

    name: str
    default: str = FROM_PROJECT
    allowed: str = ""
    description: str = ""
    field: str = ""

    @property
    def option(self) -> click.Option:
        """The parameter for click. Given twice, it is refused instead of overwritten."""
        return click.Option([f"--{self.name}"], multiple=True)


_PROJECT = Parameter(
    "project", "trifeature", "name | path", "a project of projects/, or the path of a YAML file"
)
_CONFIG = Parameter(
    "config",
    "none",
    "none | path",
    "a configuration logged by a run, such as the tuner's best.yaml",
)
_RUNNING = (
    Parameter(
        "data_folder",
        "auto",
        "auto | path",
        "datasets, checkpoints; auto: $KDPLATFORM_HOME or cache",
    ),
    Parameter("device", "auto", "auto | cpu | cuda | cuda:N", "where models are trained"),
)
_REUSE = Parameter(
    "reuse", "true", "true | false", "reuse FINISHED runs of the same key; false: train again"
)
_SPREADING = (
    Parameter(
        "workers", "auto", "auto | integer >= 1", "processes of executor local; auto: all that fit"
    ),
    Parameter("executor", "local", " | ".join(EXECUTORS), "where models are trained side by side"),
    Parameter("address", "auto", "auto | host:port", "Ray cluster; auto: here or $RAY_ADDRESS"),
)
_REPORTING = (
    Parameter("out", "auto", "auto | path", "folder; auto: below reports in the data folder"),
    Parameter("intersections", "true", "true | false", "compare groups of two attributes too"),
)
_STUDY = (
    Parameter("study", "auto", "auto | text", "the study's name; the same name continues it"),
    Parameter(
        "storage",
        "auto",
        "auto | URL",
        "sqlite:///file, postgresql://..., journal:///file; auto: sqlite:///optuna.db",
    ),
)


def _fields(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name) for name in names)


_TUNED = _fields(*TUNING_SHORTCUTS)
_METHODS = Parameter("methods", field="tuning.methods")
_DISTILLED = _fields("alpha", "method", "seeds")
_COMPARED = _fields("temperatures", "methods")
ENTRY_POINTS: dict[str, tuple[Parameter, ...]] = {
    "teacher": (_PROJECT, *_fields("seeds"), *_RUNNING, _REUSE),
    "student": (_PROJECT, *_fields("seeds"), *_RUNNING, _REUSE),
    "distill": (_PROJECT, _CONFIG, *_fields("temperature"), *_DISTILLED, *_RUNNING, _REUSE),
    "sweep": (
        *(_PROJECT, *_COMPARED, *_DISTILLED),
        *(*_SPREADING, *_RUNNING, _REUSE),
    ),
    "tune": (_PROJECT, *_TUNED, _METHODS, *_STUDY, *_SPREADING, *_RUNNING),
    "report": (_PROJECT, *_COMPARED, *_DISTILLED, *_REPORTING),
}


@dataclass(frozen=True)
class Arguments:
    """The words of a command line, by their meaning.

    Attributes:
        project: a name, or the path of a file.
        project_given_as: the parameter that said it, `project` or `config`.
        overrides: fields of the configuration by the names they were given, as text.
        workers: processes of the local executor; None: as many as fit.
        out: the report's folder; None: below the data folder.
        intersections: whether the report compares pairs of attributes.
        study: name of the tuner's study; None: made from the objectives.
        storage: URL of the study's storage.
    """

    project: str
    project_given_as: str
    overrides: dict[str, str]
    data_folder: Path
    device: str
    reuse: bool
    workers: int | None
    executor: str
    address: str
    out: Path | None
    intersections: bool
    study: str | None
    storage: str


def read_arguments(
    entry_point: str, given: Mapping[str, Sequence[str]], rest: Sequence[str], no_reuse: bool
) -> Arguments:
    """Separates declared parameters from overrides of configuration fields.

    Args:
        given: all values given for each declared parameter.
        rest: the words that belong to no declared parameter.
        no_reuse: whether `--no-reuse` was among the words.

    Raises:
        UserError: a word is no `--name value`, a name is given twice or a value is not allowed.
    """
    declared = ENTRY_POINTS[entry_point]
    words = {name: list(values) for name, values in given.items()}
    if no_reuse:
        words["reuse"] = ["false", *words["reuse"]]
    values = {name: once(name, texts) for name, texts in (words | _pairs(rest)).items() if texts}
    own = {
        # One that is not declared here is left among the values, whose names are checked.
        p.name: values.pop(p.name, p.default) if p in declared else p.default
        for group in (_RUNNING, _SPREADING, _REPORTING, _STUDY, (_PROJECT, _CONFIG, _REUSE))
        for p in group
    }
    _refuse_what_is_ignored(entry_point, values, own)
    folder, out, study = own["data_folder"], own["out"], own["study"]
    return Arguments(
        project=_project(own),
        project_given_as="project" if own["config"] == _CONFIG.default else "config",
        overrides=_overrides(declared, values),
        data_folder=home_folder() if folder == "auto" else user_path("data_folder", folder),
        device=_device(own["device"]),
        reuse=_boolean("reuse", own["reuse"]),
        workers=_count("workers", own["workers"]),
        executor=own["executor"],
        address=own["address"],
        out=None if out == "auto" else user_path("out", out),
        intersections=_boolean("intersections", own["intersections"]),
        study=None if study == "auto" else study,
        storage=own["storage"],
    )


def _overrides(declared: Sequence[Parameter], values: Mapping[str, str]) -> dict[str, str]:
    """Returns the fields that are set, by the names in the command line.

    Raises:
        UserError: a parameter and the field that it stands for are both given.
    """
    given = {k: v for k, v in values.items() if v != FROM_PROJECT or "." in k}
    for parameter in declared:
        name, field = parameter.name, parameter.field
        if field and name in given:
            if field in given:
                raise UserError(f"{field} and {name} set the same field; allowed: one of them")
            given[field] = given.pop(name)
    return given


def _pairs(rest: Sequence[str]) -> dict[str, list[str]]:
    """Reads `--name value` and `--name=value` of fields."""
    given: dict[str, list[str]] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"{word!r} is not expected here; allowed: --name value")
        name, equals, value = word[2:].partition("=")
        if not equals and not words:
            raise UserError(f"--{name} is given without a value; allowed: --{name} value")
        given.setdefault(name, []).append(value if equals else words.pop(0))
    return given


def once(name: str, texts: Sequence[str]) -> str:
    """Returns the single value of a parameter.

    Raises:
        UserError: it was given twice.
    """
    if len(texts) > 1:
        raise UserError(f"--{name} is given twice: {texts[0]!r} and {texts[1]!r}")
    return texts[0]


def _project(own: Mapping[str, str]) -> str:
    """Returns the project, or the configuration file that replaces it."""
    config, project = own["config"], own["project"]
    if config == _CONFIG.default:
        return project
    if project != _PROJECT.default:
        raise UserError(
            f"config={config!r} and project={project!r} are both given; allowed: one of them, for "
            "config names its project itself"
        )
    path = user_path("config", config)
    if path.suffix not in {".yaml", ".yml"} or not path.is_file():
        raise not_there("config", config, path, "none | the path of a YAML file")
    return str(path)


def _refuse_what_is_ignored(
    entry_point: str, fields: Mapping[str, str], own: Mapping[str, str]
) -> None:
    """Refuses parameters that the command would ignore.

    These are seeds for `tune`, the tuner's fields for other commands, one temperature where several
    are needed, several methods where one is needed, and parameters of the other executor.
    """
    declared = {p.name for p in ENTRY_POINTS[entry_point]}
    tuned = {p.name for p in _TUNED} - declared
    for name in fields:
        if entry_point == "tune" and name == "seeds":
            raise UserError(
                "seeds is not for tune; allowed: seeds_per_trial and confirm_seeds, which are "
                "numbers of seeds"
            )
        if entry_point != "tune" and (name in tuned or name.startswith("tuning.")):
            raise UserError(f"{name} is not for {entry_point}; allowed: {name} with tune")
        if name == "methods" and name not in declared:
            raise UserError(
                f"{name} is not for {entry_point}; allowed: {name} with sweep, tune or report"
            )
        single = name in ("temperature", "distillation.temperature")
        if entry_point in ("sweep", "report") and single:
            raise UserError(
                f"{name} is not for {entry_point}; allowed: temperatures, such as 1-10,20,30.5"
            )
    executor = own["executor"]
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    other, right = ("address", "ray") if executor == "local" else ("workers", "local")
    if own[other] != "auto":
        raise UserError(
            f"{other}={own[other]!r} is not for executor={executor!r}; allowed: {other} with "
            f"executor={right!r}"
        )


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", name):
        raise UserError(f"device={name!r} is not allowed; allowed: auto | cpu | cuda | cuda:N")
    return name


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise UserError(f"{name}={value!r} is not allowed; allowed: true | false")
    return value.lower() == "true"


def _count(name: str, value: str) -> int | None:
    """Reads a count; None for `auto`."""
    if value.lower() == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{name}={value!r} is not allowed; allowed: auto | integer >= 1")
    return int(value)
