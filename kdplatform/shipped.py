"""The location of files that come with the platform besides its Python modules."""

import base64
import hashlib
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """Returns a file or folder of the repository's top, such as `csrc` or `MLproject`.

    In a clone, also an editable install, it is the clone's. A wheel has folders inside the package,
    and files in `starter_files`.
    """
    for place in (_PACKAGE / name, _PACKAGE / "starter_files" / name):
        if place.exists():
            return place
    return _PACKAGE.parent / name


@cache
def changed_since_installed(folder: Path) -> tuple[str, ...]:
    """Returns the names of files below a folder of the package that differ from the wheel's.

    Added files count too. A folder outside the package, as in a clone, may change.
    """
    if not folder.is_relative_to(_PACKAGE):
        return ()
    try:
        files = distribution("kdplatform").files or []
    except PackageNotFoundError:
        return ()
    recorded = {Path(file.locate()).resolve(): file.hash for file in files}
    if _PACKAGE / "shipped.py" not in recorded:
        return ()  # the record is of another installation
    found = {path for path in folder.rglob("*") if path.is_file()}
    known = {path for path in recorded if path.is_relative_to(folder)}
    changed = found ^ known
    for path in found & known:
        expected = recorded[path]
        if expected is not None and _digest(path, expected.mode) != expected.value:
            changed.add(path)
    return tuple(sorted(str(path.relative_to(folder)) for path in changed))


def _digest(path: Path, algorithm: str) -> str:
    """Returns a digest in the form of an installed wheel's record."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, algorithm).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")
