"""The tracking store: opening runs, finding finished ones by key, and closing dead ones."""

import json
import logging
import os
import socket
import sqlite3
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from uuid import uuid4

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.git_context import GitRunContext
from sqlalchemy import create_engine
from sqlalchemy.engine import URL

from kdplatform.errors import KdplatformError, MachineError, UserError
from kdplatform.experiments.artifacts import Artifact, artifact_path, digest_now
from kdplatform.experiments.run_search import TAG_KEY, runs_with_key, search_runs
from kdplatform.experiments.store_faults import shown_store, store_errors, store_problem
from kdplatform.files import file_digest, locked
from kdplatform.processes import host_of, is_dead_here, this_process
from kdplatform.progress import say
from kdplatform.redaction import redacted, without_user
from kdplatform.settings.project import dump_yaml
from kdplatform.settings.schema import ProjectConfig, flatten
from kdplatform.stores import (
    DATABASES,
    database_url,
    first_line,
    is_server,
    reason_of,
    sqlite_path,
)

# Separator between the key and the id of a run that is excluded from reuse.
SUPERSEDED = "~"
TAG_DIGESTS = "kd.artifact_digests"
TAG_PROCESS = "kd.process"
TAG_ERROR = "kd.error"
# The column of a model's table of classes with the training examples of each.
TRAINING_EXAMPLES = "training_examples"

_ANSWER_SECONDS = 10
# The first MLflow whose server stores logged models, and the most bytes that are read of a version.
_OLDEST_SERVER, _LONGEST_VERSION = 3, 64
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_ALLOWED = (
    "http://server:5000 | sqlite:///mlflow.db | postgresql+psycopg://host/database, or another "
    "URI of MLflow's"
)


