"""What a user sees while work goes on: bars on a terminal, single lines anywhere else."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from kdplatform.redaction import redacted
from kdplatform.text import visible, visible_lines

_collected: list[str] | None = None


@contextmanager
def collected_messages() -> Iterator[list[str]]:
    """Collects what is said in the block instead of showing it; bars stay silent.

    For a worker, whose lines are shown by the process that shows the progress of all.
    """
    global _collected
    outer, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = outer


def say(message: str) -> None:
    """Prints one line to stderr without tearing a progress bar that is being drawn."""
    message = redacted(message)
    if _collected is None:
        tqdm.write(visible(message), file=sys.stderr)
    else:
        _collected.append(message)


def show(text: str) -> None:
    """Prints what a command has to say, perhaps several lines, to stdout."""
    print(visible_lines(text), flush=True)


def progress_bar(total: int, description: str, unit: str) -> "tqdm[Any]":
    """Returns a progress bar over `total` units that stays silent away from a terminal."""
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=True,
        disable=None if _collected is None else True,
        leave=False,
        dynamic_ncols=True,
    )


@contextmanager
def changing_line() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows one line after the other in the same place of a terminal.

    Away from a terminal a line is printed when it differs from the last by more than numbers.
    """
    words = shown = ""

    def report(line: str) -> None:
        nonlocal words, shown
        line = visible(line)
        if _collected is not None:
            return
        if sys.stderr.isatty():
            print(f"\r{line:<{len(shown)}}", end="", file=sys.stderr, flush=True)
        elif re.sub(r"\d", "", line) != words:
            print(line, file=sys.stderr, flush=True)
        words, shown = re.sub(r"\d", "", line), line

    try:
        yield report
    finally:
        if shown and sys.stderr.isatty():
            print(file=sys.stderr)
