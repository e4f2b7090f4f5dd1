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
from kdplatform.settings.fields import TUNING_SHORTCUTS
from kdplatform.torchrun import processes_of

FROM_PROJECT = "from-project"
EXECUTORS = ("local", "ray")
# How a report is written beside its page.
FORMATS = ("markdown", "latex")


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
    "project",
    "trifeature",
    "name | path",
    "the name of a file in projects/, or the path of a YAML file",
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
        "folder of datasets and checkpoints; auto: $KDPLATFORM_HOME, or in the user's cache",
    ),
    Parameter("device", "auto", "auto | cpu | cuda | cuda:N", "where models are trained"),
)
_PROCESSES = Parameter(
    "processes", "1", "integer >= 1", "processes that train each model together, one per device"
)
_REUSE = Parameter(
    "reuse", "true", "true | false", "reuse FINISHED runs of the same key; false: train again"
)
_SPREADING = (
    Parameter(
        "workers",
        "auto",
        "auto | integer >= 1",
        "worker processes of executor=local; auto: as many as fit",
    ),
    Parameter("executor", "local", " | ".join(EXECUTORS), "where models are trained side by side"),
    Parameter(
        "address",
        "auto",
        "auto | host:port",
        "of the Ray cluster; auto: that of $RAY_ADDRESS, or of this machine",
    ),
)
_REPORTING = (
    Parameter(
        "out",
        "auto",
        "auto | path",
        "folder for the report; auto: below reports/ in $KDPLATFORM_HOME or the user's cache",
    ),
    Parameter(
        "condition",
        "clean",
        "clean | name",
        "clean: the unchanged test split; or the name of a condition that the runs have",
    ),
    Parameter(
        "intersections", "true", "true | false", "also compare groups of two attributes at once"
    ),
    Parameter(
        "format", "markdown", "none | markdown,latex", "formats that are written beside the page"
    ),
)
_GATE = Parameter(
    "gate", "none", "none | path", "YAML file of rules; a result that breaks one ends with exit 3"
)
_GATE_OUT = Parameter(
    "gate_out",
    "none",
    "none | path",
    "folder for the gate's JUnit XML and JSON; none: they are artifacts of the run alone",
)
_CARD = Parameter(
    "card", "false", "true | false", "write a model card and its companions beside the page"
)
_GATED = (_GATE, _GATE_OUT)
_OF_A_RUN = Parameter(
    "run", "none", "none | run id", "run of a sweep or distill, whose study is reported"
)
_DELIVERY = (
    Parameter("register", "none", "none | text", "MLflow name under which models are registered"),
    Parameter("export", "none", "none | onnx", "further format of models, checked against torch"),
)
_PREDICTING = (
    Parameter(
        "model",
        "none",
        "run id | runs:/... | models:/...",
        "the model whose predictions are written",
    ),
    Parameter("split", "test", "train,val,test,unlabeled", "the splits that are predicted"),
    Parameter(
        "out",
        "auto",
        "auto | path",
        "file, .parquet or .csv; auto: below predictions/ in data_folder",
    ),
    Parameter(
        "trust_model",
        "false",
        "true | false",
        "load a pickled model, which can run any code that its maker put in",
    ),
)
_STUDY = (
    Parameter("study", "auto", "auto | text", "name of the study; the same name continues it"),
    Parameter(
        "storage",
        "auto",
        "auto | URL",
        "where the study is kept: sqlite:///file, postgresql://..., journal:///file; auto: "
        "sqlite:///optuna.db",
    ),
)


def _fields(*names: str) -> tuple[Parameter, ...]:
    return tuple(Parameter(name) for name in names)


_TUNED = _fields(*TUNING_SHORTCUTS)
_METHODS = Parameter("methods", field="tuning.methods")
_DISTILLED = _fields("alpha", "method", "seeds")
_COMPARED = _fields("temperatures", "methods")
ENTRY_POINTS: dict[str, tuple[Parameter, ...]] = {
    "teacher": (_PROJECT, *_fields("seeds"), *_RUNNING, _PROCESSES, _REUSE, *_DELIVERY),
    "student": (_PROJECT, *_fields("seeds"), *_RUNNING, _PROCESSES, _REUSE, *_DELIVERY),
    "distill": (
        *(_PROJECT, _CONFIG, *_fields("temperature"), *_DISTILLED),
        *(*_RUNNING, _PROCESSES, _REUSE, *_GATED, *_DELIVERY),
    ),
    "sweep": (
        *(_PROJECT, *_COMPARED, *_DISTILLED),
        *(*_SPREADING, *_RUNNING, _PROCESSES, _REUSE, *_GATED),
    ),
    "tune": (_PROJECT, *_TUNED, _METHODS, *_STUDY, *_SPREADING, *_RUNNING, _PROCESSES),
    "predict": (_PROJECT, *_PREDICTING, *_RUNNING),
    "report": (_PROJECT, _OF_A_RUN, *_COMPARED, *_DISTILLED, *_REPORTING, _GATE, _CARD),
}
# Entry points that need no project.
WITHOUT_PROJECT: dict[str, tuple[Parameter, ...]] = {
    "compare": (
        Parameter("a", "none", "side", "side A, the reference: run ids or files, comma-separated"),
        Parameter("b", "none", "side", "side B, which is compared with A: as for A"),
        Parameter("attributes", "auto", "auto | a,b", "columns whose groups are compared"),
        Parameter(
            "similar_by", "auto", "auto | c,d", "columns that measure how alike two examples are"
        ),
        Parameter(
            "min_group_size",
            "30",
            "integer >= 1",
            "groups with fewer examples than this are listed but not measured",
        ),
        Parameter(
            "min_group_share",
            "0.02",
            "0 <= number < 1",
            "groups with a smaller share of the examples than this have no impact ratio",
        ),
        Parameter(
            "positive",
            "auto",
            "auto | class",
            "the favourable class; auto: the second of two classes",
        ),
        Parameter("out", "none", "none | path", "folder for a page and tables"),
        Parameter(
            "format",
            "markdown",
            "none | markdown,latex",
            "formats that are written beside the page",
        ),
        _GATE,
        _CARD,
        Parameter(
            "log",
            "auto",
            "auto | true | false",
            "log a run in MLflow; auto: if a side is a run, or $MLFLOW_TRACKING_URI is set",
        ),
    )
}


