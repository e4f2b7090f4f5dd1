"""Test predictions as they stand in the tracking store, believed only when they are as logged."""

import json

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from kdplatform.experiments.tracking import TAG_DIGESTS, artifact_path
from kdplatform.experiments.trained import PREDICTIONS
from kdplatform.files import file_digest
from kdplatform.predictions import Predictions
from kdplatform.study.metrics import CALIBRATING_TEMPERATURE

TEST = PREDICTIONS.format(split="test")


def stored_test_predictions(run: Run) -> Predictions:
    """Returns the predictions a run logged for the test split.

    Raises:
        ValueError: they are missing, not what was logged, or no prediction table.
    """
    digests = json.loads(run.data.tags.get(TAG_DIGESTS, "{}"))
    try:
        path = artifact_path(run.info.run_id, TEST)
        sound = digests.get(TEST) == file_digest(path)
    except (OSError, MlflowException):
        raise ValueError(f"it has no {TEST}") from None
    if not sound:
        raise ValueError("its predictions are not what was logged")
    return Predictions.read(path)


def calibrating_temperature(run: Run) -> float:
    """Returns the temperature that calibrates a run's model on validation, NaN when not logged."""
    return float(run.data.metrics.get(CALIBRATING_TEMPERATURE, float("nan")))
