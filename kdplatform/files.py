"""Atomic writes, and caches of arrays that are verified before use."""

import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from kdplatform.errors import MachineError, UserError
from kdplatform.processes import host_of, is_dead_here, this_process
from kdplatform.progress import say

Arrays = dict[str, NDArray[np.generic]]


def user_path(parameter: str, value: str) -> Path:
    """Returns the path that a user named, with `~` and `~user` resolved. It need not exist.

    Raises:
        UserError: there is no such user, or the system does not take the path: too long, below a
            folder that may not be entered.
    """
    try:
        path = Path(value).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (RuntimeError, OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise UserError(
            f"{parameter}={_shortened(value)!r} cannot be used as a path ({reason}); allowed: a "
            "path this system and user can open"
        ) from None
    return path


def _shortened(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def not_there(
    parameter: str, value: str, path: Path, allowed: str, *, kind: str = "file"
) -> UserError:
    """Returns the error for a path without a file. It resolves a relative path."""
    absolute = str(path.absolute())
    where = "" if absolute == value else f" (looked at {absolute!r})"
    return UserError(f"{parameter}={value!r} is no {kind}{where}; allowed: {allowed}")


def home_folder() -> Path:
    """Returns the folder of datasets, checkpoints and compiled kernels.

    It is `$KDPLATFORM_HOME` if set, otherwise `$XDG_CACHE_HOME/kdplatform` or
    `~/.cache/kdplatform`.
    """
    if explicit := os.environ.get("KDPLATFORM_HOME"):
        return user_path("KDPLATFORM_HOME", explicit)
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return user_path("XDG_CACHE_HOME", cache) / "kdplatform"


def writable_folder(parameter: str, folder: Path) -> Path:
    """Creates the folder and checks that it can be written.

    Raises:
        MachineError: the folder cannot be made or written; names the parameter.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise MachineError(
            f"{parameter}={str(folder)!r} cannot be written ({error.strerror}); "
            "allowed: a folder this user may create and write"
        ) from error
    return folder


def place_of_folder(parameter: str, path: Path) -> Path:
    """Returns the path, where a folder is or can be made.

    Raises:
        UserError: a file lies there, or where a folder above it would be.
    """
    for place in (path, *path.parents):
        if place.exists():
            if not place.is_dir():
                raise UserError(
                    f"{parameter}={str(path)!r}: {str(place)!r} is a file; allowed: a folder, "
                    "which need not exist"
                )
            break
    return path


_scratch: Path | None = None
_LONGEST_IN_TEMPORARY = 100  # bytes of a target's name


def use_scratch(folder: Path) -> None:
    """Makes `scratch_folder` use folders below `folder`, and removes those of dead processes."""
    global _scratch
    place = folder / "scratch"
    if place == _scratch:
        return
    place.mkdir(parents=True, exist_ok=True)
    for left_over in place.iterdir():
        if is_dead_here(left_over.name.rpartition(":")[0]):
            shutil.rmtree(left_over, ignore_errors=True)
    _scratch = place


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Gives a folder that is removed after the block, or at the next start after a kill.

    It is below the folder of `use_scratch`, otherwise in the system's folder for temporary files.
    """
    with tempfile.TemporaryDirectory(prefix=f"{this_process()}:", dir=_scratch) as name:
        yield Path(name)


def scratch_room() -> tuple[Path, int]:
    """Returns the parent of scratch folders, and how many bytes are free there."""
    place = _scratch or Path(tempfile.gettempdir())
    return place, shutil.disk_usage(place).free


@contextmanager
def written_atomically(target: Path) -> Iterator[Path]:
    """Gives a temporary path beside `target`, renamed to it only if the block succeeds.

    A process that is killed leaves the temporary file. The next one of this machine that writes a
    file into the same folder removes it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    own = this_process()
    for left_over in target.parent.glob(f".*.{glob.escape(host_of(own))}:*"):
        _, host, rest = left_over.name.rpartition(f".{host_of(own)}:")
        if is_dead_here(f"{host}{rest}".removeprefix(".").rpartition(":")[0]):
            left_over.unlink(missing_ok=True)
    # Not mkstemp, whose files only their owner can read: a data folder can be shared.
    temporary = target.with_name(f"{_temporary_beginning(target)}{own}:{uuid4().hex[:12]}")
    temporary.open("xb").close()
    try:
        yield temporary
        # The rename must not overtake the data: a power cut would leave an empty file of that name.
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def remove_left_overs(target: Path) -> None:
    """Removes temporary files that a killed process left beside this target.

    Call it while no other process writes the target: it also removes files of other machines.
    """
    for left_over in target.parent.glob(f"{glob.escape(_temporary_beginning(target))}*"):
        left_over.unlink(missing_ok=True)


def _temporary_beginning(target: Path) -> str:
    # Cut, so that the name of the process fits into the 255 bytes of a file's name.
    name = target.name.encode(errors="surrogateescape")[:_LONGEST_IN_TEMPORARY]
    return f".{name.decode(errors='ignore')}."


@contextmanager
def locked(path: Path, waiting: str) -> Iterator[None]:
    """Holds a lock that dies with its process. Says `waiting` if another process holds it.

    Raises:
        MachineError: the lock's file cannot be opened, for example because it is a link.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(waiting)
            lock.acquire()
    except OSError as error:
        raise MachineError(
            f"lock {str(path)!r} cannot be taken ({error.strerror}); allowed: a folder this user "
            "may write, and a plain file of that name or none"
        ) from error
    try:
        yield
    finally:
        lock.release()


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


@contextmanager
def written_with_digest(target: Path) -> Iterator[Path]:
    """Like `written_atomically`, with the content's digest beside the file for `is_whole`."""
    with written_atomically(target) as temporary:
        yield temporary
        digest = file_digest(temporary)
    with written_atomically(_digest_path(target)) as temporary:
        temporary.write_text(digest)


def written_digest(path: Path) -> str:
    """Returns the SHA-256 of the content that `written_with_digest` wrote to a file."""
    return _digest_path(path).read_text()


def is_whole(path: Path) -> bool:
    """Returns whether a file exists unaltered.

    One line reports a file that is truncated or altered, or has no digest. The caller makes it
    again.
    """
    if not path.exists():
        return False
    digest = _digest_path(path)
    if not digest.exists() or digest.read_bytes().strip() != file_digest(path).encode():
        say(f"{path} is damaged or altered; it is made again")
        return False
    return True


def save_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Saves named arrays as an uncompressed npz file with its digest beside it."""
    with written_with_digest(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> Arrays | None:
    """Loads what `save_arrays` wrote, or None if it is not complete; see `is_whole`."""
    if not is_whole(path):
        return None
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
