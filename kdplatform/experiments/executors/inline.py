"""This process itself, one step after the other; an error ends the command."""

import time
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from kdplatform.experiments.executors.base import Assignment, Outcome
from kdplatform.experiments.executors.worker import carry_out


class InlineExecutor:
    """Carries out each step when it is handed over."""

    slots = 1

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Trains or finds the step's model; raises what goes wrong."""
        started = time.perf_counter()
        model = carry_out(assignment)
        future: Future[Outcome] = Future()
        future.set_result(Outcome(model.run_id, model.reused, time.perf_counter() - started))
        return future

    def __enter__(self) -> Self:
        """Takes assignments from the start."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Has nothing to end."""
