"""The cache of builds: which are complete, which are in use, and which are removed.

A build's record, `build.json`, is beside its library and holds the library's digest. A truncated
library would crash the process that loads it, and a planted one would run in it.

A process that builds or loads a library holds a shared lock on a file beside the build's folder
until it ends. A process that gets an exclusive lock on that file knows that nobody uses the build,
on this machine or on another that shares the disk. A second lock keeps others from starting to use
a build while it is removed.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import filelock

if sys.platform != "win32":  # where nothing is built either
    import fcntl

BUILDS_KEPT = 4
"""How many builds are kept: the last used. Builds in use are kept as well."""

RECORD = "build.json"
# The write permissions that let other users change a file.
_OTHERS = stat.S_IWGRP | stat.S_IWOTH

_held: dict[Path, int] = {}


def untrusted(library: Path) -> str:
    """Return one line on how another user could have written the library, or an empty text.

    The cache, the build's folder and its files must belong to this user or to root, and nobody else
    may have write access. Users who may rename the folders above are trusted, unless everybody may.
    """
    if sys.platform == "win32":
        return ""
    folder = library.parent
    try:
        for path in (folder.parent, folder, folder / RECORD, library):
            if not path.exists():
                continue
            found = path.stat()
            if found.st_uid not in (os.geteuid(), 0):
                return f"{str(path)!r} is user {found.st_uid}'s; allowed: this user's and root's"
            if found.st_mode & _OTHERS:
                return f"others can write {str(path)!r}; allowed: its owner alone (chmod go-w)"
        for path in folder.parent.parents:
            mode = path.stat().st_mode if path.exists() else 0
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return f"everybody can write {str(path)!r}; allowed: not others (chmod o-w)"
    except OSError as error:
        return f"{str(path)!r} cannot be read ({error.strerror})"
    return ""


def record_of(library: Path) -> dict[str, Any] | None:
    """Return the record of a build whose library is unaltered; None for any other."""
    try:
        record = json.loads((library.parent / RECORD).read_text())
        with library.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return dict(record) if record["sha256"] == digest else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def recorded_architectures(folder: Path) -> tuple[str, ...]:
    """Return the CUDA architectures that a build's record names; none if it is unreadable.

    The record says what to look for. Only `untrusted` and `record_of` tell whether to load it.
    """
    try:
        names = json.loads((folder / RECORD).read_text())["architectures"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()
    known = isinstance(names, list) and all(
        isinstance(name, str) and re.fullmatch(r"[0-9]{1,3}\.[0-9]", name, re.ASCII)
        for name in names
    )
    return tuple(names) if known else ()


def put(library: Path, made: Path, record: dict[str, Any]) -> None:
    """Move a finished library and its record into the cache."""
    with made.open("rb") as file:
        record = record | {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
    written = made.with_name(RECORD)
    written.write_text(json.dumps(record, indent=2))
    for path, target, mode in ((made, library, 0o755), (written, library.with_name(RECORD), 0o644)):
        path.chmod(mode)
        with path.open("rb") as file:
            # The rename must not overtake the data: a power cut would leave an empty file.
            os.fsync(file.fileno())
        path.replace(target)


def hold(folder: Path) -> None:
    """Make a build's folder if necessary, and mark it as in use until this process ends.

    A read-only cache is used without a mark, because nobody can remove from it either.
    """
    if folder in _held or sys.platform == "win32":
        return
    with contextlib.suppress(PermissionError), _changing(folder.parent):
        folder.mkdir(0o755, exist_ok=True)
        descriptor = os.open(_users(folder), os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
        _held[folder] = descriptor


def prune(cache: Path, keep: int = BUILDS_KEPT) -> list[Path]:
    """Remove all builds except the last used and those in use.

    Returns:
        The folders that were removed.
    """
    removed = []
    with _changing(cache):
        folders = [path for path in cache.iterdir() if path.is_dir()]
        for folder in sorted(folders, key=_last_use, reverse=True)[keep:]:
            with contextlib.suppress(OSError):  # in use, or another user's
                _remove_unused(folder)
                removed.append(folder)
    return removed


def _remove_unused(folder: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(_users(folder), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
        _users(folder).unlink()
    finally:
        os.close(descriptor)


def _changing(cache: Path) -> filelock.FileLock:
    cache.mkdir(0o755, parents=True, exist_ok=True)
    return filelock.FileLock(cache / "lock", timeout=60)


def _users(folder: Path) -> Path:
    return folder.with_name(folder.name + ".users")


def _last_use(folder: Path) -> float:
    users = _users(folder)
    return (users if users.exists() else folder).stat().st_mtime
