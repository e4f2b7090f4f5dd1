"""The site builds without a warning, asks nothing of other machines, and its tutorial works."""

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kdplatform import cli
from kdplatform.methods import method_names
from kdplatform.settings.fields import describe_fields
from kdplatform.settings.project import load_project

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
_RUN = re.compile(r"<!-- run -->\n```bash\n(.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    variables = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_no_page_asks_anything_of_another_machine(site: Path) -> None:
    loads = re.compile(
        r'<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)="(https?:)?//[^"]*"'
    )
    links = re.compile(r'<link\b[^>]*rel="(?:canonical|next|prev)"')
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        found = [m[0] for m in loads.finditer(page.read_text()) if not links.match(m[0])]
        assert found == [], page


def test_every_field_is_in_the_reference(site: Path) -> None:
    page = (site / "reference/configuration/index.html").read_text()
    for field in describe_fields(load_project("trifeature")):
        name = re.sub(r"^(teacher|student)\.", "student.", field.name)
        if not name.startswith("student.method"):
            assert f"<code>{name}</code>" in page, name
    for name in method_names():
        assert f"Method <code>{name}</code>" in page


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "reference/commands/index.html").read_text()
    for name in cli.commands.commands:
        assert f"<code>kdplatform {name}</code>" in page


def test_every_page_of_the_folder_is_in_the_navigation() -> None:
    content = yaml.safe_load((ROOT / "mkdocs.yml").read_text())

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        parts = entry.values() if isinstance(entry, dict) else entry
        return [page for part in parts for page in pages(part)]  # type: ignore[attr-defined]

    known = set(pages(content["nav"]))
    assert {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} <= known


def test_the_picture_is_that_of_the_imports() -> None:
    import architecture
    from import_graph import FLOORS

    assert set(architecture.ROOMS) == {room for rooms in FLOORS for room in rooms}
    drawn = (DOCS / "images/architecture.svg").read_text()
    [about] = re.findall(r"<dc:description>(.*?)</dc:description>", drawn)
    arrows = {tuple(arrow.split(" -> ")) for arrow in html.unescape(about).split("; ")}
    assert arrows == architecture.arrows()
    for own, target in arrows:
        assert architecture.ROOMS[own][2] > architecture.ROOMS[target][2]


def test_the_notebook_finds_who_got_worse(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    notebook = nbformat.read(DOCS / "audit.ipynb", 4)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=place).execute()
    shown = [cell.outputs[0]["data"]["text/plain"] for cell in notebook.cells if "outputs" in cell]
    assert "sex f got worse: 94.9 to 84.9%" in shown[1]
    assert (tmp_path / "audit.html").exists()


@pytest.fixture(scope="module")
def tutorial() -> list[str]:
    return _RUN.findall((DOCS / "tutorial.md").read_text())


def test_every_command_of_the_tutorial_works(tutorial: list[str], tmp_path: Path) -> None:
    assert len(tutorial) >= 4
    variables = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
    variables["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{variables['PATH']}"
    for command in tutorial:
        if re.match(r"kdplatform (distill|sweep|report) ", command):
            # The same command in a tenth of the time.
            command = f"{command.rstrip()} --teacher.epochs 1 --student.epochs 1"
        done = subprocess.run(
            ["bash", "-ec", command], cwd=tmp_path, env=variables, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
    assert (tmp_path / "report/report.html").exists()
