"""The source opens no file in a way that could run what is in it, and SECURITY.md says how."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(ROOT.glob("kdplatform/**/*.py"))
# Modules that unpickle, or run what is in a file by design.
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
# Calls by the end of their dotted name, and the argument that makes them safe; None: nothing does.
UNSAFE: dict[str, tuple[str, object] | None] = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "archive.extract": ("filter", "data"),
    "archive.extractall": ("filter", "data"),
    **dict.fromkeys(
        [
            *("export.load", "jit.load", "package.PackageImporter", "hub.load", "ops.load_library"),
            *("yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "pd.read_pickle"),
            *("pyfunc.load_model", "pytorch.load_model", "sklearn.load_model"),
            *("ctypes.CDLL", "cdll.LoadLibrary", "os.system"),
        ]
    ),
}
# Safe in this place: by its loader, because every name was looked at, and because the user has said
# that the model may run what is in it.
ALLOWED = {
    ("kdplatform/settings/yaml_files.py", "yaml.load"),
    ("kdplatform/data/_sources.py", "archive.extract"),
    ("kdplatform/experiments/foreign_models.py", "pyfunc.load_model"),
}
# Calls of libraries that open a file, which could be of foreign origin.
OPENERS = (
    *("torch.load", "np.load", "yaml.load", "json.load", "json.loads", "ZipFile", "tarfile.open"),
    *("pd.read_parquet", "pq.read_table", "pd.read_csv", "Image.open", "loadmat"),
    *("load_file", "from_file", "ExtensionFileLoader", "download_artifacts", "_download_file"),
)


def calls(source: str) -> Iterator[tuple[str, dict[str, object]]]:
    """Yields the dotted name and the constant named arguments of every call."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            named = {
                k.arg: k.value.value
                for k in node.keywords
                if k.arg and isinstance(k.value, ast.Constant)
            }
            yield ast.unparse(node.func), named


def ends_with(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def unsafe_in(source: str) -> list[str]:
    """Returns what a source text does that could run what is in a file."""
    found = [
        alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (
            node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")]
        )
        if alias.name.partition(".")[0] in FORBIDDEN
    ]
    for name, named in calls(source):
        if ends_with(name, "yaml.load"):
            found.append("yaml.load")
        if name in ("eval", "exec") or named.get("shell") is True:
            found.append(name)
        for end, safe in UNSAFE.items():
            if ends_with(name, end) and (safe is None or named.get(safe[0]) != safe[1]):
                found.append(end)
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_nothing_is_opened_that_could_run(path: Path) -> None:
    found = [name for name in unsafe_in(path.read_text()) if (relative(path), name) not in ALLOWED]
    assert not found


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.export.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "import pickle",
        "from cloudpickle import loads",
        "yaml.load(text, yaml.Loader)",
        "mlflow.pyfunc.load_model(uri)",
        "archive.extractall(folder)",
        "subprocess.run(words, shell=True)",
        "eval(text)",
    ],
)
def test_an_unsafe_opening_would_be_found(source: str) -> None:
    assert unsafe_in(source)


def test_every_file_that_opens_something_is_in_the_table() -> None:
    table = (ROOT / "SECURITY.md").read_text()
    package = ROOT / "kdplatform"
    missing = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for name, _ in calls(path.read_text())
        if any(ends_with(name, opener) for opener in OPENERS)
        and f"`{path.relative_to(package).as_posix()}`" not in table
    }
    assert missing == set()


def test_every_file_in_the_table_is_there() -> None:
    rows = [row for row in (ROOT / "SECURITY.md").read_text().splitlines() if row.startswith("| ")]
    named = {name for row in rows[2:] for name in row.split("|")[2].replace("`", "").split(", ")}
    assert all((ROOT / "kdplatform" / name.strip()).is_file() for name in named)
    assert len(named) > 10
