"""Makes a folder in which `mlflow run .` works without a clone of the repository."""

import json
import re
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import yaml

from kdplatform.errors import MachineError, UserError, unknown_name
from kdplatform.files import user_path
from kdplatform.settings.project import PROJECTS_FOLDER, project_names
from kdplatform.shipped import shipped

_NAME, _DEFAULT_PROJECT = "name: kdplatform", "default: trifeature"


def write_starter(folder: str, project: str, name: str | None = None) -> list[Path]:
    """Writes MLproject, python_env.yaml and a project file, and returns their paths.

    MLproject is the platform's, with the project file as the project of every entry point.

    Args:
        project: a shipped project, which the project file copies.
        name: of the project and its file; None: that of `project`.

    Raises:
        UserError: there is no such project, the name is no file name, or a file exists already.
        MachineError: the folder cannot be written.
    """
    known = project_names()
    if project not in known:
        raise unknown_name("project", project, known)
    name = name or project
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"name={name!r} is not allowed; allowed: letters, digits, _, - and .")
    text = (PROJECTS_FOLDER / f"{project}.yaml").read_text(encoding="utf-8")
    text = text.replace(f"project={project} ", f"project={name}.yaml ")
    text = re.sub(rf"(?m)^name: {re.escape(project)}$", f"name: {name}", text)
    mlproject = shipped("MLproject").read_text(encoding="utf-8")
    mlproject = mlproject.replace(_NAME, f"name: {name}", 1)
    files = {
        "MLproject": mlproject.replace(_DEFAULT_PROJECT, f"default: {name}.yaml"),
        "python_env.yaml": _environment(),
        f"{name}.yaml": text,
    }
    root = user_path("folder", folder)
    if there := [file for file in files if (root / file).exists()]:
        raise UserError(f"{str(root / there[0])!r} is there already; allowed: a folder without it")
    try:
        root.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            (root / file).write_text(content, encoding="utf-8")
    except OSError as error:
        raise MachineError(f"folder={folder!r} cannot be written ({error.strerror})") from None
    return [root / file for file in files]


def _environment() -> str:
    """Returns the platform's python_env.yaml, with the platform itself among the dependencies."""
    content = yaml.safe_load(shipped("python_env.yaml").read_text(encoding="utf-8"))
    content["dependencies"] = [requirement()]
    head = "# The environment that `mlflow run .` makes: the platform as it is installed here.\n"
    return head + yaml.safe_dump(content, sort_keys=False)


def requirement() -> str:
    """Returns the requirement that makes pip install this same package again.

    pip records the wheel, folder or repository that it installs from (PEP 610). Without a record
    the package came from a package index.
    """
    try:
        own = distribution("kdplatform")
    except PackageNotFoundError:
        return str(shipped("pyproject.toml").parent)
    record = json.loads(own.read_text("direct_url.json") or "{}")
    url = record.get("url")
    if not url:
        return f"kdplatform=={own.version}"
    if commit := record.get("vcs_info", {}).get("commit_id"):
        return f"kdplatform @ {record['vcs_info']['vcs']}+{url}@{commit}"
    return f"kdplatform @ {url}"
