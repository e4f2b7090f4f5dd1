"""A study's command with an executor that trains in this process."""

import contextlib
import io
from concurrent.futures import Future
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest

from kdplatform.experiments.executors import Assignment, Outcome
from kdplatform.experiments.executors.worker import run_step


class Inline:
    """An executor that runs a step when it is handed over, and knows what it was handed."""

    slots = 1

    def __init__(self, failing: str = "") -> None:
        self.handed: list[str] = []
        self._failing = failing

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        title = assignment.step.title
        self.handed.append(title)
        future: Future[Outcome] = Future()
        if title == self._failing:
            future.set_result(Outcome(None, error="it would not learn", trace="Traceback: here"))
        else:
            future.set_result(run_step(assignment))
        return future

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *error: object) -> None:
        pass


@dataclass(frozen=True)
class Ended:
    """A command, ended.

    Attributes:
        handed: titles of the steps that its executor was handed.
    """

    code: int
    out: str
    err: str
    handed: list[str]


def run_inline(
    place: Any,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    command: str,
    failing: str = "",
    **parameters: object,
) -> Ended:
    """Runs a command whose executor is opened in `module`; the step titled `failing` fails."""
    executor = Inline(failing)
    monkeypatch.setattr(module, "open_executor", lambda *arguments, **named: executor)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = place.run(command, **parameters)
    return Ended(code, out.getvalue(), err.getvalue(), executor.handed)
