"""The scheduler: finds the models of a graph that are trained already, and trains the others."""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass

import mlflow

from kdplatform import interruption
from kdplatform.errors import one_line
from kdplatform.experiments.executors.base import Assignment, Executor, Outcome
from kdplatform.experiments.graph import Step
from kdplatform.experiments.progress import GraphProgress
from kdplatform.experiments.steps import check_steps, find_trained
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.progress import say
from kdplatform.roles import Role
from kdplatform.stores import absolute_uri

# Opens an executor for this many steps.
OpenExecutor = Callable[[int], AbstractContextManager[Executor]]

# Interval for updating the display and noticing an interruption while no step ends.
_LOOK_EVERY_SECONDS = 0.5


class InterruptedGraphError(Exception):
    """The steps are not needed any more."""


@dataclass(frozen=True)
class Failure:
    """A step that could not be carried out.

    Attributes:
        reason: one line.
        trace: traceback of an unexpected error; empty for expected ones.
        diverged: whether its training diverged.
    """

    step: Step
    reason: str
    trace: str = ""
    diverged: bool = False


@dataclass(frozen=True)
class Trained:
    """The result of a graph: its models by the key of their step, and the failed steps."""

    steps: Sequence[Step]
    models: dict[str, TrainedModel]
    failures: Sequence[Failure] = ()

    def of_role(self, role: Role) -> list[TrainedModel]:
        """Returns the existing models of a role, in the order of the steps."""
        return [
            self.models[step.key]
            for step in self.steps
            if step.role is role and step.key in self.models
        ]


class Scheduler:
    """Submits steps to an executor as soon as the models that they need exist.

    It may be used by several threads at once.

    Args:
        device: the given device; each worker resolves it.
        known: existing models by key; trained models are added.
    """

    def __init__(
        self,
        workspace: Workspace,
        device: str,
        executor: Executor,
        known: dict[str, TrainedModel] | None = None,
    ) -> None:
        self.known = {} if known is None else known
        self._workspace = workspace
        self._device = device
        self._executor = executor
        self._tracking_uri = absolute_uri(mlflow.get_tracking_uri())

    def run(
        self,
        steps: Sequence[Step],
        parent_run_id: str,
        progress: GraphProgress | None = None,
        stop: threading.Event | None = None,
    ) -> Trained:
        """Carries out the steps, each once.

        Args:
            parent_run_id: the run under which the models' runs are logged.
            stop: set if the steps are not needed any more.

        Raises:
            InterruptedGraphError: `stop` was set.
            ValueError: a step needs a step that is neither known nor among the steps.
        """
        there = {step.key for step in steps} | self.known.keys()
        for step in steps:
            if step.key not in self.known and not _needed(step) <= there:
                raise ValueError(f"{step.title} needs a step that is not among those given")
        waiting = {step.key: step for step in steps if step.key not in self.known}
        running: dict[Future[Outcome], Step] = {}
        failures: dict[str, Failure] = {}
        while waiting or running:
            for failure in _lost(waiting.values(), failures):
                del waiting[failure.step.key]
                _failed(failures, failure, progress)
            for step in [s for s in waiting.values() if _needed(s) <= self.known.keys()]:
                del waiting[step.key]
                assignment = self._assignment(step, parent_run_id)
                running[self._executor.submit(assignment)] = step
            if progress is not None:
                progress.show(in_flight=len(running))
            interruption.check()
            ended, _ = wait(running, timeout=_LOOK_EVERY_SECONDS, return_when=FIRST_COMPLETED)
            if stop is not None and stop.is_set():
                raise InterruptedGraphError
            for future in ended:
                self._take(running.pop(future), future, failures, progress)
        models = {step.key: self.known[step.key] for step in steps if step.key in self.known}
        return Trained(steps, models, list(failures.values()))

    def _assignment(self, step: Step, parent_run_id: str) -> Assignment:
        return Assignment(
            config=self._workspace.config,
            step=step,
            runs={name: self.known[needed.key].run_id for name, needed in step.needs.items()},
            folder=self._workspace.folder.resolve(),
            device=self._device,
            reuse=self._workspace.reuse,
            tracking_uri=self._tracking_uri,
            parent_run_id=parent_run_id,
            processes=self._workspace.processes,
        )

    def _take(
        self,
        step: Step,
        future: "Future[Outcome]",
        failures: dict[str, Failure],
        progress: GraphProgress | None,
    ) -> None:
        error = future.exception()
        if error is not None:
            _failed(failures, Failure(step, one_line(error)), progress)
            return
        outcome = future.result()
        if outcome.run_id is None:
            failure = Failure(step, outcome.error, outcome.trace, outcome.diverged)
            _failed(failures, failure, progress, outcome.messages)
            return
        self.known[step.key] = TrainedModel(step, outcome.run_id, outcome.reused)
        if progress is not None:
            progress.done(step, outcome.messages, outcome.seconds, reused=outcome.reused)


def _needed(step: Step) -> set[str]:
    return {needed.key for needed in step.needs.values()}


def _lost(waiting: Iterable[Step], failures: dict[str, Failure]) -> list[Failure]:
    """Returns the failures of steps that need one that failed."""
    lost = []
    for step in waiting:
        for needed in step.needs.values():
            if needed.key in failures:
                lost.append(Failure(step, f"not tried: it needs {needed.title}, which failed"))
                break
    return lost


def _failed(
    failures: dict[str, Failure],
    failure: Failure,
    progress: GraphProgress | None,
    messages: Sequence[str] = (),
) -> None:
    failures[failure.step.key] = failure
    if progress is not None:
        line = f"{failure.step.title}: failed: {failure.reason}"
        progress.failed(failure.step, [*messages, line])


def run_graph(
    workspace: Workspace,
    steps: Sequence[Step],
    device: str,
    parent_run_id: str,
    open_executor: OpenExecutor,
    title: str,
) -> Trained:
    """Finds the models of a graph in one search, and trains the missing ones in parallel.

    Args:
        steps: each once, including all that they need.
        open_executor: returns an executor for a number of steps; called if some are missing.
        title: purpose of the models, for the display.

    Raises:
        UserError: weights that a model starts from are invalid.
    """
    models = find_trained(workspace, steps) if workspace.reuse else {}
    missing = [step for step in steps if step.key not in models]
    if not missing:
        say(f"{title}: {len(steps)} models, all of them reused")
        return Trained(steps, models)
    check_steps(workspace, missing)
    with open_executor(len(missing)) as executor:
        progress = GraphProgress(missing, reused=len(models), slots=executor.slots, title=title)
        with progress:
            return Scheduler(workspace, device, executor, models).run(
                steps, parent_run_id, progress
            )
