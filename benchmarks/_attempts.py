"""Commands in processes that can be killed at any moment, and what they leave behind.

A command is forked from this process, which has only imported modules, so that an attempt costs no
imports. What a command leaves is read with sqlite3 and pandas, without the platform's own code.
"""

import hashlib
import json
import os
import resource
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy
import torch

PROJECT = """\
name: small
dataset: {name: table, file: {folder}/table.csv, label: label, attributes: [group]}
teacher: {model: mlp_large, epochs: 4, batch_size: 64, optimizer: adamw, learning_rate: 3.0e-3}
student: {model: mlp_small, epochs: 4, batch_size: 64, optimizer: adamw, learning_rate: 3.0e-3}
distillation: {temperature: 4, alpha: 0.8}
temperatures: 1,4
seeds: 0,1
attributes: group
min_group_size: 1
tuning: {temperature: "1,10", alpha: "0.1,0.9", trials: 6, sampler: random, confirm_seeds: 2}
"""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
# Audit events of Python that change a file system, beside `open`.
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
STATEMENTS = ("COMMIT", "INSERT", "UPDATE", "DELETE")


@dataclass(frozen=True)
class Ended:
    """What an attempt has shown: exit code (negative: the signal), output, file-system events."""

    code: int
    out: str
    err: str
    seconds: float
    events: int

    @property
    def last_line(self) -> str:
        lines = self.err.strip().splitlines()
        return lines[-1] if lines else ""

    @property
    def one_line(self) -> bool:
        """Whether it ended well, or was refused by one line that is no traceback."""
        refused = self.code in (1, 2) and self.last_line.startswith("kdplatform: ")
        return (self.code == 0 or refused) and "Traceback" not in self.err


@dataclass(frozen=True)
class Place:
    """One folder with store, artifacts, data folder and temporary folder of its own."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        text = PROJECT.replace("{folder}", str(self.folder))
        (self.folder / "small.yaml").write_text(text)
        write_table(self.folder / "table.csv")

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    def environment(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.database}",
            "KDPLATFORM_HOME": str(self.home),
            "KDPLATFORM_KERNELS": "off",
            "TMPDIR": str(self.folder / "tmp"),
            "OMP_NUM_THREADS": "1",
            "GIT_PYTHON_REFRESH": "quiet",
            **self.variables,
        }

    def words(self, command: str, *more: str) -> list[str]:
        """Returns the words of a command on this place's project."""
        return [*command.split(), "--project", str(self.folder / "small.yaml"), *more]

    # ---- running

    def start(
        self,
        words: Sequence[str],
        kill_at_event: int = 0,
        prepare: Callable[[], Any] = lambda: None,
    ) -> "Attempt":
        """Starts a command in a session of its own.

        Args:
            kill_at_event: the command's process group is killed at this file-system event.
            prepare: is called in the new process before the command.
        """
        number = len(list(self.folder.glob("out-*")))
        paths = [self.folder / f"{name}-{number}" for name in ("out", "err", "events")]
        paths[0].touch()
        process_id = os.fork()
        if process_id == 0:
            _become_the_command(self, words, paths, kill_at_event, prepare)
        return Attempt(process_id, paths, time.monotonic())

    def run(self, words: Sequence[str], **options: Any) -> Ended:
        """Runs a command to its end."""
        return self.start(words, **options).wait()

    # ---- what is left

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Returns what the store answers; nothing where there is no store yet."""
        if not self.database.exists():
            return []
        try:
            with closing(sqlite3.connect(self.database, timeout=60)) as database:
                return database.execute(query).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise

    def models(self) -> dict[str, list[str]]:
        """Returns the artifact folders of finished models by key."""
        found: dict[str, list[str]] = {}
        for key, uri in self.rows(
            "SELECT tags.value, artifact_uri FROM runs JOIN tags USING (run_uuid) "
            "WHERE tags.key = 'kd.key' AND status = 'FINISHED' AND lifecycle_stage = 'active'"
        ):
            found.setdefault(key, []).append(uri.removeprefix("file://"))
        return found

    def digests(self) -> dict[str, str]:
        """Returns a digest of weights and predictions of every finished model by key."""
        digests = {}
        for key, folders in self.models().items():
            try:
                digests[key] = _digest(Path(folders[-1]))
            except (OSError, ValueError, RuntimeError) as error:
                digests[key] = f"unreadable: {error}"
        return digests

    def faults(self, reference: Mapping[str, str]) -> list[str]:
        """Returns what is not as it should be after a command that ended well.

        Args:
            reference: `digests` of the same command where nothing happened.
        """
        faults = []
        models = self.models()
        if doubled := [key for key, folders in models.items() if len(folders) > 1]:
            faults.append(f"{len(doubled)} models twice")
        digests = self.digests()
        if missing := reference.keys() - digests.keys():
            faults.append(f"{len(missing)} models missing")
        if other := [key for key in reference.keys() & digests if digests[key] != reference[key]]:
            faults.append(f"{len(other)} models with other numbers")
        if running := self.rows("SELECT run_uuid FROM runs WHERE status = 'RUNNING'"):
            faults.append(f"{len(running)} runs left RUNNING")
        if self.rows("PRAGMA integrity_check") not in ([], [("ok",)]):
            faults.append("the store is damaged")
        if left := list(self.leftovers()):
            faults.append(f"{len(left)} files left over, such as {left[0].name}")
        return faults

    def leftovers(self) -> Iterator[Path]:
        """Yields temporary files that nobody needs."""
        for path in (self.folder / "tmp").iterdir():
            if not path.name.startswith("torchinductor"):  # a cache of torch's, made by importing
                yield path
        for path in self.home.rglob("*"):
            if path.is_file() and path.name.startswith(".") and path.suffix != ".lock":
                yield path


class Attempt:
    """A command that runs."""

    def __init__(self, process_id: int, paths: Sequence[Path], started: float) -> None:
        self.process_id = process_id
        self._paths = paths
        self._started = started

    def workers(self) -> list[int]:
        """Returns the processes that train on the command's behalf."""
        parents = dict(_session(self.process_id))
        return [p for p, parent in parents.items() if parents.get(parent) == self.process_id]

    def signal(self, number: int, whom: str = "both") -> None:
        """Sends a signal to the command (`parent`), to one of its workers (`worker`) or to all."""
        if whom == "worker":
            for worker in self.workers()[:1]:
                _send(worker, number)
        elif whom == "parent":
            _send(self.process_id, number)
        else:
            with suppress(ProcessLookupError):
                os.killpg(self.process_id, number)

    def ended(self) -> bool:
        """Whether the command itself is over; it is not waited for."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process_id, flags) is not None

    def sleep(self, seconds: float) -> None:
        """Waits, or until the command is over."""
        until = self._started + seconds
        while time.monotonic() < until and not self.ended():
            time.sleep(0.005)

    def wait(self) -> Ended:
        """Waits for the command, and for the processes that it started."""
        _, status = os.waitpid(self.process_id, 0)
        seconds = time.monotonic() - self._started
        patience = time.monotonic() + 30
        while _session(self.process_id) and time.monotonic() < patience:
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(self.process_id, signal.SIGKILL)
        out, err, events = (
            path.read_text(errors="replace") if path.exists() else "" for path in self._paths
        )
        return Ended(os.waitstatus_to_exitcode(status), out, err, seconds, int(events or 0))


def _send(process_id: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process_id, number)


def _session(process_id: int) -> list[tuple[int, int]]:
    """Returns the living processes of a session that this one leads, each with its parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent, _, session = path.read_text().rpartition(") ")[2].split()[:4]
            if int(session) == process_id and state != "Z":
                found.append((int(path.parent.name), int(parent)))
    return found


