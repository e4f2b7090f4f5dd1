import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdplatform.analysis.classwise import ArmAccuracies
from kdplatform.analysis.significance import (
    NORMALISATIONS,
    benjamini_hochberg,
    chance_of_count,
    hedges_g,
    holm,
    mcnemar_by_class,
    normalised,
    significance_counts,
    welch_by_class,
)


def arm(accuracy, n=100):
    """An arm with given class accuracies, of equally large classes."""
    accuracy = np.asarray(accuracy, dtype=float)
    classes = accuracy.shape[1]
    labels = np.repeat(np.arange(classes), n)
    counts = np.where(np.isnan(accuracy[0]), 0, n)
    return ArmAccuracies(
        np.arange(len(labels)), labels, counts, accuracy, np.nanmean(accuracy, axis=1)
    )


def random_arms(seed=0, seeds=(5, 5), classes=40):
    rng = np.random.default_rng(seed)
    return [arm(rng.binomial(100, 0.7, (count, classes)) / 100) for count in seeds]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("seeds", [(5, 5), (3, 7)])
def test_welch_equals_scipy_on_every_class(normalisation, seeds):
    a, b = random_arms(seeds=seeds)
    result = welch_by_class(a, b, normalisation=normalisation)
    expected = stats.ttest_ind(
        normalised(b, normalisation), normalised(a, normalisation), equal_var=False
    )
    np.testing.assert_allclose(result["p_value"], expected.pvalue, rtol=1e-9)
    np.testing.assert_allclose(result["t"], expected.statistic, rtol=1e-9)
    interval = stats.ttest_ind(b.accuracy, a.accuracy, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(result["difference_low"], interval.low, rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(result["difference_high"], interval.high, rtol=1e-7, atol=1e-12)


def test_intervals_of_accuracies_end_at_one():
    low, high = arm([[0.0, 0.5], [0.2, 0.5]]), arm([[1.0, 0.5], [0.7, 0.5]])
    row = welch_by_class(low, high).iloc[0]
    assert (row["difference_low"] < row["difference"], row["difference_high"]) == (True, 1.0)
    assert welch_by_class(high, low).iloc[0]["difference_low"] == -1.0


def test_ratio_divides_each_seed_by_its_own_overall_accuracy():
    values = normalised(arm([[0.5, 1.0], [0.2, 0.4]]), "ratio")
    np.testing.assert_allclose(values, [[2 / 3, 4 / 3], [2 / 3, 4 / 3]])


def test_unknown_normalisation_is_refused():
    with pytest.raises(ValueError, match="'mean'; allowed"):
        welch_by_class(*random_arms(), normalisation="mean")


def test_constant_and_equal_class_has_p_one():
    a, b = random_arms(classes=3)
    a.accuracy[:, 1] = b.accuracy[:, 1] = 0.7
    row = welch_by_class(a, b, normalisation="pooled-difference").iloc[1]
    a.overall[:] = b.overall[:] = 0.7
    equal = welch_by_class(a, b, normalisation="difference").iloc[1]
    assert equal["p_value"] == 1.0
    assert equal["status"] == "tested"
    assert np.isnan(row["p_value"])  # pooled means differ, so the same class is shifted for sure


def test_constant_and_different_class_is_undefined_and_not_counted():
    a, b = random_arms(classes=3)
    a.overall[:] = b.overall[:] = 0.7
    a.accuracy[:, 1], b.accuracy[:, 1] = 0.7, 0.8
    result = welch_by_class(a, b)
    assert np.isnan(result["p_value"].iloc[1])
    assert result["status"].iloc[1] == "undefined: no variance"
    assert not result["significant"].iloc[1]
    counts = significance_counts(result)
    assert (counts.classes, counts.tested, counts.undefined) == (3, 2, 1)
    assert counts.expected_by_chance == pytest.approx(0.1)


def test_absent_class_is_not_tested():
    a, b = random_arms(classes=3)
    for side in (a, b):
        side.accuracy[:, 2] = np.nan
        side.n[2] = 0
    result = welch_by_class(a, b)
    assert result["status"].tolist() == ["tested", "tested", "absent"]
    assert significance_counts(result).undefined == 0


def test_one_seed_is_refused_by_name():
    a, b = random_arms(seeds=(5, 1))
    with pytest.raises(ValueError, match="arm b has 1 seed"):
        welch_by_class(a, b)


def test_hedges_g_is_the_corrected_standardised_difference():
    a, b = (side.accuracy for side in random_arms())
    g, low, high = hedges_g(a, b, 0.95)
    pooled = np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / 2)
    approximate = (b.mean(axis=0) - a.mean(axis=0)) / pooled * (1 - 3 / (4 * 8 - 1))
    np.testing.assert_allclose(g, approximate, rtol=2e-3)
    assert np.all((low < g) & (g < high))


def test_hedges_g_interval_covers_the_true_effect():
    rng = np.random.default_rng(3)
    g, low, high = hedges_g(rng.normal(0, 1, (5, 4000)), rng.normal(0.8, 1, (5, 4000)), 0.95)
    assert g.mean() == pytest.approx(0.8, abs=0.04)
    # the limits carry the same small-sample factor as g, which costs a little coverage
    assert 0.92 < np.mean((low < 0.8) & (high > 0.8)) < 0.97


def mcnemar_tables(seed=0, classes=12, n=600):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    tables = []
    for accuracy in (0.6, 0.7):
        wrong = (labels + 1) % classes
        prediction = np.where(rng.random(n) < accuracy, labels, wrong)
        tables.append(pd.DataFrame({"id": np.arange(n), "label": labels, "prediction": prediction}))
    return tables


def test_mcnemar_equals_the_exact_binomial_test():
    result = mcnemar_by_class(*mcnemar_tables())
    for _, row in result.iterrows():
        discordant = row["only_a_right"] + row["only_b_right"]
        expected = stats.binomtest(row["only_a_right"], discordant).pvalue
        assert row["p_value"] == pytest.approx(expected, rel=1e-12)


def test_mcnemar_of_a_model_with_itself_finds_nothing():
    a, _ = mcnemar_tables()
    result = mcnemar_by_class(a, a)
    assert (result["p_value"] == 1.0).all()
    assert not result["significant"].any()


def test_mcnemar_reports_absent_classes():
    result = mcnemar_by_class(*mcnemar_tables(), n_classes=14)
    assert result["status"].iloc[-2:].tolist() == ["absent", "absent"]
    assert significance_counts(result).tested == 12


def test_benjamini_hochberg_and_holm_ignore_missing_p_values():
    p = np.array([0.001, np.nan, 0.02, 0.03, 0.2])
    known = ~np.isnan(p)
    np.testing.assert_allclose(
        benjamini_hochberg(p)[known], stats.false_discovery_control(p[known])
    )
    # by hand: 4 x .001, 3 x .02, then the running maximum of 2 x .03, and 1 x .2
    np.testing.assert_allclose(holm(p)[known], [0.004, 0.06, 0.06, 0.2])
    assert np.isnan(holm(p)[1])
    assert np.isnan(benjamini_hochberg(p)[1])


# CIFAR-100, ResNet-56 to ResNet-20, #SC for T = 2..10 as the paper's Table 1 prints them
PAPER_SC = {2: 5, 3: 7, 4: 8, 5: 9, 6: 9, 7: 10, 8: 13, 9: 18, 10: 22}


@pytest.mark.parametrize(("temperature", "count"), PAPER_SC.items())
def test_papers_cifar_100_counts_are_above_chance_only_from_temperature_7(temperature, count):
    expected, probability = chance_of_count(count, 100)
    assert expected == pytest.approx(5.0)
    assert (probability < 0.05) == (temperature >= 7)


def test_papers_imagenet_counts_are_far_above_chance():
    assert chance_of_count(77, 1000)[1] < 2e-4
    assert chance_of_count(408, 1000)[1] < 1e-100


@pytest.mark.parametrize("alpha", [0, 1, -0.1, float("nan")])
def test_levels_outside_zero_to_one_are_refused(alpha):
    with pytest.raises(ValueError, match="alpha is"):
        significance_counts(welch_by_class(*random_arms()), alpha=alpha)


@pytest.mark.parametrize("correction", [holm, benjamini_hochberg])
@pytest.mark.parametrize("bad", [[-0.5, 0.2], [0.5, 2.0], [[0.1], [0.2]]])
def test_corrections_refuse_what_is_no_list_of_p_values(correction, bad):
    with pytest.raises(ValueError, match=r"^p_values (hold|have shape)"):
        correction(bad)
