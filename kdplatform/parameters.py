"""The parameters of the entry points, read from the words of a command line.

MLproject declares the same names and defaults; a configuration field that is not declared there
(`-P student.epochs=3`) arrives as `--student.epochs 3` and is an override.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdplatform.errors import UserError, unknown_name
from kdplatform.files import home_folder, not_there, user_path

FROM_PROJECT = "from-project"
EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Parameter:
    """A parameter of an entry point: its name, default, and what it takes."""

    name: str
    default: str
    allowed: str
    description: str


PROJECT = Parameter(
    "project", "trifeature", "name | path", "a project of projects/, or the path of a YAML file"
)
SEEDS = Parameter("seeds", FROM_PROJECT, "such as 0, 0-4 or 0,2,5", "one model of each per seed")
TEMPERATURE = Parameter(
    "temperature",
    FROM_PROJECT,
    "number >= 1e-06 and <= 1e+06",
    "softmax temperature T of teacher and student",
)
ALPHA = Parameter("alpha", FROM_PROJECT, "number >= 0 and <= 1", "weight of the distillation term")
METHOD = Parameter("method", FROM_PROJECT, "a distillation objective", "how the student distils")
DATA_FOLDER = Parameter(
    "data_folder", "auto", "auto | path", "datasets, checkpoints; auto: $KDPLATFORM_HOME or cache"
)
DEVICE = Parameter("device", "auto", "auto | cpu | cuda | cuda:N", "where models are trained")
REUSE = Parameter(
    "reuse", "true", "true | false", "take FINISHED runs of the same key; false: train afresh"
)
TEMPERATURES = Parameter(
    "temperatures", FROM_PROJECT, "such as 1-10,20,30.5", "one distilled student per seed and T"
)
WORKERS = Parameter(
    "workers", "auto", "auto | integer >= 1", "processes of executor local; auto: what fits"
)
EXECUTOR = Parameter(
    "executor", "local", " | ".join(EXECUTORS), "where models are trained side by side"
)
ADDRESS = Parameter(
    "address", "auto", "auto | host:port", "Ray cluster; auto: this machine's or $RAY_ADDRESS"
)

OUT = Parameter(
    "out", "auto", "auto | path", "folder of the report; auto: reports/<project> in the data folder"
)
INTERSECTIONS = Parameter(
    "intersections", "true", "true | false", "compare groups of two attributes at once too"
)

CONFIG = Parameter(
    "config",
    "none",
    "none | path",
    "a configuration as a run logs it, such as the tuner's best.yaml",
)
TRIALS = Parameter("trials", FROM_PROJECT, "integer >= 1", "points tried in all")
UNFAIRNESS = Parameter(
    "unfairness", FROM_PROJECT, "eod | dpd | accuracy_gap | individual | n_sc", "what is to fall"
)
ATTRIBUTE = Parameter(
    "attribute", FROM_PROJECT, "auto | name", "whose groups it compares; auto: the first"
)
MODE = Parameter(
    "mode", FROM_PROJECT, "pareto | constrained", "both objectives, or the fairest accurate enough"
)
SAMPLER = Parameter("sampler", FROM_PROJECT, "tpe | gp | nsgaii | random", "Optuna's sampler")
SEEDS_PER_TRIAL = Parameter(
    "seeds_per_trial", FROM_PROJECT, "integer >= 1", "students whose mean is a point's value"
)
CONFIRM_SEEDS = Parameter(
    "confirm_seeds", FROM_PROJECT, "0 | integer >= 2", "fresh seeds for the chosen points"
)
STUDY = Parameter("study", "auto", "auto | text", "the study's name; the same name goes on with it")
STORAGE = Parameter(
    "storage",
    "auto",
    "auto | URL",
    "sqlite:///file, postgresql://..., journal:///file; auto: sqlite:///optuna.db",
)

_SPREADING = (WORKERS, EXECUTOR, ADDRESS)
_RUNNING = (DATA_FOLDER, DEVICE, REUSE)
_REPORTING = (OUT, INTERSECTIONS)
_TUNING_FIELDS = (
    TRIALS,
    UNFAIRNESS,
    ATTRIBUTE,
    MODE,
    SAMPLER,
    SEEDS_PER_TRIAL,
    CONFIRM_SEEDS,
)
_STUDY = (STUDY, STORAGE)
ENTRY_POINTS: dict[str, tuple[Parameter, ...]] = {
    "teacher": (PROJECT, SEEDS, *_RUNNING),
    "student": (PROJECT, SEEDS, *_RUNNING),
    "distill": (PROJECT, CONFIG, TEMPERATURE, ALPHA, METHOD, SEEDS, *_RUNNING),
    "sweep": (PROJECT, TEMPERATURES, ALPHA, METHOD, SEEDS, *_SPREADING, *_RUNNING),
    "tune": (PROJECT, *_TUNING_FIELDS, *_STUDY, *_SPREADING, DATA_FOLDER, DEVICE),
    "report": (PROJECT, TEMPERATURES, ALPHA, METHOD, SEEDS, *_REPORTING),
}
HELP = {
    "teacher": "train the teacher of each seed, or find it",
    "student": "train the student without a teacher (NDS) for each seed, or find it",
    "distill": "train or find teacher and NDS, distil the student, compare the three",
    "sweep": "distill for all temperatures and seeds, side by side; trains what is missing",
    "tune": "look for the temperature and alpha that trade accuracy against fairness",
    "report": "tables, figures and verdicts of a study, from the tracking store alone",
}
COMPARE_USAGE = (
    "A B [--attributes a,b] [--similar_by c,d] [--min_group_size 30] [--out folder]: each run ids "
    "or files, comma-separated"
)


@dataclass(frozen=True)
class Arguments:
    """The words of a command line, told apart.

    Attributes:
        workers: processes of the local executor; None: as many as fit.
        out: the report's folder; None: below the data folder.
        intersections: whether the report compares pairs of attributes.
        study: name of the tuner's study; None: made from what is looked for.
        storage: where the study is kept.
    """

    project: str
    overrides: dict[str, str]
    data_folder: Path
    device: str
    reuse: bool
    workers: int | None = None
    executor: str = EXECUTOR.default
    address: str = ADDRESS.default
    out: Path | None = None
    intersections: bool = True
    study: str | None = None
    storage: str = STORAGE.default


def parse_arguments(entry_point: str, words: Sequence[str]) -> Arguments:
    """Tells declared parameters from overrides of configuration fields.

    Raises:
        UserError: a word is no `--name value`, a name is given twice or a value is not allowed.
    """
    given = _pairs(words)
    values = {p.name: given.pop(p.name, p.default) for p in ENTRY_POINTS[entry_point]}
    own = (PROJECT, *_SPREADING, *_RUNNING, *_REPORTING, *_STUDY, CONFIG)
    settings = {p.name: values.pop(p.name, p.default) for p in own}
    if entry_point in ("sweep", "tune"):
        _check_spreading(settings)
    _refuse_what_tune_decides(entry_point, given)
    if entry_point in ("sweep", "report"):
        _refuse_single_temperature(entry_point, {**given, **values})
    fields = {name: value for name, value in values.items() if value != FROM_PROJECT}
    folder = settings["data_folder"]
    return Arguments(
        project=_project(settings),
        overrides={**given, **fields},
        data_folder=home_folder() if folder == "auto" else user_path("data_folder", folder),
        device=settings["device"],
        reuse=_boolean("reuse", settings["reuse"]),
        workers=_count("workers", settings["workers"]),
        executor=settings["executor"],
        address=settings["address"],
        out=None if settings["out"] == "auto" else user_path("out", settings["out"]),
        intersections=_boolean("intersections", settings["intersections"]),
        study=None if settings["study"] == "auto" else settings["study"],
        storage=settings["storage"],
    )


def _project(settings: Mapping[str, str]) -> str:
    """Returns the project, which a configuration given as a file takes the place of."""
    config, project = settings["config"], settings["project"]
    if config == CONFIG.default:
        return project
    if project != PROJECT.default:
        raise UserError(
            f"config={config!r} and project={project!r} are both given; allowed: one of them, for "
            "config names its project itself"
        )
    return _yaml_path("config", config)


def _yaml_path(name: str, value: str) -> str:
    path = user_path(name, value)
    if path.suffix not in {".yaml", ".yml"} or not path.is_file():
        raise not_there(name, value, path, "none | the path of a YAML file")
    return str(path)


def _refuse_what_tune_decides(entry_point: str, fields: Mapping[str, str]) -> None:
    """Refuses what would be ignored: seeds for `tune`, the tuner's fields for everything else."""
    if entry_point == "tune":
        if "seeds" in fields:
            raise UserError(
                "seeds is not for tune; allowed: seeds_per_trial and confirm_seeds, which are "
                "numbers of seeds"
            )
        return
    for name in fields:
        if name in {p.name for p in _TUNING_FIELDS} or name.startswith("tuning."):
            raise UserError(f"{name} is not for {entry_point}; allowed: {name} with tune")


