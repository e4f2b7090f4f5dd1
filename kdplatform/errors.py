"""Errors that a user sees as one line, each with its exit code."""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from kdplatform.redaction import redacted

# Such as bold text, which torch puts into its messages.
_TERMINAL_CODE = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


# Of more names than these, a line names blocks.
_MOST_NAMES = 60


class KdplatformError(Exception):
    """An error whose message is one line for the user, shown without a traceback."""

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(redacted(message))


class UserError(KdplatformError):
    """The request cannot be carried out. Names the parameter, its value and what is allowed."""

    exit_code = 2


class MachineError(KdplatformError):
    """The machine is at fault: a full disk, a read-only folder, a server that does not answer."""


class DivergedError(KdplatformError):
    """The training loss became NaN or infinite."""

    exit_code = 2


class UnfinishedError(KdplatformError):
    """Some parts of the work failed. The others are done and logged."""


class InfeasibleError(KdplatformError):
    """A search ended without a point that satisfies its constraints."""

    exit_code = 3


class GateFailedError(KdplatformError):
    """A gate's rules are broken; what was trained or compared is done and logged."""

    exit_code = 3


def unknown_name(parameter: str, value: str, known: Iterable[str]) -> UserError:
    """Returns the error for a name that does not exist. It lists the nearest names, then all."""
    names = sorted(known)
    nearest = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    suggestion = f"did you mean {' or '.join(repr(name) for name in nearest)}? " if nearest else ""
    return UserError(
        f"{parameter}={value!r} does not exist; {suggestion}known: {', '.join(_in_blocks(names))}"
    )


def _in_blocks(names: Sequence[str]) -> list[str]:
    """Returns the names; of very many, those of a block such as `teacher.epochs` are one."""
    if len(names) <= _MOST_NAMES:
        return list(names)
    blocks = Counter(name.partition(".")[0] for name in names if "." in name)
    plain = [name for name in names if "." not in name]
    return (
        plain + [f"{block}.* ({count} fields)" for block, count in blocks.items()] + ["see --help"]
    )


def one_line(error: object, most: int = 200) -> str:
    """Returns the message of a library's error in one line of limited length.

    Without a message it is the error's type. A long message ends after a whole word with "...".
    """
    line = redacted(" ".join(_TERMINAL_CODE.sub("", str(error)).split()))
    if len(line) > most:
        cut = line[: most - 3]
        line = f"{cut.rpartition(' ')[0] or cut[:-1]} ..."
    return line or type(error).__name__
