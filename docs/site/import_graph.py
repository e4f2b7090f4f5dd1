"""Which modules of the package import which, and the floors that they stand on."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# From the ground up; what stands in none of these rooms may be imported by all.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("settings.schema",),
    ("settings.words",),
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


def room(module: str) -> str | None:
    """Returns the room that a module is in; None where it belongs to none."""
    own = module.removeprefix("kdplatform.")
    known = {name for rooms in FLOORS for name in rooms}
    parts = own.split(".")
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((name for name in names if name in known), None)


def floor(module: str) -> int | None:
    """Returns on which floor a module stands; None where it belongs to no room."""
    own = room(module)
    return next((height for height, rooms in enumerate(FLOORS) if own in rooms), None)
