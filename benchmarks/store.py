"""Measures commands on a tracking store that holds many finished runs.

    python -m benchmarks.store --runs 10000 --out store.json
    python -m benchmarks.store --runs 500 --stores sqlite    # a quick look

A study of 75 models on a table of 400 rows is trained by the command itself. Its runs are then
copied in the database under other keys, until the store has as many as asked for. All copies are
of the same project. What is measured then: finding the 75 models of the study, `distill` whose
models are all there, and `report`.

Each figure is given in seconds, and in seconds of processor time: of the command, and of the server
with its database. Other work on the machine changes the second little. Where nothing runs side by
side and nothing else runs, the first is hardly more than the second.

Stores: a SQLite file, and an MLflow server in front of PostgreSQL. Both are started here; Debian's
package postgresql and psycopg are needed. The report of a SQLite file that has the 75 runs alone is
what the others are held against.
"""

import argparse
import json
import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import sqlalchemy

from benchmarks._attempts import Place

TEMPERATURES = "1-10,20,30,40"
STUDY = ["--temperatures", TEMPERATURES, "--seeds", "0-4"]
# In seconds; of the report, beyond that of local files without other runs.
TARGETS = {"finding": 3.0, "distill": 15.0, "report": 20.0}
# What belongs to a run, a row each, and the column that says to which.
TABLES = {
    **dict.fromkeys(("tags", "params", "latest_metrics", "metrics"), "run_uuid"),
    "inputs": "destination_id",
}
_BATCH = 20_000
_FINDING = """
import sys, time, mlflow
from kdplatform.cli import read_words
from kdplatform.experiments.graph import study_steps
from kdplatform.experiments.steps import find_trained
from kdplatform.experiments.tracking import quiet_mlflow
from kdplatform.experiments.workspace import open_workspace
from kdplatform.settings.project import load_project

quiet_mlflow()
arguments = read_words("sweep", sys.argv[1:])
config = load_project(arguments.project, arguments.overrides, ["temperatures", "seeds"])
workspace = open_workspace(config, arguments.data_folder, "cpu", True)
steps = study_steps(config, workspace.dataset.digest, config.temperatures)
mlflow.search_experiments()  # a first question opens the store
start, used = time.perf_counter(), time.process_time()
found = find_trained(workspace, steps)
print(len(found), len(steps), time.perf_counter() - start, time.process_time() - used)
"""


def fill(uri: str, wanted: int) -> int:
    """Copies finished models' runs under other ids and keys until there are `wanted` runs."""
    engine = sqlalchemy.create_engine(uri)
    schema = sqlalchemy.MetaData()
    schema.reflect(engine, only=["runs", *TABLES])
    runs, tags = schema.tables["runs"], schema.tables["tags"]
    with engine.begin() as connection:
        present = connection.execute(sqlalchemy.select(sqlalchemy.func.count(runs.c.run_uuid)))
        missing = max(0, wanted - present.scalar_one())
        keyed = sqlalchemy.select(tags.c.run_uuid).where(tags.c.key == "kd.key")
        models = [
            dict(row)
            for row in connection.execute(
                sqlalchemy.select(runs).where(runs.c.run_uuid.in_(keyed))
            ).mappings()
        ]
        belongings = {
            name: {
                model["run_uuid"]: [
                    dict(row)
                    for row in connection.execute(
                        sqlalchemy.select(schema.tables[name]).where(
                            schema.tables[name].c[of_run] == model["run_uuid"]
                        )
                    ).mappings()
                ]
                for model in models
            }
            for name, of_run in TABLES.items()
        }
        waiting: dict[str, list[dict[str, object]]] = {name: [] for name in ("runs", *TABLES)}

        def flush() -> None:
            for name, rows in waiting.items():
                if rows:
                    connection.execute(schema.tables[name].insert(), rows)
                rows.clear()

        for number in range(missing):
            model = models[number % len(models)]
            own = secrets.token_hex(16)
            waiting["runs"].append(model | {"run_uuid": own})
            for name, of_run in TABLES.items():
                rows = [row | {of_run: own} for row in belongings[name][model["run_uuid"]]]
                if name == "inputs":
                    rows = [row | {"input_uuid": secrets.token_hex(16)} for row in rows]
                if name == "tags":
                    for row in rows:
                        if row["key"] == "kd.key":
                            row["value"] = secrets.token_hex(16)
                waiting[name] += rows
            if sum(map(len, waiting.values())) > _BATCH:
                flush()
        flush()
    engine.dispose()
    return missing


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Starts PostgreSQL below a folder, on a port of its own; yields the database's URI."""
    [tools] = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1:]
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    data, port = folder / "postgresql", _free_port()
    data.mkdir()
    if as_user:
        for path in (folder, *folder.parents[:-1]):
            with suppress(PermissionError):
                path.chmod(path.stat().st_mode | 0o011)
        shutil.chown(data, "postgres")

    def call(*words: str) -> None:
        subprocess.run([*as_user, *words], check=True, cwd="/", stdout=subprocess.DEVNULL)

    call(str(tools / "initdb"), "-D", str(data), "-U", "mlflow", "--auth", "trust")
    options = f"-p {port} -k {data} -h 127.0.0.1"
    call(str(tools / "pg_ctl"), "-D", str(data), "-o", options, "-l", f"{data}/log", "-w", "start")
    try:
        words = ["-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow"]
        call(str(tools / "createdb"), *words)
        yield f"postgresql+psycopg://mlflow@127.0.0.1:{port}/mlflow"
    finally:
        call(str(tools / "pg_ctl"), "-D", str(data), "-m", "immediate", "stop")


