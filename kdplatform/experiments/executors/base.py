"""What every executor does: take assignments, give back outcomes."""

import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import mlflow

from kdplatform.config import ProjectConfig
from kdplatform.errors import KdplatformError
from kdplatform.experiments.identity import Role, Step
from kdplatform.experiments.steps import load_trained, obtain
from kdplatform.experiments.tracking import quiet_mlflow
from kdplatform.experiments.workspace import open_workspace
from kdplatform.progress import collected_messages

# Small models leave most of a GPU idle: this many are trained on one at a time.
UNITS_PER_GPU = 4
# Workers of one machine write to one SQLite file, which makes them queue.
_SQLITE_PATIENCE_SECONDS = 120


@dataclass(frozen=True)
class Assignment:
    """A unit as a worker gets it: plain values that cross processes and machines.

    Attributes:
        device: as the command line names it.
        references: step and run of the models a distilled student needs, by role.
        tracking_uri: of the store that the worker logs to; a path in it is absolute.
    """

    config: ProjectConfig
    step: Step
    references: Mapping[Role, tuple[Step, str]]
    folder: Path
    device: str
    reuse: bool
    tracking_uri: str
    experiment_id: str
    parent_run_id: str


@dataclass(frozen=True)
class Outcome:
    """What became of a unit.

    Attributes:
        run_id: the run that holds the model; None when the unit failed.
        reused: whether another process had trained it in the meantime.
        messages: what was said on the way, line by line.
        error: why it failed, in one line.
        trace: where in the program an unexpected error came from; empty for expected ones.
    """

    run_id: str | None
    reused: bool = False
    seconds: float = 0.0
    messages: tuple[str, ...] = ()
    error: str = ""
    trace: str = ""


# What a worker does with an assignment: `run_unit`, or less in tests.
Task = Callable[[Assignment], Outcome]


class Executor(Protocol):
    """Runs assignments somewhere. Leaving its block ends what is still running there.

    Attributes:
        slots: how many units run at the same time.
    """

    slots: int

    def submit(self, assignment: Assignment) -> "Future[Outcome]":
        """Hands a unit over; its future raises only what is no fault of the unit's own code."""
        ...

    def __enter__(self) -> Self:
        """Starts taking assignments."""
        ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Ends the workers: at once when the block was left by an error."""
        ...


def run_unit(assignment: Assignment) -> Outcome:
    """Trains or finds the unit's model; called in a worker."""
    started = time.perf_counter()
    quiet_mlflow()
    mlflow.set_tracking_uri(_patient(assignment.tracking_uri))
    mlflow.set_experiment(experiment_id=assignment.experiment_id)
    with collected_messages() as messages:
        try:
            workspace = open_workspace(
                assignment.config, assignment.folder, assignment.device, assignment.reuse
            )
            references = {
                role: load_trained(step, run_id, reused=True)
                for role, (step, run_id) in assignment.references.items()
            }
            model = obtain(workspace, assignment.step, assignment.parent_run_id, references)
        except Exception as error:
            return Outcome(
                None,
                seconds=time.perf_counter() - started,
                messages=tuple(messages),
                error=_one_line(error),
                trace="" if isinstance(error, KdplatformError) else traceback.format_exc(),
            )
    seconds = time.perf_counter() - started
    return Outcome(model.run_id, model.reused, seconds, tuple(messages))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, KdplatformError) else f"{type(error).__name__}: {text}"


def _patient(uri: str) -> str:
    """Returns the URI under which a writer of an SQLite file waits for the others."""
    if not uri.startswith("sqlite:///") or "?" in uri:
        return uri
    return f"{uri}?timeout={_SQLITE_PATIENCE_SECONDS}"