def quiet_mlflow() -> None:
    """Keeps MLflow's messages and all secrets out of the program's output and its runs."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # This message contains the name and password of the server's URI.
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # They also raise the error that they log; `store_errors` turns it into one line.
    for name in ("mlflow.store.db.utils", "mlflow.utils.databricks_utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    _redact_logs()
    # The repository of the script that runs may be the user's own; see `_source_tags`.
    GitRunContext.in_context = lambda self: False


@cache
def _redact_logs() -> None:
    """Removes names and passwords from everything that libraries log from now on."""
    make = logging.getLogRecordFactory()

    def make_redacted(*arguments: object, **named: object) -> logging.LogRecord:
        record = make(*arguments, **named)
        with suppress(TypeError, ValueError):  # a message that does not fit its arguments
            record.msg, record.args = redacted(record.getMessage()), ()
        return record

    logging.setLogRecordFactory(make_redacted)


def check_store() -> None:
    """Makes sure that the tracking store answers before anything is started.

    MLflow itself would retry for minutes.

    Raises:
        UserError: the tracking URI is invalid, or needs a driver that is not installed.
        MachineError: the server or database of the tracking URI does not answer, or the SQLite file
            can neither be opened nor created.
    """
    uri = mlflow.get_tracking_uri()
    if is_server(uri):
        _check_server(uri)
    elif uri.partition(":")[0].partition("+")[0] in DATABASES:
        url = database_url("MLFLOW_TRACKING_URI", uri, _ALLOWED)
        path = sqlite_path(uri)
        _check_database(url) if path is None else _check_sqlite(path)


def prepare_store() -> None:
    """Checks the tracking store, and lets MLflow create its tables if they are missing.

    Raises:
        UserError: as `check_store`.
        MachineError: as `check_store`, or the tables cannot be created.
    """
    check_store()
    path = sqlite_path(mlflow.get_tracking_uri())
    if path is None:
        return
    # MLflow's migrations fail if two processes begin them at the same time.
    lock = path.with_name(f".{path.name}.lock")
    with locked(lock, "another process makes the tracking store; waiting"), store_errors():
        if not path.exists() or not path.stat().st_size:
            _make_sqlite_store(path)
        MlflowClient().search_experiments(max_results=1)


def _make_sqlite_store(path: Path) -> None:
    """Lets MLflow create a store under a temporary name, and renames it.

    MLflow's migrations are many transactions. A store whose creation was interrupted can neither be
    opened nor created again.
    """
    for left in path.parent.glob(f".{path.name}.*.new"):
        left.unlink()
    # MLflow keeps connections by name, so each attempt has its own name.
    new = path.with_name(f".{path.name}.{uuid4().hex}.new")
    MlflowClient(f"sqlite:///{new.resolve()}").search_experiments(max_results=1)
    new.replace(path)


def begin_command() -> None:
    """Prepares the tracking store for a command that logs, before any of its work.

    It closes runs that dead processes of this machine left RUNNING.

    Raises:
        UserError: as `prepare_store`, or `MLFLOW_RUN_ID` names a run that does not belong to this
            command.
        MachineError: as `prepare_store`.
    """
    prepare_store()
    with store_errors():
        if given := os.environ.get("MLFLOW_RUN_ID"):
            _check_given_run(given)
        close_dead(running_runs())


def _check_given_run(run_id: str) -> None:
    """Refuses a run that MLflow did not just start for this command: it would be overwritten."""
    try:
        run = MlflowClient().get_run(run_id)
        ours = any(name.startswith("kd.") for name in run.data.tags)
        state = "a run of this platform" if ours else run.info.status
        if not ours and state == "RUNNING" and run.info.lifecycle_stage == "active":
            return
    except MlflowException as error:
        state = first_line(error)
    raise UserError(
        f"MLFLOW_RUN_ID={run_id!r} is not a run that was just started for this command ({state}); "
        "allowed: unset MLFLOW_RUN_ID"
    )


def running_runs() -> list[Run]:
    """Returns the RUNNING runs of all commands and models that name their process."""
    return search_runs(f"tags.`{TAG_PROCESS}` LIKE '%' and attributes.status = 'RUNNING'")


def runs_dead_elsewhere(older_than_seconds: float) -> list[str]:
    """Returns one line per RUNNING run of another machine that began this long ago."""
    latest = time.time() - older_than_seconds
    return [
        f"run {run.info.run_id} is RUNNING since "
        f"{datetime.fromtimestamp(run.info.start_time / 1000):%Y-%m-%d %H:%M} on "
        f"{host_of(run.data.tags[TAG_PROCESS])}"
        for run in running_runs()
        if run.info.start_time / 1000 < latest
        and host_of(run.data.tags[TAG_PROCESS]) != socket.gethostname()
    ]


def _check_server(uri: str) -> None:
    base = without_user(uri).rstrip("/")
    try:
        with urllib.request.urlopen(f"{base}/health", timeout=_ANSWER_SECONDS):
            pass
        with urllib.request.urlopen(f"{base}/version", timeout=_ANSWER_SECONDS) as answer:
            version = answer.read(_LONGEST_VERSION).decode(errors="replace").strip()
    except urllib.error.HTTPError:
        return  # A server that refuses the request exists; MLflow reports the rest.
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise MachineError(store_problem(reason)) from None
    first = version.partition(".")[0]
    if first.isdecimal() and int(first) < _OLDEST_SERVER:
        raise MachineError(
            f"MLFLOW_TRACKING_URI={shown_store()!r} is a server of MLflow {version}, which keeps "
            f"no models; allowed: one of MLflow {_OLDEST_SERVER} or newer"
        )


def _check_database(url: URL) -> None:
    # The other drivers do not have this option.
    patience = {"postgresql": "connect_timeout", "mysql": "connect_timeout"}
    name = patience.get(url.get_backend_name())
    engine = create_engine(url, connect_args={name: _ANSWER_SECONDS} if name else {})
    with store_errors(), closing(engine.connect()):
        pass
    engine.dispose()


def _check_sqlite(path: Path) -> None:
    """Opens the file if it exists; does not create it."""
    try:
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
        # SQLite keeps its journal beside the database.
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except sqlite3.Error as error:
        raise MachineError(store_problem(error)) from None
    except OSError as error:
        raise MachineError(store_problem(error.strerror)) from None
    if path.exists() and not os.access(path, os.W_OK):
        raise MachineError(store_problem("it cannot be written"))


def find_finished(
    runs: Iterable[Run],
    fits: Callable[[Run], bool] = bool,
    digests: Mapping[Artifact, str] | None = None,
) -> Run | None:
    """Returns the first FINISHED run that fits and whose artifacts are unaltered.

    Args:
        digests: digests of artifacts that were just read.

    Raises:
        MachineError: the artifacts cannot be read now.
    """
    finished = (run for run in runs if run.info.status == "FINISHED")
    return next((run for run in finished if fits(run) and _is_sound(run, digests or {})), None)


def artifact_digests(run: Run) -> dict[str, str]:
    """Returns the digests of the artifacts that reuse checks, by their paths."""
    digests: dict[str, str] = json.loads(run.data.tags.get(TAG_DIGESTS, "{}"))
    return digests


def _is_sound(run: Run, known: Mapping[Artifact, str]) -> bool:
    """Returns whether a run's artifacts are unaltered; if not, excludes it from reuse.

    If the artifact store is temporarily unavailable, nothing is excluded and the command stops.
    """
    digests, run_id = artifact_digests(run), run.info.run_id
    if not digests:
        say(f"run {run_id}: its list of digests is missing; the model is trained again")
        supersede(run)
        return False
    for path, digest in digests.items():
        try:
            found = known.get((run_id, path)) or digest_now(run_id, path)
        except (OSError, MlflowException) as error:
            raise MachineError(unreadable(run_id, path, error)) from error
        if found != digest:
            say(f"run {run_id}: {path} is not what was logged; the model is trained again")
            supersede(run)
            return False
    return True


def unreadable(run_id: str, path: str, error: Exception) -> str:
    """Returns the message that an artifact cannot be read now, with remedies."""
    return (
        f"run {run_id}: {path} cannot be read now ({reason_of(error)}); allowed: a reachable "
        f"artifact store of MLFLOW_TRACKING_URI={shown_store()!r}, reuse=false to train again, or: "
        f"mlflow runs delete --run-id {run_id}"
    )


def supersede(run: Run) -> None:
    """Excludes a run from reuse: its key becomes unique, and everything else stays."""
    own = f"{run.data.tags[TAG_KEY]}{SUPERSEDED}{run.info.run_id}"
    MlflowClient().set_tag(run.info.run_id, TAG_KEY, own)


def supersede_finished(key: str, *, except_run_id: str) -> None:
    """Excludes every other FINISHED run with this key from reuse."""
    for run in runs_with_key(key):
        if run.info.status == "FINISHED" and run.info.run_id != except_run_id:
            supersede(run)


def close_dead(runs: Iterable[Run]) -> None:
    """Marks runs as KILLED that a dead process of this machine left RUNNING."""
    for run in runs:
        if run.info.status == "RUNNING" and is_dead_here(run.data.tags.get(TAG_PROCESS, "")):
            MlflowClient().set_terminated(run.info.run_id, "KILLED")


def close_abandoned_children(parent_run_id: str) -> None:
    """Marks runs below a command's run as KILLED that dead workers left RUNNING.

    Call it only if the command has no worker left on any machine.
    """
    for run in search_runs(
        f"tags.`mlflow.parentRunId` = '{parent_run_id}' and attributes.status = 'RUNNING'"
    ):
        MlflowClient().set_terminated(run.info.run_id, "KILLED")


@contextmanager
def _nothing_left_running() -> Iterator[None]:
    """Closes runs of this process that an interruption at their begin or end left RUNNING."""
    try:
        yield
    except BaseException:
        with suppress(MlflowException):
            for run in running_runs():
                if run.data.tags.get(TAG_PROCESS) == this_process():
                    MlflowClient().set_terminated(run.info.run_id, "KILLED")
        raise


@contextmanager
def command_run(
    command: str, config: ProjectConfig, title: str = "", tags: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Opens the parent run of a command: the one that `mlflow run` created, or a new one.

    It has the configuration as parameters and as a file. `mlflow run` has logged the values given
    with -P as they were typed. A second spelling of the same value would be refused.
    """
    name = f"{command} {title or config.name}"
    own = {"kd.command": command, "kd.project": config.name}
    with opened_run(name, config.name, {**own, **(tags or {})}) as run_id:
        known = MlflowClient().get_run(run_id).data.params
        mlflow.log_params({k: v for k, v in flatten(config).items() if k not in known})
        with _impatient():
            mlflow.log_text(dump_yaml(config), "config.yaml")
        yield run_id


