"""A small study in a place of its own: tracking store, artifacts and data folder below one folder.

What takes seconds is done once for all processes of the tests, and copied.
"""

import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pandas as pd
import pytest
from filelock import FileLock

from kdplatform import cli

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

T = TypeVar("T")

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
min_group_size: 1
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
    def client(self) -> "MlflowClient":
        from mlflow import MlflowClient  # slow to load, and most tests need no store

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

    def runs(self, role: str | None = None, status: str | None = None) -> "list[Run]":
        """Returns the models' runs, oldest first; superseded ones too."""
        return [
            run
            for run in self._all_runs()
            if "kd.role" in run.data.tags
            and role in (None, run.data.tags["kd.role"])
            and status in (None, run.info.status)
        ]

    def commands(self) -> "list[Run]":
        """Returns the commands' runs, oldest first."""
        return [run for run in self._all_runs() if "kd.role" not in run.data.tags]

    def _all_runs(self) -> "list[Run]":
        client = self.client
        experiments = [each.experiment_id for each in client.search_experiments()]
        found = client.search_runs(experiments, order_by=["attributes.start_time ASC"])
        return list(found)

    def artifact(self, run: "Run", path: str) -> Path:
        return Path(run.info.artifact_uri.removeprefix("file://")) / path

    def predictions(self, run: "Run", split: str = "test") -> pd.DataFrame:
        return pd.read_parquet(self.artifact(run, f"predictions/{split}.parquet"))


def spare_figures_and_graphs(patch: pytest.MonkeyPatch) -> None:
    """Leaves out figures and the model as a graph, which take most of a small run's time."""
    from kdplatform.experiments import logged_models, records

    patch.setattr(logged_models, "log_model", lambda *arguments: None)
    patch.setattr(records, "log_figures", lambda *arguments: None)


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


@dataclass(frozen=True)
class Finished:
    """What a process that ended has left."""

    place: Place
    code: int
    out: str
    err: str


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], T]) -> T:
    """Returns what `make` leaves in a folder and says of it; one of the test processes makes it.

    Args:
        make: is given the folder, which is empty; what it returns is pickled for the others.
    """
    base = factory.getbasetemp()
    # Processes of pytest-xdist have folders of their own below one that they share.
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    said = folder.with_suffix(".pickle")
    with FileLock(folder.with_suffix(".lock")):
        if not said.exists():
            folder.mkdir()
            said.write_bytes(pickle.dumps(make(folder)))
        result: T = pickle.loads(said.read_bytes())
    return result


def made_store(folder: Path) -> tuple[Place, list[Finished]]:
    """Has two processes make the store of a place at once; returns the place and their ends."""
    place = Place(folder)
    (folder / "small.yaml").write_text(PROJECT)
    code = "from kdplatform.experiments.tracking import prepare_store\nprepare_store()\n"
    processes = [place.spawn(code) for _ in range(2)]
    said = [process.communicate() for process in processes]
    return place, [
        Finished(place, process.returncode, *texts)
        for process, texts in zip(processes, said, strict=True)
    ]
