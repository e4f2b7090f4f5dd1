"""Agreement of two arms by group, against the noise between seeds."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.agreement import agreement_by_group
from kdplatform.analysis.disagreement import disagreement, disagreement_within
from kdplatform.predictions import Predictions

N = 600
SEX = np.array(["f", "m"])[np.arange(N) % 2]


def model(seed: int, *, flip: float = 0.0) -> Predictions:
    """A model with errors of its own; `flip` of the group f is decided otherwise than by others."""
    shared, own = np.random.default_rng(0), np.random.default_rng(seed)
    labels = shared.integers(0, 3, N)
    kind = (shared.random(N) < flip) & (SEX == "f")
    wrong = own.random(N) < 0.15
    prediction = (labels + np.where(kind, 1, 0) + np.where(wrong, 1, 0)) % 3
    return Predictions.of(
        pd.DataFrame({"id": range(N), "label": labels, "prediction": prediction, "sex": SEX})
    )


def of_group(table: Predictions, group: str) -> Predictions:
    rows = group == SEX
    return Predictions(
        table.ids[rows],
        table.labels[rows],
        table.predictions[rows],
        None,
        table.columns[rows].reset_index(drop=True),
        None if table.weights is None else table.weights[rows],
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_agreement_is_one_minus_the_disagreement_of_the_groups_own_examples(
    weighted: bool,
) -> None:
    weights = np.random.default_rng(1).uniform(0, 2, N) if weighted else None
    a, b = ([replace(model(10 * side + i), weights=weights) for i in range(3)] for side in (1, 2))
    found = agreement_by_group(a, b, "sex").set_index("group")
    for group in "fm":
        first, second = ([of_group(t, group) for t in side] for side in (a, b))
        pairs = [disagreement(x, y) for x, y in zip(first, second, strict=True)]
        assert found.loc[group, "agreement"] == pytest.approx(1 - np.mean(pairs))
        assert found.loc[group, "within_a"] == pytest.approx(1 - disagreement_within(first))
        across = np.mean([disagreement(x, y) for x in first for y in second])
        noise = (disagreement_within(first) + disagreement_within(second)) / 2
        assert found.loc[group, "excess_disagreement"] == pytest.approx(across - noise)


def test_only_the_group_that_is_decided_otherwise_exceeds_the_noise_of_seeds() -> None:
    a, b = [model(i) for i in range(5)], [model(10 + i, flip=0.1) for i in range(5)]
    found = agreement_by_group(a, b, "sex").set_index("group")
    assert found.loc["f", "p_value"] == pytest.approx(1 / 126)  # the smallest there is
    assert found.loc["f", "excess_disagreement"] > 0.03
    assert abs(found.loc["m", "excess_disagreement"]) < 0.01


def test_p_is_uniform_where_both_sides_are_seeds_of_one_kind() -> None:
    low = 0
    for start in range(0, 800, 8):
        seeds = range(1000 + start, 1008 + start)
        models = [model(seed) for seed in seeds]
        found = agreement_by_group(models[:4], models[4:], "sex").set_index("group")
        low += found.loc["m", "p_value"] <= 0.1
    assert 2 <= low <= 19  # 9 are expected: 3 of 35 splits


def test_one_model_a_side_has_no_noise_to_be_held_against() -> None:
    found = agreement_by_group([model(0)], [model(1)], "sex")
    assert found["agreement"].between(0.6, 0.9).all()
    unknown = ["within_a", "within_b", "excess_disagreement", "p_value"]
    assert found[unknown].isna().all(axis=None)


def test_small_groups_are_listed_and_not_measured() -> None:
    found = agreement_by_group([model(0)], [model(1)], "sex", min_group_size=301)
    assert found["n"].tolist() == [300, 300]
    assert found["agreement"].isna().all()
