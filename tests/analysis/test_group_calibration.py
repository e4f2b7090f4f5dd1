"""Calibration within groups."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.calibration import calibration
from kdplatform.analysis.group_calibration import calibration_by_group
from kdplatform.predictions import Predictions

N = 2000


def table(*, overconfident: str = "") -> Predictions:
    """Scores that are true probabilities; twice as sure as that in one group."""
    rng = np.random.default_rng(0)
    sex = np.array(["f", "m"])[np.arange(N) % 2]
    log_odds = rng.normal(size=N)
    labels = (rng.random(N) < 1 / (1 + np.exp(-log_odds))).astype(int)
    log_odds = np.where(sex == overconfident, 3 * log_odds, log_odds)
    logits = np.stack([np.zeros(N), log_odds], axis=1).astype(np.float32)
    columns = {"id": range(N), "label": labels, "prediction": logits.argmax(axis=1), "sex": sex}
    return Predictions.of(pd.DataFrame(columns | {"logits": list(logits)}))


def only(whole: Predictions, group: str) -> Predictions:
    rows = (whole.columns["sex"] == group).to_numpy()
    assert whole.logits is not None
    return Predictions(
        whole.ids[rows],
        whole.labels[rows],
        whole.predictions[rows],
        whole.logits[rows],
        whole.columns[rows].reset_index(drop=True),
        None if whole.weights is None else whole.weights[rows],
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_ece_and_scores_are_those_of_the_groups_own_examples(weighted: bool) -> None:
    weights = np.random.default_rng(1).uniform(0.1, 2, N) if weighted else None
    whole = replace(table(), weights=weights)
    found = calibration_by_group(whole, "sex", positive=1).set_index("group")
    for group in "fm":
        own = only(whole, group)
        assert own.logits is not None
        score = 1 / (1 + np.exp(-own.logits[:, 1].astype(float)))
        assert found.loc[group, "ece"] == pytest.approx(calibration(own).ece)
        assert found.loc[group, "mean_score"] == pytest.approx(
            np.average(score, weights=own.weights)
        )
        assert found.loc[group, "base_rate"] == pytest.approx(
            np.average(own.labels, weights=own.weights)
        )


def test_the_overconfident_group_stands_out_from_what_chance_gives() -> None:
    found = calibration_by_group(table(overconfident="f"), "sex").set_index("group")
    assert found.loc["f", "ece"] > 3 * found.loc["f", "ece_by_chance"]
    assert found.loc["m", "ece"] < 1.5 * found.loc["m", "ece_by_chance"]
    assert "mean_score" not in found


def test_small_groups_are_listed_and_not_measured() -> None:
    found = calibration_by_group(table(), "sex", positive=1, min_group_size=1001)
    assert found["n"].tolist() == [1000, 1000]
    assert found[["ece", "mean_score", "base_rate"]].isna().all(axis=None)
