"""Permuted groups, drawn as tables or by moving examples: one distribution, known on small data."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdplatform.analysis import group_permutation
from kdplatform.analysis.group_permutation import GroupPermutation
from kdplatform.analysis.profiles import models_of_arms

# With a cost of 1 the profiles of more than two examples are drawn as tables, the others moved.
WAYS = {"tables": 0, "both": 1, "examples": 10**9}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    monkeypatch.setattr(group_permutation, "_COST_OF_A_CELL", WAYS[request.param])


def models(n, seed=0, groups=3, arms=2):
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"id": range(n), "label": rng.integers(0, 2, n)})
    frame["color"] = np.array(list("abcdef"))[rng.integers(0, groups, n)]
    tables = [frame.assign(prediction=rng.integers(0, 2, n)) for _ in range(arms)]
    return models_of_arms({"a": tables}, "color", 1)


def flat(counts, _):
    """All counts of a draw in one row per model."""
    shape = counts.hits.shape[:2]
    parts = [np.broadcast_to(counts.positives, counts.hits.shape), counts.predicted, counts.hits]
    return {"counts": np.concatenate([part.reshape(*shape, -1) for part in parts], axis=2)}


def of_codes(own, codes):
    """Counts of examples whose codes were moved, by the slowest way there is."""
    found = []
    for prediction in own.predictions:
        row = []
        for chosen in (own.labels, prediction, np.where(prediction == own.labels, prediction, -1)):
            row += [np.sum((codes == g) & (chosen == c)) for g in range(3) for c in range(2)]
        found.append(row)
    return found


@pytest.mark.parametrize("stratified", [False, True])
def test_every_permutation_of_a_few_examples_is_as_likely(way, stratified):
    own = models(6, seed=3)
    codes, strata = own.groups.codes, own.labels if stratified else np.zeros_like(own.labels)
    exact: dict[bytes, int] = {}
    for order in permutations(range(6)):
        if np.array_equal(strata[list(order)], strata):
            key = np.array(of_codes(own, codes[list(order)]), dtype=float).tobytes()
            exact[key] = exact.get(key, 0) + 1
    drawn = GroupPermutation(own).measured(strata, 20_000, np.random.default_rng(0), flat)
    keys = [row.tobytes() for row in np.ascontiguousarray(drawn["counts"], dtype=float)]
    assert set(keys) == set(exact)
    number = pd.Series(keys).value_counts()
    expected = 20_000 * np.array(list(exact.values())) / sum(exact.values())
    assert stats.chisquare([number[key] for key in exact], expected).pvalue > 1e-3


def test_groups_keep_their_sizes_and_labels_their_strata(way):
    own = models(300)
    found = GroupPermutation(own).measured(own.labels, 50, np.random.default_rng(0), flat)
    positives = found["counts"][:, :, :6]
    sizes = [np.sum((own.groups.codes == g) & (own.labels == c)) for g in range(3) for c in (0, 1)]
    assert np.array_equal(positives, np.broadcast_to(sizes, positives.shape))


def test_one_draw_serves_all_models(way):
    frame = models(200, arms=1)
    twice = pd.DataFrame(
        {
            "id": range(200),
            "label": frame.labels,
            "prediction": frame.predictions[0],
            "color": np.array(list("abc"))[frame.groups.codes],
        }
    )
    own = models_of_arms({"a": [twice, twice]}, "color", 1)
    found = GroupPermutation(own).measured(np.zeros(200), 30, np.random.default_rng(0), flat)
    assert np.array_equal(found["counts"][:, 0], found["counts"][:, 1])
    assert len(np.unique(found["counts"][:, 0], axis=0)) > 20


def test_examples_drawn_anew_vary_as_binomials(way):
    own = models(400)
    strata = np.zeros_like(own.labels)
    found = GroupPermutation(own).measured(
        strata, 4000, np.random.default_rng(0), flat, redrawn=True
    )
    hits = found["counts"][:, 0, 12]  # of group a and class 0
    n, share = np.sum(own.groups.codes == 0), np.mean(own.predictions[0] + own.labels == 0)
    assert hits.mean() == pytest.approx(n * share, abs=4 * np.sqrt(n * share / 4000))
    assert hits.var() == pytest.approx(n * share * (1 - share), rel=0.1)


def test_only_common_profiles_are_drawn_as_tables():
    own = models(5000)
    profile, codes = GroupPermutation(own)._profiles.profile, own.groups.codes
    stratum = group_permutation._Stratum.of(np.where(profile < 3, profile, 99), codes, 3)
    assert stratum.common.tolist() == [0, 1, 2, 99]
    some = np.arange(5000) < 4990
    stratum = group_permutation._Stratum.of(np.where(some, 7, np.arange(5000)), codes, 3)
    assert (stratum.common.tolist(), stratum.sizes.tolist()) == ([7], [4990, 10])
    assert stratum.others.tolist() == list(range(4990, 5000))
