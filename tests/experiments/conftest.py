"""A small study in a place of its own: tracking store, artifacts and data folder below one folder.

What takes seconds is done once per session and copied: the empty database, and a study that the
real `mlflow run` has trained.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.entities import Run

from kdplatform import cli
from kdplatform.experiments import logged_models, records

ROOT = Path(__file__).resolve().parent.parent.parent

PROJECT = """\
name: small
dataset:
  {name: trifeature, image_size: 16, values_per_feature: 3, versions_train: 4, versions_test: 2}
teacher:
  {model: lenet5, epochs: 3, batch_size: 32, optimizer: adamw, learning_rate: 3.0e-3}
student:
  {model: lenet5, epochs: 2, batch_size: 32, optimizer: adamw, learning_rate: 2.0e-3}
distillation: {temperature: 4, alpha: 0.8}
temperatures: 1-4
seeds: 0
attributes: color
"""


@dataclass(frozen=True)
class Place:
    """One folder with all that a command reads and writes."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def project(self) -> str:
        return str(self.folder / "small.yaml")

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri)

    def variables(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "KDPLATFORM_HOME": str(self.home),
            # Compiling the loss takes longer than all of this; it has tests of its own.
            "KDPLATFORM_KERNELS": "off",
            "OMP_NUM_THREADS": "1",
        }

    def enter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in self.variables().items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(self.folder)

    def run(self, command: str, **parameters: object) -> int:
        """Runs a command in this process; it must be entered. `__` in a name stands for a dot."""
        words = [f"--{name.replace('__', '.')}={value}" for name, value in parameters.items()]
        return cli.main([command, "--project", self.project, *words])

    def spawn(self, code: str) -> subprocess.Popen[str]:
        """Starts Python code in a process of its own; `main` and the project are at hand."""
        prologue = f"import os, signal, sys, time\nproject = {self.project!r}\n"
        return subprocess.Popen(
            [sys.executable, "-c", prologue + code],
            cwd=self.folder,
            env={**os.environ, **self.variables()},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def runs(self, role: str | None = None, status: str | None = None) -> list[Run]:
        """Returns the models' runs, oldest first; superseded ones too."""
        found = self.client.search_runs(["0"], order_by=["attributes.start_time ASC"])
        return [
            run
            for run in found
            if "kd.role" in run.data.tags
            and role in (None, run.data.tags["kd.role"])
            and status in (None, run.info.status)
        ]

    def commands(self) -> list[Run]:
        """Returns the commands' runs, oldest first."""
        found = self.client.search_runs(["0"], order_by=["attributes.start_time ASC"])
        return [run for run in found if "kd.role" not in run.data.tags]

    def artifact(self, run: Run, path: str) -> Path:
        return Path(run.info.artifact_uri.removeprefix("file://")) / path

    def predictions(self, run: Run, split: str = "test") -> pd.DataFrame:
        return pd.read_parquet(self.artifact(run, f"predictions/{split}.parquet"))


def copied(source: Place, folder: Path) -> Place:
    """Copies a place whole; the copy's artifacts are its own."""
    shutil.copytree(source.folder, folder, dirs_exist_ok=True)
    columns = {
        "experiments": "artifact_location",
        "runs": "artifact_uri",
        "logged_models": "artifact_location",
    }
    with closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        for table, column in columns.items():
            database.execute(
                f"UPDATE {table} SET {column} = REPLACE({column}, ?, ?)",
                (str(source.folder), str(folder)),
            )
    return Place(folder)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Runs are compared bit for bit, also with those of other processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Finished:
    """What a process that ended has left."""

    place: Place
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def making_of_the_store(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Place, list[Finished]]:
    """A place whose store two processes began to make at once, and how they ended."""
    place = Place(tmp_path_factory.mktemp("empty"))
    (place.folder / "small.yaml").write_text(PROJECT)
    code = "from kdplatform.experiments.tracking import prepare_store\nprepare_store()\n"
    processes = [place.spawn(code) for _ in range(2)]
    said = [process.communicate() for process in processes]
    return place, [
        Finished(place, process.returncode, *texts)
        for process, texts in zip(processes, said, strict=True)
    ]


@pytest.fixture(scope="session")
def empty_place(making_of_the_store: tuple[Place, list[Finished]]) -> Place:
    return making_of_the_store[0]


@pytest.fixture(scope="session")
def first_command(empty_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The study trained by the real `mlflow run`, in processes of its own."""
    place = copied(empty_place, tmp_path_factory.mktemp("first"))
    parameters = {
        "project": place.project,
        "temperature": "10.0",
        "alpha": "0.50",
        "student.epochs": "4",
    }
    words = [sys.executable, "-m", "mlflow", "run", ".", "-e", "distill", "--env-manager", "local"]
    words += [w for name, value in parameters.items() for w in ("-P", f"{name}={value}")]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = subprocess.run(
        words,
        cwd=ROOT,
        env={**os.environ, **place.variables(), "PATH": path},
        capture_output=True,
        text=True,
    )
    return Finished(place, result.returncode, result.stdout, result.stderr)


# As the first command was given.
AS_BEFORE = {"temperature": "10", "alpha": "0.5", "student__epochs": "4"}


@pytest.fixture
def as_before() -> dict[str, str]:
    return dict(AS_BEFORE)


@pytest.fixture
def new_place(empty_place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A place where nothing was trained, entered."""
    place = copied(empty_place, tmp_path)
    place.enter(monkeypatch)
    return place


@pytest.fixture
def trained_place(
    first_command: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """A copy of the place where the first command was run, entered."""
    place = copied(first_command.place, tmp_path)
    place.enter(monkeypatch)
    return place


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out figures and the model as a graph, which take most of a small run's time."""
    nothing: Callable[..., None] = lambda *arguments: None  # noqa: E731
    monkeypatch.setattr(logged_models, "log_model", nothing)
    monkeypatch.setattr(records, "log_figures", nothing)
