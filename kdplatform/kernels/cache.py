"""The cache of builds: which are in use, and which of the others go.

A process that builds or loads a library holds a shared lock on a file beside the build's folder
for as long as it lives. Whoever can lock that file for himself knows that nobody uses the build,
on this machine or on another that shares the disk. One more lock keeps a build from being taken
into use while it is removed.
"""

import contextlib
import os
import shutil
import sys
from pathlib import Path

import filelock

if sys.platform != "win32":  # where nothing is built either
    import fcntl

BUILDS_KEPT = 4
"""How many builds stay, the last used of all; those in use stay as well."""

_held: dict[Path, int] = {}


def hold(folder: Path) -> None:
    """Make a build's folder, if need be, and mark it as in use until this process ends.

    A cache that cannot be written to is used without a mark: nobody can remove from it either.
    """
    if folder in _held or sys.platform == "win32":
        return
    with contextlib.suppress(PermissionError), _changing(folder.parent):
        folder.mkdir(exist_ok=True)
        descriptor = os.open(_users(folder), os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(descriptor)
        _held[folder] = descriptor


def prune(cache: Path, keep: int = BUILDS_KEPT) -> list[Path]:
    """Remove builds but the last used and those in use.

    Returns:
        The folders that are gone.
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
    cache.mkdir(parents=True, exist_ok=True)
    return filelock.FileLock(cache / "lock", timeout=60)


def _users(folder: Path) -> Path:
    return folder.with_name(folder.name + ".users")


def _last_use(folder: Path) -> float:
    users = _users(folder)
    return (users if users.exists() else folder).stat().st_mtime