@dataclass(frozen=True)
class Arguments:
    """The words of a command line, by their meaning.

    Attributes:
        project: a name, or the path of a file.
        project_given_as: the parameter that said it, `project` or `config`.
        overrides: fields of the configuration by the names they were given, as text.
        processes: how many train a model together, those of `torchrun` too.
        workers: processes of the local executor; None: as many as fit.
        out: the report's folder, or the file of `predict`; None: below the data folder.
        condition: which predictions the report is of; empty: those of the test split as it is.
        intersections: whether the report compares pairs of attributes.
        formats: how the report is written beside its page.
        study: name of the tuner's study; None: made from what is looked for.
        storage: where the study is kept.
        run: the command's run whose study is reported; None: the project's.
        gate: path of a gate's rules, or `none`.
        gate_out: folder for what a gate came to; None: none.
        card: whether cards are written beside the report.
        register: name under which models are registered; None: they are not.
        export: the other forms that models are exported to.
        model: what `predict` asks, and `split` what about.
        trust_model: whether it may be unpickled.
    """

    project: str
    project_given_as: str
    overrides: dict[str, str]
    data_folder: Path
    device: str
    reuse: bool
    processes: int
    workers: int | None
    executor: str
    address: str
    out: Path | None
    condition: str
    intersections: bool
    formats: tuple[str, ...]
    study: str | None
    storage: str
    run: str | None
    gate: str
    gate_out: Path | None
    card: bool
    register: str | None
    export: str | None
    model: str
    split: str
    trust_model: bool


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
    groups = (
        *(_RUNNING, _SPREADING, _REPORTING, _PREDICTING, _STUDY, _GATED, _DELIVERY),
        (_PROJECT, _CONFIG, _PROCESSES, _REUSE, _OF_A_RUN, _CARD),
    )
    own = {p.name: p.default for group in groups for p in group}
    # One that is not declared here is left among the values, whose names are checked.
    own |= {p.name: values.pop(p.name) for p in declared if p.name in own and p.name in values}
    _refuse_what_is_ignored(entry_point, values, own)
    folder, out, study = own["data_folder"], own["out"], own["study"]
    return Arguments(
        project=_project(own),
        project_given_as="project" if own["config"] == _CONFIG.default else "config",
        overrides=_overrides(declared, values),
        data_folder=home_folder() if folder == "auto" else user_path("data_folder", folder),
        device=_device(own["device"]),
        reuse=boolean("reuse", own["reuse"]),
        processes=processes_of(entry_point, _processes(own["processes"])),
        workers=_count("workers", own["workers"]),
        executor=own["executor"],
        address=own["address"],
        out=None if out == "auto" else user_path("out", out),
        condition="" if own["condition"] == "clean" else own["condition"],
        intersections=boolean("intersections", own["intersections"]),
        formats=report_formats(own["format"]),
        study=None if study == "auto" else study,
        storage=own["storage"],
        run=_run_of(own),
        gate=own["gate"],
        gate_out=optional_path("gate_out", own["gate_out"]),
        card=boolean("card", own["card"]),
        register=_registered_name(own["register"]),
        export=_export(own["export"]),
        model=own["model"],
        split=own["split"],
        trust_model=boolean("trust_model", own["trust_model"]),
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


# Fields that distilled students alone have, by both of their names. Others of the block may have to
# be set so that a project is valid.
_OF_DISTILLED = (
    *("temperature", "distillation.temperature", "alpha", "distillation.alpha"),
    "temperatures",
)


def refusal(entry_point: str, name: str) -> str:
    """Returns why a command does not take a field, and what is allowed; empty if it takes it.

    Refused are fields that the command would ignore: seeds for `tune`, the tuner's fields for other
    commands, one temperature where several are needed, several temperatures or methods where one is
    needed, and fields of distilled students where none is trained.
    """
    declared = {p.name for p in ENTRY_POINTS[entry_point]}
    of_data = name.startswith("dataset.") or name == "attributes"
    if entry_point == "predict" and not of_data:
        return (
            f"{name} is not for predict, which trains nothing; allowed: fields of dataset, and "
            "attributes"
        )
    if entry_point == "tune" and name == "seeds":
        return (
            "seeds is not for tune; allowed: seeds_per_trial and confirm_seeds, which are numbers "
            "of seeds"
        )
    tuned = {p.name for p in _TUNED} - declared
    if entry_point != "tune" and (name in tuned or name.startswith("tuning.")):
        return f"{name} is not for {entry_point}; allowed: {name} with tune"
    if name == "methods" and name not in declared:
        return f"{name} is not for {entry_point}; allowed: {name} with sweep, tune or report"
    if entry_point == "tune" and name.startswith("evaluation."):
        return (
            f"{name} is not for tune, which looks at validation data alone; allowed: {name} with "
            "distill or sweep"
        )
    if entry_point in ("sweep", "report") and name in ("temperature", "distillation.temperature"):
        return f"{name} is not for {entry_point}; allowed: temperatures, such as 1-10,20,30.5"
    if entry_point == "distill" and name == "temperatures":
        return (
            "temperatures is not for distill; allowed: temperature, or temperatures with sweep, "
            "tune or report"
        )
    single = ("teacher", "student")
    if entry_point in single and name in _OF_DISTILLED:
        takers = [own for own in ENTRY_POINTS if own not in single and not refusal(own, name)]
        return (
            f"{name} is not for {entry_point}, which distils nothing; allowed: {name} with "
            f"{', '.join(takers[:-1])} or {takers[-1]}"
        )
    return ""


def _refuse_what_is_ignored(
    entry_point: str, fields: Mapping[str, str], own: Mapping[str, str]
) -> None:
    """Refuses fields and parameters that the command would ignore.

    Besides the fields of `refusal` these are parameters of the other executor, and a folder for a
    gate that is not given.
    """
    for name in fields:
        if message := refusal(entry_point, name):
            raise UserError(message)
    if own["gate_out"] != _GATE_OUT.default and own["gate"] == _GATE.default:
        raise UserError(
            f"gate_out={own['gate_out']!r} is given without a gate; allowed: with gate=path"
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


def report_formats(text: str) -> tuple[str, ...]:
    """Reads how a report is written beside its page, such as `markdown,latex`; `none`: no way.

    Raises:
        UserError: a form is not known, or named twice.
    """
    if text == "none":
        return ()
    given = [name.strip() for name in text.split(",")]
    for name in given:
        if name not in FORMATS:
            raise unknown_name("format", name, ("none", *FORMATS))
        if given.count(name) > 1:
            raise UserError(f"format={text!r} names {name!r} twice; allowed: every form once")
    return tuple(given)


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,2})?", name):
        raise UserError(f"device={name!r} is not allowed; allowed: auto | cpu | cuda | cuda:N")
    return name


