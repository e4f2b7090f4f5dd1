"""The MLflow run of each trial, below the run of the command; logged from several threads."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.utils.time import get_current_time_millis

from kdplatform.experiments.scheduler import InterruptedGraphError
from kdplatform.experiments.tracking import TAG_ERROR, TAG_PROCESS, close_abandoned_children
from kdplatform.processes import this_process
from kdplatform.redaction import redacted


class TrialFailedError(Exception):
    """A trial has no value. The message is its reason. The study continues."""


@dataclass(frozen=True)
class TrialRuns:
    """Opens the runs of trials.

    Attributes:
        parent_run_id: the command's run.
        study: the study's name, which finds a run's trial in the storage.
    """

    experiment_id: str
    parent_run_id: str
    project: str
    study: str

    @contextmanager
    def open(self, number: int, title: str, point: Mapping[str, object]) -> Iterator[str]:
        """Opens the run of a trial. If the block raises, the run records why it has no value."""
        client = MlflowClient()
        tags = {
            "mlflow.runName": f"trial {number} {title}",
            "mlflow.parentRunId": self.parent_run_id,
            "kd.project": self.project,
            "kd.study": self.study,
            "kd.trial": str(number),
            TAG_PROCESS: this_process(),
        }
        run_id: str = client.create_run(self.experiment_id, tags=tags).info.run_id
        status = "FAILED"
        try:
            yield run_id
            status = "FINISHED"
        except InterruptedGraphError:
            status = "KILLED"
            raise
        except TrialFailedError as error:
            log_result(run_id, point, {}, {TAG_ERROR: redacted(str(error))})
            raise
        finally:
            client.set_terminated(run_id, status)


def log_result(
    run_id: str,
    point: Mapping[str, object],
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
) -> None:
    """Logs a trial's point and its result in one call, without undefined values."""
    now = get_current_time_millis()
    known = [Metric(name, value, now, 0) for name, value in metrics.items() if isfinite(value)]
    parameters = [Param(name, str(value)) for name, value in point.items()]
    texts = [RunTag(name, value) for name, value in tags.items()]
    MlflowClient().log_batch(run_id, known, parameters, texts)


def close_lost(run_id: str) -> None:
    """Marks as KILLED the runs that a dead driver left RUNNING: the trial's and those below."""
    client = MlflowClient()
    close_abandoned_children(run_id)
    run = client.get_run(run_id)
    for own in (run, client.get_run(run.data.tags["mlflow.parentRunId"])):
        if own.info.status == "RUNNING":
            client.set_terminated(own.info.run_id, "KILLED")