def _become_the_command(
    place: Place,
    words: Sequence[str],
    paths: Sequence[Path],
    kill_at_event: int,
    prepare: Callable[[], Any],
) -> None:
    """Turns this process into the command; it does not return."""
    code = 70
    try:
        os.setsid()
        os.environ.update(place.environment())
        os.chdir(place.folder)
        for descriptor, path in zip((1, 2), paths, strict=False):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        # Buffers of text that the parent had not written yet are its own.
        sys.stdout, sys.stderr = (open(fd, "w", closefd=False) for fd in (1, 2))  # noqa: SIM115
        torch.set_num_threads(1)
        from kdplatform import cli
        from kdplatform.experiments import steps

        # A checkpoint after every epoch: there are moments between them to be killed at.
        steps._CHECKPOINT_SECONDS = 0.0
        counter = _EventCounter(place.folder, kill_at_event)
        sys.addaudithook(counter)
        sqlalchemy.event.listen(sqlalchemy.Engine, "connect", counter.watch)
        prepare()
        code = cli.main(list(words))
        paths[2].write_text(str(counter.events))
        sys.stdout.flush()
        sys.stderr.flush()
        # Ends its servers and pools as an interpreter does that comes to its end.
        sys.exit(code)
    except SystemExit:
        import atexit
        from multiprocessing.util import _exit_function

        _exit_function()
        atexit._run_exitfuncs()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


class _EventCounter:
    """Counts changes of files below a folder, and kills the process group at one of them."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self._folder = str(folder)
        self._kill_at = kill_at
        self.events = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & WRITES:
                self._count(path)
        elif event in CHANGES:
            self._count(arguments[0])

    def watch(self, connection: Any, _: object) -> None:
        """Counts the statements of a connection to SQLite, whose library writes by itself."""
        connection.set_trace_callback(self._statement)

    def _count(self, path: object) -> None:
        if isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self._folder):
            self._event()

    def _statement(self, statement: str) -> None:
        if statement.startswith(STATEMENTS):
            self._event()

    def _event(self) -> None:
        self.events += 1
        if self.events == self._kill_at:
            os.killpg(0, signal.SIGKILL)


def _digest(folder: Path) -> str:
    """Returns a digest of a model's weights and predictions, not of how files hold them."""
    digest = hashlib.sha256()
    for name in ("test", "val"):
        table = pd.read_parquet(folder / "predictions" / f"{name}.parquet")
        digest.update(json.dumps(table.astype(str).to_dict("list")).encode())
    for name, tensor in torch.load(folder / "weights.pt", weights_only=True).items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def write_table(path: Path) -> None:
    """Writes a small table of two classes and two groups."""
    import random

    draw = random.Random(0)
    lines = ["x,y,group,label"]
    for _ in range(400):
        label, group = draw.randrange(2), draw.choice("ab")
        x, y = draw.gauss(label, 0.8 if group == "a" else 1.2), draw.gauss(-label, 1)
        lines.append(f"{x:.4f},{y:.4f},{group},{'yes' if label else 'no'}")
    path.write_text("\n".join(lines) + "\n")


def limited(kind: int, most: int) -> Callable[[], None]:
    """Returns what sets a limit of the process that calls it."""

    def limit() -> None:
        resource.setrlimit(kind, (most, resource.getrlimit(kind)[1]))

    return limit
