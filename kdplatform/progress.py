"""Progress for the user: bars on a terminal, single lines elsewhere."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from kdplatform.redaction import redacted
from kdplatform.text import visible, visible_lines

_SECONDS_BETWEEN_LINES = 30
_collected: list[str] | None = None


@contextmanager
def collected_messages() -> Iterator[list[str]]:
    """Collects the lines of the block instead of showing them. Bars stay silent.

    It is for a worker. The process that shows the progress of all workers shows its lines.
    """
    global _collected
    outer, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = outer


def say(message: str) -> None:
    """Prints one line to stderr without breaking a progress bar."""
    message = redacted(message)
    if _collected is None:
        tqdm.write(visible(message), file=sys.stderr)
    else:
        _collected.append(message)


def show(text: str) -> None:
    """Prints the output of a command, one or more lines, to stdout."""
    print(visible_lines(text), flush=True)


def progress_bar(total: int, description: str, unit: str) -> "tqdm[Any]":
    """Returns a progress bar over `total` units, silent without a terminal."""
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=True,
        disable=None if _collected is None else True,
        leave=False,
        dynamic_ncols=True,
    )


class EpochLines:
    """Says that a model is being trained, and some of its epochs, where no bar is shown.

    A worker's lines reach the user only after its model; there it says nothing.

    Args:
        title: of the model.
        epochs: of the whole training.
    """

    def __init__(self, title: str, epochs: int) -> None:
        self._title, self._epochs = title, epochs
        self._shown = _collected is None and not sys.stderr.isatty()
        self._said = time.monotonic()
        if self._shown:
            say(f"{title}: training, {epochs} epochs")

    def __call__(self, epoch: int) -> None:
        """Counts an epoch, and says so after a pause; the last one ends with the model's line."""
        due = time.monotonic() - self._said >= _SECONDS_BETWEEN_LINES
        if self._shown and due and epoch < self._epochs:
            say(f"{self._title}: epoch {epoch} of {self._epochs}")
            self._said = time.monotonic()


@contextmanager
def changing_line() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows successive lines in the same place of a terminal.

    Without a terminal, a line is printed if it differs from the last in more than numbers.
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
