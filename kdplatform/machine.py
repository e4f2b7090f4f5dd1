"""Faults of the machine in one line, and the file that keeps their traceback."""

import errno
import os
import re
import tempfile
import time
import traceback
from pathlib import Path

from kdplatform.errors import KdplatformError, UserError, one_line
from kdplatform.files import home_folder
from kdplatform.redaction import redacted

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_NO_MEMORY = re.compile(r"failed to map segment|cannot allocate memory|bad_alloc", re.IGNORECASE)
_NO_THREAD = "can't start new thread"


def usable_cores() -> int:
    """Returns the cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_home() -> None:
    """Checks that there is a home folder, which libraries need while they load.

    Raises:
        UserError: there is none.
    """
    try:
        Path.home()
    except RuntimeError:
        raise UserError(
            "HOME is not set, and the system knows no home folder of this user; allowed: "
            "HOME=folder"
        ) from None


def machine_problem(error: Exception) -> str | None:
    """Returns the machine's fault and its remedy, or None for another kind of error."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, OSError) and number in _UNWRITABLE:
        return (
            f"{error.filename or 'a file'} cannot be written ({error.strerror}); allowed: room left"
            f" in the data folder, the tracking store and TMPDIR={tempfile.gettempdir()!r}"
        )
    if isinstance(error, MemoryError) or number == errno.ENOMEM or _NO_MEMORY.search(str(error)):
        return (
            f"the memory is full ({one_line(error)}); allowed: more of it (`ulimit -v`), fewer "
            "workers, a smaller batch_size"
        )
    if number == errno.EAGAIN or _NO_THREAD in str(error):
        return (
            f"the system allows no more processes and threads ({one_line(error)}); allowed: a "
            "higher limit (`ulimit -u`, the pids limit of a container), fewer workers"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return f"too many files are open ({one_line(error)}); allowed: a higher `ulimit -n`"
    return None


def kept_trace(error: BaseException) -> Path | None:
    """Writes an error's traceback to its own file. Returns None if no file can be written."""
    text = redacted("".join(traceback.format_exception(error)))
    name = f"{time.strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.txt"
    try:
        folder = home_folder() / "traces"
    except KdplatformError:
        folder = Path(tempfile.gettempdir())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    except OSError:
        return None
    return folder / name
