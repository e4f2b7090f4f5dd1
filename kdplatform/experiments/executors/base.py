"""The interface of executors: they take assignments and return outcomes."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdplatform.experiments.graph import Step
from kdplatform.settings.schema import ProjectConfig

# Number of models per GPU, because small models leave most of a GPU idle.
MODELS_PER_GPU = 4


@dataclass(frozen=True)
class Assignment:
    """A step for a worker, as plain values that cross processes and machines.

    Attributes:
        device: the device's name on the command line.
        runs: the runs of the models that the step needs, by their names in the step.
        tracking_uri: URI of the store that the worker logs to; a path in it is absolute.
        processes: number of processes that train the model together; the worker is rank 0.
    """

    config: ProjectConfig
    step: Step
    runs: Mapping[str, str]
    folder: Path
    device: str
    reuse: bool
    tracking_uri: str
    parent_run_id: str
    processes: int = 1


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step.

    Attributes:
        run_id: the run with the model; None if the step failed.
        reused: whether another process trained it in the meantime.
        messages: the lines it printed.
        error: why it failed, in one line.
        trace: the traceback of an unexpected error; empty for expected ones.
        diverged: whether it failed because its training diverged.
    """

    run_id: str | None
    reused: bool = False
    seconds: float = 0.0
    messages: tuple[str, ...] = ()
    error: str = ""
    trace: str = ""
    diverged: bool = False


# The function that carries out an assignment: `worker.run_step`, or a smaller one in tests.
Task = Callable[[Assignment], Outcome]


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs assignments somewhere. At the end of its block all steps that still run are ended.

    An error in the block ends them at once.

    Attributes:
        slots: how many steps run at the same time.
    """

    slots: int

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Submits a step; its future raises only errors outside the step's own code."""
        ...