def _check_spreading(settings: Mapping[str, str]) -> None:
    """Refuses what would be ignored: parameters of the other executor."""
    executor = settings["executor"]
    if executor not in EXECUTORS:
        raise unknown_name("executor", executor, EXECUTORS)
    other = ADDRESS if executor == "local" else WORKERS
    if settings[other.name] != other.default:
        raise UserError(
            f"{other.name}={settings[other.name]!r} is not for executor={executor!r}; allowed: "
            f"{other.name} with executor={EXECUTORS[executor == EXECUTORS[0]]!r}"
        )


def _refuse_single_temperature(entry_point: str, fields: Mapping[str, str]) -> None:
    """Refuses what would be ignored: one single temperature."""
    for name in ("temperature", "distillation.temperature"):
        if name in fields:
            raise UserError(
                f"{name} is not for {entry_point}; allowed: temperatures, such as 1-10,20,30.5"
            )


def _pairs(words: Sequence[str]) -> dict[str, str]:
    """Reads `--name value`, `--name=value` and `--no-reuse`."""
    given: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or word == "--":
            raise UserError(f"{word!r} is not expected here; allowed: --name value")
        name, equals, value = word[2:].partition("=")
        if word == "--no-reuse":
            name, value = "reuse", "false"
        elif not equals:
            if not rest:
                raise UserError(f"--{name} is given without a value; allowed: --{name} value")
            value = rest.pop(0)
        if name in given:
            raise UserError(f"--{name} is given twice: {given[name]!r} and {value!r}")
        given[name] = value
    return given


def _boolean(name: str, value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise UserError(f"{name}={value!r} is not allowed; allowed: true | false")
    return value.lower() == "true"


def _count(name: str, value: str) -> int | None:
    """Reads a number of things, None for `auto`."""
    if value.lower() == "auto":
        return None
    if not value.isdecimal() or int(value) < 1:
        raise UserError(f"{name}={value!r} is not allowed; allowed: auto | integer >= 1")
    return int(value)


def check_entry_point(name: str, known: Sequence[str]) -> None:
    """Raises a UserError that names the nearest commands when there is none of this name."""
    if name not in known:
        raise unknown_name("command", name, known)
