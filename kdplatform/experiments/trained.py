"""A model that stands in the tracking store."""

from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from kdplatform.experiments.graph import Step
from kdplatform.experiments.tracking import artifact_path
from kdplatform.predictions import load_predictions

PREDICTIONS = "predictions/{split}.parquet"


@dataclass(frozen=True)
class TrainedModel:
    """A trained model: its step, its run, and what it predicts."""

    step: Step
    run_id: str
    reused: bool

    @cached_property
    def test(self) -> pd.DataFrame:
        """Prediction table of the test split, read when it is asked for first."""
        return self.predictions("test")

    def predictions(self, split: str) -> pd.DataFrame:
        """Returns the prediction table of a split."""
        return load_predictions(artifact_path(self.run_id, PREDICTIONS.format(split=split)))
