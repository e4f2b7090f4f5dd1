"""The parameters of an earlier command, read from its run."""

from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from kdplatform.errors import UserError
from kdplatform.experiments.artifacts import artifact_path
from kdplatform.experiments.store_faults import shown_store
from kdplatform.experiments.tracking import prepare_store, quiet_mlflow
from kdplatform.stores import first_line

REPORTED = ("sweep", "distill")
_ALLOWED = "the id of a run of sweep or distill, not of one of its models"


def configuration_of(run_id: str) -> Path:
    """Returns the file of the configuration that a sweep or distill was run with.

    Raises:
        UserError: there is no such run, it belongs to a model or to another command, or it has no
            configuration.
        MachineError: the tracking store does not answer.
    """
    command_of(run_id)
    try:
        return artifact_path(run_id, "config.yaml")
    except (OSError, MlflowException) as error:
        raise UserError(
            f"run={run_id!r}: its config.yaml cannot be read ({first_line(error)}); allowed: "
            f"{_ALLOWED}"
        ) from None


def command_of(run_id: str) -> str:
    """Returns the command of a run: `sweep` or `distill`.

    Raises:
        UserError: as `configuration_of`.
    """
    quiet_mlflow()
    prepare_store()
    try:
        tags = MlflowClient().get_run(run_id).data.tags
    except MlflowException as error:
        raise UserError(
            f"run={run_id!r} is not in {shown_store()} ({first_line(error)}); allowed: {_ALLOWED}"
        ) from None
    command = str(tags.get("kd.command", ""))
    if command not in REPORTED:
        parent = tags.get("mlflow.parentRunId")
        what = f"a run of {command}" if command else "a run of a model" if parent else "no command"
        hint = f", such as {parent}" if parent else ""
        raise UserError(f"run={run_id!r} is {what}; allowed: {_ALLOWED}{hint}")
    return command