def boolean(name: str, value: str) -> bool:
    """Reads `true` or `false`.

    Raises:
        UserError: it is neither.
    """
    if value.lower() not in {"true", "false"}:
        raise UserError(f"{name}={value!r} is not allowed; allowed: true | false")
    return value.lower() == "true"


def optional_path(name: str, value: str) -> Path | None:
    """Reads a path, None for `none`."""
    return None if value == "none" else user_path(name, value)


def _run_of(own: Mapping[str, str]) -> str | None:
    run, project = own["run"], own["project"]
    if run == _OF_A_RUN.default:
        return None
    if not re.fullmatch(r"[0-9a-f]{32}", run):
        raise UserError(
            f"run={run!r} is no run id; allowed: none | the id of a run of sweep or distill, 32 "
            "hexadecimal digits"
        )
    if project != _PROJECT.default:
        raise UserError(
            f"run={run!r} and project={project!r} are both given; allowed: one of them, for a run "
            "knows its project"
        )
    return run


def _registered_name(name: str) -> str | None:
    """Returns the name of a registered model, as MLflow's registry takes it."""
    if name == "none":
        return None
    if not name.strip() or set(name) & set("/:"):
        raise UserError(
            f"register={name!r} is no name of a registered model; allowed: none | text without / "
            "and :"
        )
    return name


def _export(value: str) -> str | None:
    if value not in ("none", "onnx"):
        raise UserError(f"export={value!r} is not allowed; allowed: none | onnx")
    return None if value == "none" else value


def _processes(value: str) -> int:
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"processes={value!r} is not allowed; allowed: integer >= 1")
    return int(value)


def _count(name: str, value: str) -> int | None:
    """Reads a count; None for `auto`."""
    if value.lower() == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{name}={value!r} is not allowed; allowed: auto | integer >= 1")
    return int(value)
