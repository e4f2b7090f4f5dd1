"""Test predictions from the tracking store, used only if they are unaltered."""

from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from kdplatform.errors import UserError, unknown_name
from kdplatform.experiments.artifacts import artifact_path
from kdplatform.experiments.conditions import settings_of, split_under
from kdplatform.experiments.store_faults import shown_store, store_errors
from kdplatform.experiments.tracking import (
    artifact_digests,
    class_names,
    prepare_store,
    quiet_mlflow,
)
from kdplatform.experiments.trained import PREDICTIONS
from kdplatform.files import file_digest
from kdplatform.predictions import Predictions
from kdplatform.stores import reason_of
from kdplatform.study.metrics import CALIBRATING_TEMPERATURE, fairness_metric

TEST = PREDICTIONS.format(split="test")
_NO_SUCH_RUN = "RESOURCE_DOES_NOT_EXIST"


def table_of_test(condition: str) -> str:
    """Returns the artifact of the predictions of the test split, unchanged or under a condition."""
    return PREDICTIONS.format(split=split_under(condition)) if condition else TEST


def stored_test_predictions(run: Run, condition: str = "") -> Predictions:
    """Returns a run's logged predictions of the test split, unchanged or under a condition.

    Raises:
        ValueError: they are missing, altered, or not a prediction table.
    """
    table = table_of_test(condition)
    digest = artifact_digests(run).get(table)
    if digest is None:
        raise ValueError(f"it has logged no {table}")
    try:
        path = artifact_path(run.info.run_id, table)
        sound = digest == file_digest(path)
    except (OSError, MlflowException) as error:
        raise ValueError(f"its {table} cannot be read now ({reason_of(error)})") from None
    if not sound:
        raise ValueError("its predictions are not what was logged")
    return Predictions.read(path)


def calibrating_temperature(run: Run) -> float:
    """Returns the temperature that calibrates a run's model on validation; NaN if not logged."""
    return float(run.data.metrics.get(CALIBRATING_TEMPERATURE, float("nan")))


class StoredRun(NamedTuple):
    """The content of a run for a comparison.

    Attributes:
        attributes: the attributes of its group metrics.
        class_names: empty if they were not logged.
        seed: the model's; None if it was not logged.
    """

    test: Predictions
    attributes: tuple[str, ...]
    class_names: tuple[str, ...]
    seed: int | None = None


def read_run(run_id: str, condition: str = "") -> StoredRun:
    """Returns the test predictions of a run, with its attributes and the names of its classes.

    Args:
        condition: condition of the predictions; empty: the unchanged test split.

    Raises:
        UserError: the run does not exist, or its predictions are missing or altered.
    """
    quiet_mlflow()
    prepare_store()
    with store_errors():
        try:
            run = MlflowClient().get_run(run_id)
        except MlflowException as error:
            if error.error_code != _NO_SUCH_RUN:
                raise
            raise UserError(
                f"run {run_id} is not in the tracking store {shown_store()!r}; allowed: a run of "
                "it, or another MLFLOW_TRACKING_URI"
            ) from None
    if condition and condition not in settings_of(run):
        raise unknown_name(f"run {run_id}: condition", condition, ["clean", *settings_of(run)])
    try:
        test = stored_test_predictions(run, condition)
    except ValueError as error:
        raise UserError(f"run {run_id}: {error}; allowed: runs of trained models") from None
    # A metric that a run has for every attribute of its project.
    columns = map(str, test.columns)
    measured = [name for name in columns if fairness_metric(name, "dpd") in run.data.metrics]
    seed = run.data.tags.get("kd.seed", "")
    known = int(seed) if seed.isdecimal() else None
    return StoredRun(test, tuple(sorted(measured)), class_names(run), known)
