"""Execution in this process, one step after the other; an error ends the command."""

import time
from concurrent.futures import Future

from kdplatform.experiments.executors.base import Assignment, Executor, Outcome
from kdplatform.experiments.executors.worker import carry_out


class InlineExecutor(Executor):
    """Carries out each step when it is submitted."""

    slots = 1

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Trains or finds the step's model; errors are raised here."""
        started = time.perf_counter()
        model = carry_out(assignment)
        future: Future[Outcome] = Future()
        future.set_result(Outcome(model.run_id, model.reused, time.perf_counter() - started))
        return future

    def __exit__(self, *_: object) -> None:
        """Nothing has to be ended."""