@contextmanager
def _impatient() -> Iterator[None]:
    """Retries a failing server four times, for half a minute, instead of MLflow's eight times.

    This is for the first file of a command, because storage without its keys fails at every
    attempt. Later files wait much longer for a server.
    """
    before = os.environ.get(_RETRIES)
    os.environ.setdefault(_RETRIES, "4")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_RETRIES, None)


@contextmanager
def opened_run(name: str, experiment: str | None, tags: Mapping[str, str]) -> Iterator[str]:
    """Opens a top-level run: the one that `mlflow run` created, or a new one.

    Args:
        experiment: the experiment of a new run, created if it does not exist. MLflow's own choice
            replaces it if `$MLFLOW_EXPERIMENT_NAME` or `$MLFLOW_EXPERIMENT_ID` is set, or if it is
            None.
    """
    # The run names its process from the start, so that the next command can close it.
    own = {"mlflow.runName": name, **tags, TAG_PROCESS: this_process(), **_source_tags()}
    with (
        _nothing_left_running(),
        mlflow.start_run(run_name=name, experiment_id=_experiment_id(experiment), tags=own) as run,
    ):
        # Such as the URL of the repository that was given to `mlflow run`.
        if secret := {k: redacted(v) for k, v in run.data.tags.items() if redacted(v) != v}:
            mlflow.set_tags(secret)
        known = MlflowClient().get_run(run.info.run_id).data.params
        for parameter in [k for k, v in known.items() if redacted(v) != v]:
            say(
                f"run {run.info.run_id}: `mlflow run` has logged {parameter} as it was typed, with "
                "its password; change the password, and leave it out, as PGPASSWORD does"
            )
        yield run.info.run_id


