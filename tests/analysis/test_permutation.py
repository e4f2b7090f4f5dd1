from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from kdplatform.analysis.classwise import ArmAccuracies
from kdplatform.analysis.comparison import compare_classes
from kdplatform.analysis.permutation import permute_seeds, seed_splits
from kdplatform.analysis.significance import NORMALISATIONS, welch_by_class


def arm(accuracy):
    """An arm with given class accuracies [seeds, classes]; a class of NaN has no examples."""
    accuracy = np.asarray(accuracy, dtype=float)
    classes = accuracy.shape[1]
    n = np.where(np.isnan(accuracy[0]), 0, 1)
    return ArmAccuracies(
        np.arange(classes), np.arange(classes), n, accuracy, np.nanmean(accuracy, axis=1)
    )


def noisy_arm(rng, base, seeds=5, shift=0.0, deviation=0.03):
    """Class accuracies in steps of 1/100 that scatter over seeds by about 3 points."""
    values = base + shift + rng.normal(0, deviation, (seeds, len(base)))
    return arm(np.round(np.clip(values, 0, 1) * 100) / 100)


def arms(seeds_a=5, seeds_b=5, classes=30, shift=0.0):
    rng = np.random.default_rng(2)
    base = rng.uniform(0.5, 0.9, classes)
    return noisy_arm(rng, base, seeds_a), noisy_arm(rng, base, seeds_b, shift)


@pytest.mark.parametrize(
    ("seeds", "splits"), [((5, 5), 126), ((2, 2), 3), ((3, 5), 56), ((1, 2), 3)]
)
def test_all_splits_are_given_once_with_the_observed_one_first(seeds, splits):
    members, exhaustive = seed_splits(*seeds)
    assert exhaustive
    assert members.shape == (splits, sum(seeds))
    assert members[0].tolist() == [False] * seeds[0] + [True] * seeds[1]
    assert np.all(members.sum(axis=1) == seeds[1])
    distinct = {frozenset([tuple(row), tuple(~row)]) for row in members}
    assert len(distinct) == splits


def test_many_splits_are_sampled_with_the_observed_one_first():
    members, exhaustive = seed_splits(10, 10, max_splits=500)
    assert not exhaustive
    assert members.shape == (500, 20)
    assert members[0].tolist() == [False] * 10 + [True] * 10
    assert np.all(members.sum(axis=1) == 10)


def tables_of_all_splits(a, b, normalisation):
    """The class table of every split, by the function a user would call."""
    accuracy = np.concatenate([a.accuracy, b.accuracy])
    overall = np.concatenate([a.overall, b.overall])
    n_a, total = len(a.overall), len(overall)
    for chosen in combinations(range(total), n_a):
        rest = [i for i in range(total) if i not in chosen]
        yield welch_by_class(
            ArmAccuracies(a.ids, a.labels, a.n, accuracy[list(chosen)], overall[list(chosen)]),
            ArmAccuracies(a.ids, a.labels, a.n, accuracy[rest], overall[rest]),
            normalisation=normalisation,
        )


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("seeds", [(3, 3), (2, 4)])
def test_permutation_equals_recomputing_every_class_table(normalisation, seeds):
    a, b = arms(*seeds, classes=8, shift=0.02)
    tables = list(tables_of_all_splits(a, b, normalisation))
    counts = np.array([table["significant"].sum() for table in tables])
    largest = np.array([table["t"].abs().max() for table in tables])
    observed = tables[0]["t"].abs().to_numpy()  # combinations start with the observed split
    result = permute_seeds(a, b, normalisation=normalisation)
    assert result.count == counts[0]
    assert result.count_by_chance == pytest.approx(counts.mean())
    assert result.p_count == pytest.approx(np.mean(counts >= counts[0]))
    expected = [(largest >= t - 1e-9).mean() for t in observed]
    np.testing.assert_allclose(result.p_by_class, expected)
    assert result.p_max_t == pytest.approx(min(expected))


def binomial_interval(rejections, studies):
    return stats.binomtest(rejections, studies).proportion_ci(0.99)


def test_under_the_null_the_global_tests_reject_one_in_twenty():
    rng = np.random.default_rng(11)
    studies, classes = 400, 300
    by_count = by_max_t = 0
    for _ in range(studies):
        base = rng.uniform(0.5, 0.9, classes)
        result = permute_seeds(noisy_arm(rng, base), noisy_arm(rng, base))
        by_count += result.p_count <= 0.05
        by_max_t += result.p_max_t <= 0.05
    for rejections in (by_count, by_max_t):
        low, high = binomial_interval(rejections, studies)
        assert low < 0.05 < high


def test_twenty_per_cent_of_classes_shifted_by_six_points_are_found():
    rng = np.random.default_rng(12)
    shift = np.where(np.arange(100) < 20, 0.06, 0.0)
    found = 0
    for _ in range(50):
        base = rng.uniform(0.5, 0.9, 100)
        found += (
            permute_seeds(noisy_arm(rng, base), noisy_arm(rng, base, shift=shift)).p_count < 0.05
        )
    assert found >= 48


def test_two_seeds_cannot_reject():
    result = permute_seeds(*arms(2, 2, shift=0.2))
    assert result.splits == 3
    assert result.p_count >= 1 / 3


def test_same_models_in_both_arms_give_p_one():
    a, _ = arms()
    result = permute_seeds(a, a)
    assert (result.count, result.p_count, result.p_max_t) == (0, 1.0, 1.0)


def test_absent_classes_have_no_p_and_constant_ones_do_not_disturb():
    a, b = arms(classes=6)
    for side in (a, b):
        side.accuracy[:, 0] = np.nan
        side.n[0] = 0
        side.accuracy[:, 1] = 1.0
    result = permute_seeds(a, b, normalisation="pooled-difference")
    assert np.isnan(result.p_by_class[0])
    assert np.isfinite(result.p_by_class[1:]).all()


def test_comparison_bundles_table_counts_and_permutation():
    result = compare_classes(*arms(shift=0.0))
    assert result.counts.significant == result.permutation.count
    np.testing.assert_allclose(result.table["p_max_t"], result.permutation.p_by_class)
    assert 0.02 < result.detectable_shift < 0.12
    assert result.permutation.splits == 126


def test_constant_and_different_classes_have_no_family_wise_p():
    a, b = arms(classes=4)
    a.overall[:] = b.overall[:] = 0.5
    a.accuracy[:, 2], b.accuracy[:, 2] = 0.7, 0.8
    result = compare_classes(a, b)
    assert np.isnan(result.table["p_max_t"].iloc[2])
    assert not result.table["significant_max_t"].iloc[2]
    assert result.counts.undefined == 1


def test_too_few_splits_are_refused():
    with pytest.raises(ValueError, match="max_splits is 0"):
        permute_seeds(*arms(), max_splits=0)
