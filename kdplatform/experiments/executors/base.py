"""What every executor does: take assignments, give back outcomes."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kdplatform.experiments.graph import Step
from kdplatform.settings.schema import ProjectConfig

# Small models leave most of a GPU idle: this many are trained on one at a time.
MODELS_PER_GPU = 4


@dataclass(frozen=True)
class Assignment:
    """A step as a worker gets it: plain values that cross processes and machines.

    Attributes:
        device: as the command line names it.
        runs: the runs of the models that the step needs, by the names it gives them.
        tracking_uri: of the store that the worker logs to; a path in it is absolute.
        processes: how many train the model together, the worker being rank 0 of them.
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
    """What became of a step.

    Attributes:
        run_id: the run that holds the model; None when the step failed.
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


# What a worker does with an assignment: `worker.run_step`, or less in tests.
Task = Callable[[Assignment], Outcome]


class Executor(AbstractContextManager["Executor"], Protocol):
    """Runs assignments somewhere. Leaving its block ends all steps that still run.

    An error that leaves the block ends it at once.

    Attributes:
        slots: how many steps run at the same time.
    """

    slots: int

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Hands a step over; its future raises only errors outside the step's own code."""
        ...