def _experiment_id(name: str | None) -> str | None:
    """Returns the id of the experiment of this name; creates it if it does not exist.

    None if MLflow chooses: the user named one for MLflow, or none is chosen here.
    """
    given = any(os.environ.get(f"MLFLOW_EXPERIMENT_{kind}") for kind in ("NAME", "ID"))
    if name is None or given or os.environ.get("MLFLOW_RUN_ID"):
        return None
    client = MlflowClient()
    if found := client.get_experiment_by_name(name):
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name))
    except MlflowException:
        # Another process has made it meanwhile.
        found = client.get_experiment_by_name(name)
        if found is None:
            raise
        return str(found.experiment_id)


@contextmanager
def model_run(name: str, parent_run_id: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Opens the run of one trained model below a command's run.

    If the block raises, the run is FAILED and tagged with the error.
    """
    process = {TAG_PROCESS: this_process()}
    with mlflow.start_run(
        run_name=name,
        nested=True,
        parent_run_id=parent_run_id,
        experiment_id=_experiment_of(mlflow.get_tracking_uri(), parent_run_id),
        tags={**tags, **process, **_source_tags()},
    ) as run:
        try:
            yield run.info.run_id
        except (KdplatformError, OSError) as error:
            with suppress(MlflowException):
                mlflow.set_tag(TAG_ERROR, redacted(str(error)))
            raise


@cache
def _experiment_of(tracking_uri: str, run_id: str) -> str:
    """Returns the experiment of a run; requested once for the many models below it."""
    return str(MlflowClient(tracking_uri).get_run(run_id).info.experiment_id)


def log_verified_artifacts(folder: Path) -> dict[str, str]:
    """Logs the files below `folder`; returns the tag by which reuse checks them."""
    mlflow.log_artifacts(str(folder))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    return {TAG_DIGESTS: json.dumps(digests, separators=(",", ":"))}


def class_names(run: Run) -> tuple[str, ...]:
    """Returns the class of each output of a run's model; empty if the run has no such table."""
    return tuple(map(str, _by_class(run, "name")))


def class_counts(run: Run) -> tuple[int, ...]:
    """Returns the training examples of each class; empty if the run has not logged them."""
    try:
        return tuple(int(str(count)) for count in _by_class(run, TRAINING_EXAMPLES))
    except ValueError:
        return ()


def _by_class(run: Run, column: str) -> list[object]:
    """Returns a column of a run's table of classes; empty if it has none."""
    try:
        path = artifact_path(run.info.run_id, "classwise.json")
        logged = json.loads(path.read_text())
        position = logged["columns"].index(column)
        return [row[position] for row in logged["data"]]
    except (OSError, MlflowException, ValueError, KeyError):
        return []


@cache
def uncommitted_changes() -> str:
    """Returns the uncommitted changes of the platform's working tree, if their logging is chosen.

    They may contain secrets, so they are logged only if `$KDPLATFORM_LOG_CHANGES` is true. A
    process reads its code once, so the changes are also read once.
    """
    return _git("diff", "HEAD") if changes_are_logged() else ""


def changes_are_logged() -> bool:
    """Returns whether `$KDPLATFORM_LOG_CHANGES` requests the uncommitted changes.

    Raises:
        UserError: it is neither true nor false.
    """
    chosen = os.environ.get("KDPLATFORM_LOG_CHANGES", "false")
    if chosen not in ("true", "false"):
        raise UserError(f"KDPLATFORM_LOG_CHANGES={chosen!r} is not allowed; allowed: true | false")
    return chosen == "true"


@cache
def _source_tags() -> dict[str, str]:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = "true" if _git("status", "--porcelain", "--untracked-files=no") else "false"
    return {"mlflow.source.git.commit": commit.strip(), "kd.source_dirty": dirty}


def _git(*arguments: str) -> str:
    """Returns the output of git for the platform's working tree.

    Empty if the package has no repository of its own. A repository around it belongs to the user.
    """
    folder = Path(__file__).resolve().parent.parent
    # Variables that another repository's hook or alias has set.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}

    def said(*words: str) -> str:
        result = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            check=True,
            timeout=30,
        )
        return result.stdout.decode(errors="replace")

    try:
        root = Path(said("rev-parse", "--show-toplevel").removesuffix("\n"))
        said("ls-files", "--error-unmatch", "--", str(folder / "__init__.py"))
        return said(*arguments) if root == folder.parent else ""
    except (OSError, subprocess.SubprocessError):
        return ""
