"""A trial's trainings, handed to the executor that a sweep would use, and waited for."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait

from kdplatform.experiments.executors import Executor, Outcome
from kdplatform.experiments.identity import Step
from kdplatform.experiments.sweep import AssignmentTemplate, Unit
from kdplatform.experiments.workspace import Workspace

# How often a waiting trial looks whether the search was interrupted.
_LOOK_EVERY_SECONDS = 0.2


class TrialFailedError(Exception):
    """A trial has no value; the message is its reason. The study goes on."""


class TrialDivergedError(Exception):
    """A training of the trial diverged: its point is infeasible."""


class InterruptedSearchError(Exception):
    """The search ends; the trial goes back into the queue."""


class Trainer:
    """Trains units for several trials at once.

    Args:
        known: step and run of models that are there already, by key.
        stop: set when the search is to end.
    """

    def __init__(
        self,
        workspace: Workspace,
        device: str,
        executor: Executor,
        known: Mapping[str, tuple[Step, str]],
        stop: threading.Event,
    ) -> None:
        self._workspace = workspace
        self._device = device
        self._executor = executor
        self._known = dict(known)
        self._stop = stop

    def train(self, units: Sequence[Unit], parent_run_id: str) -> dict[str, str]:
        """Returns the runs of the units by key, trained or found.

        Args:
            units: those first that others need.
            parent_run_id: under which new runs are logged.

        Raises:
            TrialDivergedError: a training diverged.
            TrialFailedError: a training failed.
            InterruptedSearchError: the search is to end.
        """
        template = AssignmentTemplate(self._workspace, self._device, parent_run_id)
        runs = {u.step.key: self._known[u.step.key] for u in units if u.step.key in self._known}
        missing = [unit for unit in units if unit.step.key not in runs]
        while missing:
            ready = [unit for unit in missing if set(unit.needs.values()) <= runs.keys()]
            futures = [
                self._executor.submit(
                    template.assignment(unit, {role: runs[k] for role, k in unit.needs.items()})
                )
                for unit in ready
            ]
            outcomes = [self._outcome(future) for future in futures]
            _raise_worst(outcomes)
            for unit, outcome in zip(ready, outcomes, strict=True):
                assert outcome.run_id is not None
                runs[unit.step.key] = self._known[unit.step.key] = (unit.step, outcome.run_id)
            missing = [unit for unit in missing if unit.step.key not in runs]
        return {key: run_id for key, (_, run_id) in runs.items()}

    def _outcome(self, future: "Future[Outcome]") -> Outcome:
        while not wait([future], timeout=_LOOK_EVERY_SECONDS).done:
            if self._stop.is_set():
                raise InterruptedSearchError
        if self._stop.is_set():
            raise InterruptedSearchError
        error = future.exception()
        if error is not None:
            return Outcome(None, error=" ".join(str(error).split()) or type(error).__name__)
        return future.result()


def _raise_worst(outcomes: Sequence[Outcome]) -> None:
    """Raises what became of trainings that left no model; a crash says more than a divergence."""
    failed = [outcome for outcome in outcomes if outcome.run_id is None]
    for outcome in failed:
        if not outcome.diverged:
            raise TrialFailedError(outcome.error)
    if failed:
        raise TrialDivergedError(failed[0].error)
