"""A study that the real `mlflow run` has trained; tests work on copies of it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.place import Finished, Place, copied, made_once, spare_figures_and_graphs

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Runs are compared bit for bit, also with those of other processes."""


@pytest.fixture(scope="session")
def first_command(empty_place: Place, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The study trained by the real `mlflow run`, in processes of its own."""
    return made_once(tmp_path_factory, "first", lambda folder: _distilled(empty_place, folder))


def _distilled(empty_place: Place, folder: Path) -> Finished:
    place = copied(empty_place, folder)
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
def trained_place(
    first_command: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """A copy of the place where the first command was run, entered."""
    place = copied(first_command.place, tmp_path)
    place.enter(monkeypatch)
    return place


@pytest.fixture
def spared(monkeypatch: pytest.MonkeyPatch) -> None:
    spare_figures_and_graphs(monkeypatch)
