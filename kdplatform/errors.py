"""Errors a user sees as one line, and the exit code each of them ends with: 1, or its own."""

import difflib
import re
from collections.abc import Iterable

from kdplatform.redaction import redacted

# Such as bold letters, which torch puts into its messages.
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class KdplatformError(Exception):
    """An error whose message is one line for the user; no traceback is shown for it."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class UserError(KdplatformError):
    """What was asked for cannot be done: names the parameter, its value and what is allowed."""

    exit_code = 2


class MachineError(KdplatformError):
    """The machine is at fault: a full disk, a folder that cannot be written, a silent server."""


class DivergedError(KdplatformError):
    """The training loss became NaN or infinite."""

    exit_code = 2


class UnfinishedError(KdplatformError):
    """Some units of a larger work failed; the others are done and logged."""


class InfeasibleError(KdplatformError):
    """A search ended without any point that keeps its constraints."""

    exit_code = 3


class GateFailedError(KdplatformError):
    """A gate's rules are broken; what was trained or compared is done and logged."""

    exit_code = 3


def unknown_name(parameter: str, value: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that does not exist: the nearest ones first, then all."""
    names = sorted(known)
    nearest = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(repr(name) for name in nearest)}? " if nearest else ""
    return UserError(f"{parameter}={value!r} does not exist; {suggestion}known: {', '.join(names)}")


def one_line(error: object, most: int = 200) -> str:
    """Returns what an error of a library says, in one line of at most so many characters.

    The error's type where it says nothing. What is too long ends with a whole word and "...".
    """
    line = redacted(" ".join(_TERMINAL_CODE.sub("", str(error)).split()))
    if len(line) > most:
        cut = line[: most - 3]
        line = f"{cut.rpartition(' ')[0] or cut[:-1]} ..."
    return line or type(error).__name__
