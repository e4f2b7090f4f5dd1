"""MLproject, python_env.yaml and the projects say the same as the program."""

import importlib
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdplatform.arguments import ENTRY_POINTS, WITHOUT_PROJECT, Parameter
from kdplatform.settings.project import load_project, project_names

ROOT = Path(__file__).resolve().parent.parent
MLPROJECT: dict[str, Any] = yaml.safe_load((ROOT / "MLproject").read_text())
DECLARED: dict[str, Any] = MLPROJECT["entry_points"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PYTHON_ENV = yaml.safe_load((ROOT / "python_env.yaml").read_text())


def command_of(entry_point: str) -> str:
    return "distill" if entry_point == "main" else entry_point


def parameters_of(entry_point: str) -> tuple[Parameter, ...]:
    return {**ENTRY_POINTS, **WITHOUT_PROJECT}[command_of(entry_point)]


def test_mlproject_has_every_command_and_main() -> None:
    assert set(DECLARED) == {"main", *ENTRY_POINTS, *WITHOUT_PROJECT}


def test_main_is_distill() -> None:
    assert DECLARED["main"] == DECLARED["distill"]


@pytest.mark.parametrize("entry_point", DECLARED)
def test_names_and_defaults_are_those_of_the_command(entry_point: str) -> None:
    declared = {name: p["default"] for name, p in DECLARED[entry_point]["parameters"].items()}
    assert declared == {p.name: p.default for p in parameters_of(entry_point)}


@pytest.mark.parametrize("entry_point", DECLARED)
def test_defaults_are_text_that_mlflow_hands_on_unchanged(entry_point: str) -> None:
    for parameter in DECLARED[entry_point]["parameters"].values():
        assert parameter["type"] == "string"
        assert isinstance(parameter["default"], str)


@pytest.mark.parametrize("entry_point", DECLARED)
def test_the_command_line_hands_every_parameter_to_the_working_tree(entry_point: str) -> None:
    words = shlex.split(DECLARED[entry_point]["command"])
    assert words[:4] == ["python", "-m", "kdplatform", command_of(entry_point)]
    handed = dict(zip(words[4::2], words[5::2], strict=True))
    assert handed == {f"--{p.name}": f"{{{p.name}}}" for p in parameters_of(entry_point)}


def test_mlproject_names_the_environment() -> None:
    assert MLPROJECT["python_env"] == "python_env.yaml"


def test_the_environment_has_exactly_the_dependencies_of_the_package() -> None:
    assert PYTHON_ENV["dependencies"] == PYPROJECT["project"]["dependencies"]


def test_the_environment_needs_nothing_to_build() -> None:
    # MLflow installs the dependencies, not the package: it builds nothing.
    assert PYTHON_ENV["build_dependencies"] == ["pip"]


def test_the_environments_python_is_a_full_version_that_the_package_allows() -> None:
    found = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", PYTHON_ENV["python"])
    lowest = re.fullmatch(r">=(\d+)\.(\d+)", PYPROJECT["project"]["requires-python"])
    assert found
    assert lowest
    assert tuple(map(int, found.groups()[:2])) >= tuple(map(int, lowest.groups()))


@pytest.mark.parametrize("name", project_names())
def test_a_project_loads_and_is_named_as_its_file(name: str) -> None:
    assert load_project(name).name == name


@pytest.mark.parametrize("name", project_names())
def test_a_project_opens_with_the_command_that_runs_it(name: str) -> None:
    first = (ROOT / "projects" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# mlflow run . -e ")
    assert f"-P project={name}" in first


@pytest.mark.parametrize("name", project_names())
def test_a_projects_distillation_is_one_of_its_temperatures(name: str) -> None:
    config = load_project(name)
    temperature = config.distillation.softmax_temperature
    assert temperature is None or temperature in config.temperatures


@pytest.mark.parametrize(
    "path", sorted((ROOT / "benchmarks").glob("[!_]*.py")), ids=lambda path: path.stem
)
def test_every_benchmark_can_be_imported(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    importlib.import_module(f"benchmarks.{path.stem}")


def test_the_overhead_benchmark_times_functions_that_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    for module, path in importlib.import_module("benchmarks.overhead").PARTS:
        timed: Any = importlib.import_module(module)
        for name in path.split("."):
            timed = getattr(timed, name)
        assert callable(timed), (module, path)
