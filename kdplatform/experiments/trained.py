"""A model that stands in the tracking store."""

from dataclasses import dataclass
from functools import cached_property

from kdplatform.experiments.graph import Step
from kdplatform.experiments.tracking import artifact_path
from kdplatform.predictions import Predictions

PREDICTIONS = "predictions/{split}.parquet"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model: its step, its run, and what it predicts."""

    step: Step
    run_id: str
    reused: bool

    @cached_property
    def test(self) -> Predictions:
        """Predictions of the test split, read when it is asked for first."""
        return self.predictions("test")

    def predictions(self, split: str) -> Predictions:
        """Returns the predictions of a split."""
        return Predictions.read(artifact_path(self.run_id, PREDICTIONS.format(split=split)))
