"""The tracking store: opening runs, finding finished ones by key, leaving nothing half-true."""

import json
import logging
import os
import re
import socket
import sqlite3
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from kdplatform.errors import KdplatformError, MachineError
from kdplatform.files import file_digest, locked
from kdplatform.progress import say
from kdplatform.settings.project import dump_yaml
from kdplatform.settings.schema import ProjectConfig, flatten

TAG_KEY = "kd.key"
# Between the key of a run taken out of reuse and the run's own id.
SUPERSEDED = "~"
TAG_DIGESTS = "kd.artifact_digests"
TAG_PROCESS = "kd.process"
TAG_ERROR = "kd.error"

_SERVER_TIMEOUT_SECONDS = 10
# Name and password in a URI.
_USER_INFO = re.compile(r"//[^/@]*@")


def shown_store() -> str:
    """Returns the tracking URI as messages show it: without name and password."""
    return _USER_INFO.sub("//***@", str(mlflow.get_tracking_uri()))


def quiet_mlflow() -> None:
    """Keeps MLflow's own chatter (migrations, download bars) out of the program's output."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # What it logs there with a traceback is raised too, and said in one line by `store_errors`.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def check_store() -> None:
    """Makes sure that the tracking store answers before anything is started.

    MLflow itself would try again for minutes.

    Raises:
        MachineError: the server named by the tracking URI does not answer, or the SQLite file can
            be neither opened nor made.
    """
    uri = mlflow.get_tracking_uri()
    if uri.startswith(("http://", "https://")):
        _check_server(uri)
    elif path := _sqlite_path(uri):
        _check_sqlite(path)


def prepare_store() -> None:
    """Checks the tracking store, and has MLflow make its tables where there are none.

    Raises:
        MachineError: as `check_store`, or when the tables cannot be made.
    """
    check_store()
    path = _sqlite_path(mlflow.get_tracking_uri())
    if path is None:
        return
    # MLflow's own migrations fail when two processes begin them at once.
    lock = path.with_name(f".{path.name}.lock")
    with locked(lock, "another process makes the tracking store; waiting"), store_errors():
        MlflowClient().search_experiments(max_results=1)


def _sqlite_path(uri: str) -> Path | None:
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


@contextmanager
def store_errors() -> Iterator[None]:
    """Says in one line what goes wrong between the program and its tracking store.

    Raises:
        MachineError: the store refused, failed or fell silent.
    """
    try:
        yield
    except MlflowException as error:
        raise MachineError(_store_problem(_reason(error))) from error


def _reason(error: BaseException) -> str:
    """Returns what the database itself said, or else the first line of MLflow's message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    return first_line(error)


def first_line(error: BaseException) -> str:
    """Returns the first line of what an error says: MLflow's go on with traces and lists."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _store_problem(reason: object) -> str:
    return (
        f"MLFLOW_TRACKING_URI={shown_store()!r} does not answer as it should ({reason}); allowed: "
        "a running MLflow server, or a database with room left such as sqlite:///mlflow.db"
    )


def _check_server(uri: str) -> None:
    health = _USER_INFO.sub("//", uri).rstrip("/") + "/health"
    try:
        with urllib.request.urlopen(health, timeout=_SERVER_TIMEOUT_SECONDS):
            pass
    except urllib.error.HTTPError:
        return  # A server that refuses the question is there; MLflow says the rest.
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise MachineError(_store_problem(reason)) from None


def _check_sqlite(path: Path) -> None:
    """Opens the file if it is there; leaves none where it is not."""
    try:
        if path.exists():
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
        # SQLite keeps its journal beside the database.
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except sqlite3.Error as error:
        raise MachineError(_store_problem(error)) from None
    except OSError as error:
        raise MachineError(_store_problem(error.strerror)) from None
    if path.exists() and not os.access(path, os.W_OK):
        raise MachineError(_store_problem("it cannot be written"))


def runs_with_key(key: str) -> list[Run]:
    """Returns all runs with this key, whatever became of them, the newest first."""
    return _search_runs(f"tags.`{TAG_KEY}` = '{key}'")


def find_finished(runs: Iterable[Run]) -> Run | None:
    """Returns the first FINISHED run whose artifacts are still what it logged."""
    finished = (run for run in runs if run.info.status == "FINISHED")
    return next(filter(_is_sound, finished), None)


def find_finished_of_project(project: str, keys: Container[str]) -> dict[str, Run]:
    """Returns by key what `find_finished` would, from one search over the project's runs.

    A run that another project of the same configuration logged is not among them; `find_finished`
    does find it.
    """
    found: dict[str, Run] = {}
    for run in finished_runs(project):
        key = run.data.tags[TAG_KEY]
        if key in keys and key not in found and _is_sound(run):
            found[key] = run
    return found


def finished_runs(project: str) -> list[Run]:
    """Returns the FINISHED runs of a project's models, the newest first."""
    return _search_runs(
        f"tags.`kd.project` = '{project}' and tags.`{TAG_KEY}` LIKE '%' "
        "and attributes.status = 'FINISHED'"
    )


def _is_sound(run: Run) -> bool:
    """Tells whether a run's artifacts are what it logged; if not, it is taken out of reuse."""
    damaged = _damaged_artifact(run)
    if damaged is not None:
        say(f"run {run.info.run_id}: {damaged} is not what was logged; it is made again")
        supersede(run)
    return damaged is None


def supersede(run: Run) -> None:
    """Takes a run out of reuse: its key becomes one that is its alone, everything else stays."""
    own = f"{run.data.tags[TAG_KEY]}{SUPERSEDED}{run.info.run_id}"
    MlflowClient().set_tag(run.info.run_id, TAG_KEY, own)


