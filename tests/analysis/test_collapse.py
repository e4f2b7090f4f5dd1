"""Models that have learnt nothing are recognised, and others are not taken for them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdplatform.analysis.collapse import Collapse, collapse_of
from kdplatform.predictions import Predictions

N = 2000
RNG = np.random.default_rng(0)
LABELS = RNG.choice(4, N, p=[0.55, 0.25, 0.15, 0.05])
SEX = np.array(["f", "m"])[RNG.integers(0, 2, N)]


def collapse(predictions: np.ndarray, attributes: tuple[str, ...] = ()) -> Collapse:
    frame = {"id": range(N), "label": LABELS, "prediction": predictions, "sex": SEX}
    return collapse_of(Predictions.of(pd.DataFrame(frame)), attributes)


def test_a_constant_model_is_at_chance_however_often_it_is_right() -> None:
    found = collapse(np.zeros(N, dtype=int))
    assert found.constant == 0
    assert found.accuracy == found.chance > 0.5
    assert found.at_chance
    assert found.never == (1, 2, 3)
    assert found.signs == 4


def test_guessing_by_base_rates_is_at_chance() -> None:
    found = collapse(RNG.permutation(LABELS))
    assert found.constant is None
    assert found.at_chance
    assert found.never == ()


def test_what_is_worse_than_chance_is_at_chance() -> None:
    assert collapse((LABELS + 1) % 4).at_chance


def test_a_weak_model_that_learnt_something_is_not() -> None:
    found = collapse(np.where(RNG.random(N) < 0.1, LABELS, RNG.permutation(LABELS)))
    assert not found.at_chance
    assert found.signs == 0


def test_p_is_that_of_random_matchings() -> None:
    predictions = np.where(RNG.random(N) < 0.02, LABELS, RNG.permutation(LABELS))
    found = collapse(predictions)
    right = [(RNG.permutation(predictions) == LABELS).mean() for _ in range(2000)]
    assert found.chance == pytest.approx(np.mean(right), abs=0.002)
    z = stats.norm.isf(found.p_chance)
    assert (found.accuracy - found.chance) / z == pytest.approx(np.std(right), rel=0.06)


def test_a_class_never_predicted_in_a_group_is_named() -> None:
    predictions = np.where((SEX == "f") & (LABELS == 2), 0, LABELS)
    found = collapse(predictions, ("sex",))
    assert found.never == ()
    assert found.never_in_groups == (("sex", "f", 2),)
    assert found.signs == 1


def test_a_group_with_few_examples_of_a_class_is_not_held_to_it() -> None:
    rare = np.flatnonzero((SEX == "f") & (LABELS == 3))
    assert len(rare) >= 30
    frame = pd.DataFrame({"id": range(N), "label": LABELS, "prediction": LABELS, "sex": SEX})
    frame.loc[rare, "prediction"] = 0
    table = Predictions.of(frame)
    assert collapse_of(table, ("sex",), len(rare) + 1).never_in_groups == ()
    assert collapse_of(table, ("sex",), len(rare)).never_in_groups == (("sex", "f", 3),)
