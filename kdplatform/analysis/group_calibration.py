"""Calibration within groups: ECE with its chance level, and mean scores with base rates."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.calibration import equal_mass_bins, probability_of
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.tables import Attribute, attribute_groups
from kdplatform.predictions import FloatArray, IntArray, Predictions, Table

_DRAWS = 200


def calibration_by_group(
    table: Table,
    attribute: Attribute,
    *,
    positive: int | None = None,
    confidence: FloatArray | None = None,
    scores: FloatArray | None = None,
    min_group_size: int = MIN_GROUP_SIZE,
    draws: int = _DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """ECE of every group, and the mean score of the favourable class with its base rate.

    ECE is `calibration.expected_calibration_error` on the group's examples. By chance it is above
    0, and more so in small groups. `ece_by_chance` is the mean of simulations in which every
    prediction is right with the probability that the model gives it. If the mean score is above the
    base rate, the model expects the favourable class too often.

    Args:
        positive: The favourable class; None: no score.
        confidence: Probability of the predicted class, if it is known already. [examples]
        scores: Probability of the favourable class, if it is known already. [examples]
        min_group_size: Smaller groups are listed and not measured.
        draws: Simulations.

    Returns:
        One row per group: `attribute`, `group`, `n`, `ece`, `ece_by_chance`, and with `positive`
        also `mean_score` and `base_rate`.

    Raises:
        ValueError: The table has no logits, or the attribute no group.
    """
    checked = Predictions.of(table)
    groups = attribute_groups(checked, attribute)
    if confidence is None:
        confidence = probability_of(checked, checked.predictions)
    if positive is not None and scores is None:
        scores = probability_of(checked, positive)
    weights = np.ones(len(checked)) if checked.weights is None else checked.weights
    generator = np.random.default_rng(seed)
    rows = []
    for number, name in enumerate(groups.names):
        own = np.flatnonzero((groups.codes >= 0) & groups.members[groups.codes, number])
        own = own[weights[own] > 0]
        row: dict[str, object] = {"attribute": groups.attribute, "group": name, "n": len(own)}
        if len(own) >= min_group_size:
            share, sure = weights[own], confidence[own]
            bins = equal_mass_bins(sure)
            right = generator.random((draws, len(own))) < sure
            row["ece"] = float(_errors(bins, checked.correct[None, own] - sure, share)[0])
            row["ece_by_chance"] = float(_errors(bins, right - sure, share).mean())
            if positive is not None and scores is not None:
                row["mean_score"] = float(np.average(scores[own], weights=share))
                row["base_rate"] = float(np.average(checked.labels[own] == positive, weights=share))
        rows.append(row)
    columns = ["attribute", "group", "n", "ece", "ece_by_chance"]
    columns += [] if positive is None else ["mean_score", "base_rate"]
    return pd.DataFrame(rows, columns=columns)


def _errors(bins: IntArray, gaps: npt.NDArray[np.floating], weights: FloatArray) -> FloatArray:
    """ECE of every row of gaps between correctness and confidence. [draws]."""
    chosen = np.zeros((len(bins), int(bins.max()) + 1))
    chosen[np.arange(len(bins)), bins] = weights
    return np.asarray(np.abs(gaps @ chosen).sum(axis=1) / weights.sum())
