"""Imports go one way: no circle anywhere, and rooms import only what stands below them."""

from pathlib import Path

import pytest
from import_graph import GRAPH, MODULES, floor, imported


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
    schema = "kdplatform.settings.schema"
    own = {name for name in GRAPH if name == schema or name.startswith(f"{schema}.")}
    assert len(own) > 1
    assert set().union(*(GRAPH[name] for name in own)) <= own


@pytest.mark.parametrize("name", [name for name in MODULES if floor(name) is not None])
def test_arrows_go_down(name: str) -> None:
    height = floor(name) or 0
    upwards = {target for target in GRAPH[name] if (floor(target) or 0) > height}
    assert upwards == set()
