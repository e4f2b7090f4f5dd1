"""The package as a wheel: installed in an environment of its own, away from the repository."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from kdplatform import shipped, starter
from kdplatform.doctor import older_than_required
from kdplatform.files import home_folder

ROOT = Path(__file__).resolve().parents[1]


def built(source: Path, folder: Path, target: str) -> Path:
    words = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)]
    subprocess.run(words, cwd=source, check=True, capture_output=True)
    [found] = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(ROOT, tmp_path_factory.mktemp("wheel"), "wheel")


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a fresh environment, with the packages of this one beside it; its `bin`."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    # Behind the environment's own packages, so that the wheel is found first.
    (site / "beside.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = folder / "bin" / "python"
    words = ["-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return folder / "bin"


def run(environment: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    variables["PATH"] = f"{environment}{os.pathsep}{variables['PATH']}"
    variables.setdefault("KDPLATFORM_HOME", str(home_folder()))
    return subprocess.run(
        [str(environment / words[0]), *words[1:]],
        cwd=folder,
        env=variables,
        capture_output=True,
        text=True,
    )


def test_a_wheel_has_sources_projects_and_templates(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ("csrc", "projects"):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file()]
        assert files
        assert {f"kdplatform/{path.relative_to(ROOT)}" for path in files} <= names
    others = [p for p in (ROOT / "kdplatform").rglob("*") if p.is_file() and p.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT)) for path in others} <= names
    assert not [name for name in names if name.startswith(("tests", "docs", "benchmarks"))]


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    archive = built(ROOT, tmp_path / "sdist", "sdist")
    with tarfile.open(archive) as files:
        files.extractall(tmp_path / "unpacked", filter="data")
    [source] = (tmp_path / "unpacked").iterdir()
    again = built(source, tmp_path / "again", "wheel")
    assert again.name == wheel.name
    first, second = (
        {name: archive.read(name) for name in archive.namelist()}
        for archive in map(zipfile.ZipFile, (wheel, again))
    )
    assert first == second


def test_an_empty_folder_is_made_a_project_and_distils(environment: Path, tmp_path: Path) -> None:
    made = run(environment, tmp_path, "kdplatform", "init", ".", "--name", "mine")
    assert made.returncode == 0, made.stderr
    files = ["MLproject", "python_env.yaml", "mine.yaml"]
    assert made.stdout.splitlines() == [f"written: {name}" for name in files]
    words = ["run", ".", "-e", "distill", "--env-manager", "local"]
    settings = ["teacher.epochs=1", "student.epochs=1"]
    words += [word for setting in settings for word in ("-P", setting)]
    script = environment / "mlflow"
    script.write_text(f"#!{environment / 'python'}\nfrom mlflow.cli import cli\ncli()\n")
    script.chmod(0o755)
    done = run(environment, tmp_path, "mlflow", *words)
    assert done.returncode == 0, done.stderr
    assert "digits: train 1,077" in done.stderr
    assert re.search(r"^DS +\d+\.\d\d ", done.stdout, re.MULTILINE)
    again = run(environment, tmp_path, "kdplatform", "init", ".", "--name", "mine")
    assert (again.returncode, again.stdout) == (2, "")
    assert again.stderr == (
        "kdplatform: 'MLproject' is there already; allowed: a folder without it\n"
    )


def test_it_knows_its_version_projects_and_kernels(environment: Path, tmp_path: Path) -> None:
    code = (
        "import kdplatform\n"
        "from kdplatform.settings.project import project_names\n"
        "from kdplatform.kernels.toolchain import source_files, build_key\n"
        "from kdplatform.starter import requirement\n"
        "print(kdplatform.__file__, kdplatform.__version__, len(project_names()), sep='\\n')\n"
        "print(len(source_files()), build_key(()), requirement(), sep='\\n')\n"
    )
    done = run(environment, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    file, version, projects, sources, key, requirement = done.stdout.splitlines()
    assert Path(file).is_relative_to(environment.parent)
    from kdplatform.kernels.toolchain import build_key, source_files

    assert int(projects) == len(list((ROOT / "projects").glob("*.yaml")))
    assert int(sources) == len(source_files())
    assert key == build_key(())
    assert requirement.startswith("kdplatform @ file:///")
    said = run(environment, tmp_path, "kdplatform", "--version")
    assert said.stdout == f"kdplatform {version}\n"


def test_sources_that_are_not_the_wheels_serve_nothing(environment: Path, tmp_path: Path) -> None:
    [source] = environment.parent.rglob("csrc/half.h")
    content = source.read_text()
    source.write_text(content + "// another version\n")
    try:
        done = run(environment, tmp_path, "kdplatform", "kernels", "build")
    finally:
        source.write_text(content)
    assert done.returncode == 1
    assert done.stderr == (
        f"kdplatform: 1 of the sources in {source.parent} are not those that were installed "
        "(half.h); install the package anew\n"
    )


def test_operators_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from kdplatform.kernels import interface
    from kdplatform.kernels.build import ensure_built

    if ensure_built().library is None:
        pytest.skip("no kernels here")
    interface.check_operators()
    monkeypatch.setitem(interface._SCHEMAS, "kd_loss_backward", "(Tensor gradient) -> Tensor")
    with pytest.raises(ImportError, match=r"do not belong .* \(operator kd_loss_backward is an"):
        interface.check_operators()


def test_a_clone_may_change_its_sources() -> None:
    assert shipped.changed_since_installed(shipped.shipped("csrc")) == ()


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (None, "kdplatform==1.2"),
        ('{"url": "file:///w/k.whl", "archive_info": {}}', "kdplatform @ file:///w/k.whl"),
        (
            '{"url": "https://host/k", "vcs_info": {"vcs": "git", "commit_id": "ab12"}}',
            "kdplatform @ git+https://host/k@ab12",
        ),
    ],
)
def test_an_environment_installs_the_package_from_where_it_came(
    record: str | None, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = SimpleNamespace(version="1.2", read_text=lambda name: record)
    monkeypatch.setattr(starter, "distribution", lambda name: own)
    assert starter.requirement() == wanted


def test_doctor_names_what_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    assert older_than_required() == []
    from kdplatform import doctor

    versions = {"torch": "2.9.1", "ninja": "not installed"}
    known = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name) or known(name))
    lines = older_than_required()
    assert len(lines) == 2
    assert "ninja not installed; allowed: >=1.11" in lines
    assert "torch 2.9.1; allowed: >=2.10" in lines
