"""The execution of an assignment, in this process or in a worker."""

import time
import traceback

import mlflow

from kdplatform.errors import DivergedError, KdplatformError
from kdplatform.experiments.executors.base import Assignment, Outcome
from kdplatform.experiments.steps import obtain
from kdplatform.experiments.store_faults import store_fault
from kdplatform.experiments.tracking import quiet_mlflow
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import open_workspace
from kdplatform.machine import machine_problem
from kdplatform.progress import collected_messages
from kdplatform.redaction import redacted
from kdplatform.stores import patient


def carry_out(assignment: Assignment) -> TrainedModel:
    """Trains or finds the step's model in this process."""
    workspace = open_workspace(
        assignment.config,
        assignment.folder,
        assignment.device,
        assignment.reuse,
        assignment.processes,
    )
    # The command has also loaded the data, and printed the lines about them.
    with collected_messages():
        workspace.dataset  # noqa: B018
    needed = {
        name: TrainedModel(assignment.step.needs[name], run_id, reused=True)
        for name, run_id in assignment.runs.items()
    }
    return obtain(workspace, assignment.step, assignment.parent_run_id, needed)


def run_step(assignment: Assignment) -> Outcome:
    """Trains or finds the step's model in a worker; an error is part of the outcome."""
    started = time.perf_counter()
    quiet_mlflow()
    mlflow.set_tracking_uri(patient(assignment.tracking_uri))
    with collected_messages() as messages:
        try:
            model = carry_out(assignment)
        except Exception as raised:
            error = store_fault(raised) or raised
            return Outcome(
                None,
                seconds=time.perf_counter() - started,
                messages=tuple(messages),
                error=_one_line(error),
                trace="" if isinstance(error, KdplatformError) else traceback.format_exc(),
                diverged=isinstance(error, DivergedError),
            )
    seconds = time.perf_counter() - started
    return Outcome(model.run_id, model.reused, seconds, tuple(messages))


def _one_line(error: Exception) -> str:
    text = redacted(" ".join(str(error).split()))
    if isinstance(error, KdplatformError):
        return text
    return machine_problem(error) or f"{type(error).__name__}: {text}"
