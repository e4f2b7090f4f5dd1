"""Imports go one way: no circle anywhere, and rooms import only what stands below them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# From the ground up; what stands in none of these rooms may be imported by all.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("settings.schema", "settings.words"),
    ("kernels", "data", "models", "methods"),
    ("settings",),
    ("training",),
    ("predictions",),
    ("analysis",),
    ("study",),
    ("reporting",),
    ("experiments",),
    ("tuning",),
    ("cli",),
)


def modules() -> dict[str, Path]:
    """Returns the package's files by the names of their modules."""
    found = {}
    for path in sorted((ROOT / "kdplatform").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(name: str, path: Path) -> Iterator[str]:
    """Yields the package's modules that a file imports anywhere in its text."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join(
                [*(above if node.level else []), *([node.module] if node.module else [])]
            )
            for alias in node.names:
                target = f"{base}.{alias.name}"
                if target in MODULES or base in MODULES:
                    yield target if target in MODULES else base


GRAPH = {name: set(imported(name, path)) - {name} for name, path in MODULES.items()}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Returns the groups of modules of which each is reached from each (Tarjan 1972)."""
    index: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = lowest[module] = len(index)
        stack.append(module)
        for target in sorted(graph[module]):
            if target not in index:
                visit(target)
            if target in stack:
                lowest[module] = min(lowest[module], lowest[target])
        if lowest[module] == index[module]:
            at = stack.index(module)
            group, stack[at:] = stack[at:], []
            if len(group) > 1:
                found.append(sorted(group))

    for module in graph:
        if module not in index:
            visit(module)
    return found


def floor(module: str) -> int | None:
    """Returns on which floor a module stands; None where it belongs to no room."""
    own = module.removeprefix("kdplatform.")
    for room in (own, own.partition(".")[0]):
        for height, rooms in enumerate(FLOORS):
            if room in rooms:
                return height
    return None


def test_circles_are_found_where_there_are_some() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"a"}}
    assert circles(graph) == [["b", "c"]]


def test_imports_in_functions_and_for_types_alone_count(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from kdplatform.data import Split\n"
        "def late():\n    from kdplatform import files\n    from .roles import Role\n"
    )
    found = set(imported("kdplatform.file", path))
    assert found == {"kdplatform.data", "kdplatform.files", "kdplatform.roles"}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles(GRAPH) == []


def test_the_schema_stands_on_the_ground() -> None:
    assert GRAPH["kdplatform.settings.schema"] == set()


@pytest.mark.parametrize("name", [name for name in MODULES if floor(name) is not None])
def test_arrows_go_down(name: str) -> None:
    height = floor(name) or 0
    upwards = {target for target in GRAPH[name] if (floor(target) or 0) > height}
    assert upwards == set()