def supersede_finished(key: str, *, except_run_id: str) -> None:
    """Takes every other FINISHED run with this key out of reuse."""
    for run in runs_with_key(key):
        if run.info.status == "FINISHED" and run.info.run_id != except_run_id:
            supersede(run)


def close_abandoned(runs: Iterable[Run]) -> None:
    """Marks as KILLED those of the runs that a process of this machine left RUNNING.

    The run of the command which that process executed is among it. Call it while holding the lock
    of the runs' key: no live process of this machine is then training it.
    """
    client = MlflowClient()
    for run in runs:
        here = run.data.tags.get(TAG_PROCESS, "").partition(":")[0] == socket.gethostname()
        if run.info.status != "RUNNING" or not here:
            continue
        client.set_terminated(run.info.run_id, "KILLED")
        parent = client.get_run(run.data.tags["mlflow.parentRunId"])
        if parent.info.status == "RUNNING":
            client.set_terminated(parent.info.run_id, "KILLED")


def close_abandoned_children(parent_run_id: str) -> None:
    """Marks as KILLED what dead workers left RUNNING below a command's run.

    Call it when the command has no worker left, on whatever machine.
    """
    for run in _search_runs(
        f"tags.`mlflow.parentRunId` = '{parent_run_id}' and attributes.status = 'RUNNING'"
    ):
        MlflowClient().set_terminated(run.info.run_id, "KILLED")


@contextmanager
def command_run(
    command: str, config: ProjectConfig, title: str = "", tags: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Opens the parent run of a command, the one `mlflow run` made or a new one.

    It has the configuration, as parameters and as a file. `mlflow run` has logged the values given
    with -P as they were typed; a second spelling of the same value would be refused.
    """
    name = f"{command} {title or config.name}"
    own = {"mlflow.runName": name, "kd.command": command, "kd.project": config.name}
    with mlflow.start_run(run_name=name) as run:
        mlflow.set_tags({**own, **(tags or {}), **_source_tags()})
        known = MlflowClient().get_run(run.info.run_id).data.params
        mlflow.log_params({k: v for k, v in flatten(config).items() if k not in known})
        mlflow.log_text(dump_yaml(config), "config.yaml")
        yield run.info.run_id


@contextmanager
def model_run(name: str, parent_run_id: str, tags: Mapping[str, str]) -> Iterator[str]:
    """Opens the run of one trained model below a command's run.

    When the block raises, the run is FAILED and tagged with what went wrong.
    """
    process = {TAG_PROCESS: f"{socket.gethostname()}:{os.getpid()}"}
    with mlflow.start_run(
        run_name=name,
        nested=True,
        parent_run_id=parent_run_id,
        tags={**tags, **process, **_source_tags()},
    ) as run:
        try:
            yield run.info.run_id
        except (KdplatformError, OSError) as error:
            with suppress(MlflowException):
                mlflow.set_tag(TAG_ERROR, str(error))
            raise


def log_verified_artifacts(folder: Path) -> dict[str, str]:
    """Logs the files below `folder`; returns the tag by which reuse checks them."""
    mlflow.log_artifacts(str(folder))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): file_digest(path) for path in files}
    return {TAG_DIGESTS: json.dumps(digests, separators=(",", ":"))}


def artifact_path(run_id: str, path: str) -> Path:
    """Returns a local path of a run's artifact, fetched when the store is a remote one."""
    folder = _artifact_folder(mlflow.get_tracking_uri(), run_id)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=f"{folder}/{path}"))


@cache
def _artifact_folder(tracking_uri: str, run_id: str) -> str:
    """Returns where a run's artifacts lie: asked for once, MLflow itself would for every file."""
    uri: str = MlflowClient(tracking_uri).get_run(run_id).info.artifact_uri
    return uri


def class_names(run: Run) -> tuple[str, ...]:
    """Returns the class of each output of a run's model; none where the run has no such table."""
    try:
        path = artifact_path(run.info.run_id, "classwise.json")
        logged = json.loads(path.read_text())
        position = logged["columns"].index("name")
        return tuple(str(row[position]) for row in logged["data"])
    except (OSError, MlflowException, ValueError, KeyError):
        return ()


@cache
def uncommitted_changes() -> str:
    """Returns what the working tree differs from its commit by; a run's code is read once too."""
    return _git("diff", "HEAD")


def _search_runs(filter_string: str) -> list[Run]:
    """Returns the runs of all experiments that match, the newest first."""
    found: list[Run] = mlflow.search_runs(
        filter_string=filter_string,
        order_by=["attributes.start_time DESC"],
        output_format="list",
        search_all_experiments=True,
    )
    return found


def _damaged_artifact(run: Run) -> str | None:
    """Returns the first artifact that is missing or altered, or None when all are sound."""
    digests: dict[str, str] = json.loads(run.data.tags.get(TAG_DIGESTS, "{}"))
    if not digests:
        return "its list of digests"
    for path, digest in digests.items():
        try:
            if file_digest(artifact_path(run.info.run_id, path)) != digest:
                return path
        except (OSError, MlflowException):
            return path
    return None


@cache
def _source_tags() -> dict[str, str]:
    commit = _git("rev-parse", "HEAD")
    if not commit:
        return {}
    dirty = "true" if _git("status", "--porcelain", "--untracked-files=no") else "false"
    return {"mlflow.source.git.commit": commit.strip(), "kd.source_dirty": dirty}


def _git(*arguments: str) -> str:
    """Returns what git prints about the working tree; empty where there is no repository."""
    folder = Path(__file__).resolve().parent
    try:
        result = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.decode(errors="replace")