@contextmanager
def server(folder: Path, database: str) -> Iterator[str]:
    """Starts an MLflow server on a database; yields its address."""
    port = _free_port()
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database]
    words += ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    with open(folder / "server.log", "wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        patience = time.monotonic() + 300
        while time.monotonic() < patience:
            with suppress(OSError), urllib.request.urlopen(f"{uri}/health", timeout=5):
                break
            time.sleep(0.5)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Seconds(NamedTuple):
    """Seconds on the clock, and of processor time."""

    clock: float
    processor: float


class Store:
    """A place whose commands write to one store.

    Args:
        service: the folder below which a server and its database run.
    """

    def __init__(self, place: Place, service: Path | None = None) -> None:
        self._place = place
        self._environment = os.environ | place.environment()
        self._service = service

    def timed(self, command: str, *more: str) -> Seconds:
        """Runs a command; returns its seconds."""
        start = self._now()
        self._run(["-m", "kdplatform", *self._place.words(command, *more)])
        return self._since(start)

    def finding(self) -> Seconds:
        """Returns the seconds that finding the study's models takes, without the imports."""
        served = self._served()
        said = self._run(["-c", _FINDING, *self._place.words("", *STUDY)])
        found, wanted, clock, processor = said.split()
        if found != wanted:
            raise SystemExit(f"{found} of {wanted} models were found")
        return Seconds(float(clock), float(processor) + self._served() - served)

    def _run(self, words: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, *words],
            env=self._environment,
            cwd=self._place.folder,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"{words[1:3]}: {done.stderr}")
        return done.stdout

    def _now(self) -> Seconds:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Seconds(time.perf_counter(), usage.ru_utime + usage.ru_stime + self._served())

    def _since(self, start: Seconds) -> Seconds:
        now = self._now()
        return Seconds(now.clock - start.clock, now.processor - start.processor)

    def _served(self) -> float:
        """Returns the processor time of the server and of its database so far."""
        if self._service is None:
            return 0.0
        total = 0.0
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                roots = [process, *process.parents()]
                if any(str(self._service) in word for own in roots for word in own.cmdline()):
                    times = process.cpu_times()
                    total += times.user + times.system
        return total

    def measured(self) -> dict[str, Seconds]:
        """Returns the seconds of everything that is measured."""
        return {
            "finding": self.finding(),
            "distill": self.timed("distill", "--seeds", "0-4"),
            "report": self.timed("report", *STUDY),
        }


def measure(kind: str, folder: Path, runs: int) -> dict[str, dict[str, Seconds]]:
    """Measures a store of one kind, with the study alone and with many runs beside it."""
    folder.mkdir()
    found = {}
    if kind == "sqlite":
        place = Place(folder / "place")
        database = f"sqlite:///{place.database}"
        store = Store(place)
        store.timed("sweep", *STUDY)
        found[f"{kind}, the study alone"] = store.measured()
        fill(database, runs)
        found[f"{kind}, {runs:,} runs"] = store.measured()
        return found
    with postgresql(folder) as database, server(folder, database) as uri:
        store = Store(Place(folder / "place", {"MLFLOW_TRACKING_URI": uri}), folder)
        store.timed("sweep", *STUDY)
        found["server on PostgreSQL, the study alone"] = store.measured()
        fill(database, runs)
        found[f"server on PostgreSQL, {runs:,} runs"] = store.measured()
    return found


def main() -> int:
    """Prints the table; returns 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--stores", default="sqlite,postgresql", help="comma-separated")
    parser.add_argument("--out", type=Path, help="write the seconds as JSON")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="store-"))
    found: dict[str, dict[str, Seconds]] = {}
    try:
        for kind in arguments.stores.split(","):
            found |= measure(kind, folder / kind, arguments.runs)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("| store | finding 75 models, s | distill reused, s | report, s |\n|---|---|---|---|")
    for name, seconds in found.items():
        print(f"| {name} | " + " | ".join(shown(seconds[part]) for part in TARGETS) + " |")
    local = next(iter(found.values()))["report"].clock
    missed = [
        f"{part} of {name}: {own[part].clock:.1f} s"
        for name, own in found.items()
        for part, most in TARGETS.items()
        if own[part].clock > most + (local if part == "report" else 0)
    ]
    print("missed: " + ("; ".join(missed) or "nothing"))
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2))
    return int(bool(missed))


def shown(seconds: Seconds) -> str:
    """Returns seconds as the table has them: on the clock, and of processor time."""
    return f"{seconds.clock:.1f} ({seconds.processor:.1f})"


if __name__ == "__main__":
    sys.exit(main())
