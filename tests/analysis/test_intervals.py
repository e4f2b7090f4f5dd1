"""Means and differences over seeds and examples, with their intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from kdplatform.analysis.intervals import (
    change_over_temperature,
    mean_of_seeds_and_examples,
    mean_over_seeds,
    paired_difference,
)

VALUES = st.lists(st.floats(0, 1), min_size=3, max_size=8)


@given(VALUES)
def test_intervals_are_scipys(values: list[float]) -> None:
    found = mean_over_seeds(values)
    assert found.estimate == pytest.approx(np.mean(values))
    if np.ptp(values) < 1e-6:
        return
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_intervals_end_where_the_quantity_does() -> None:
    found = mean_over_seeds([0.99, 0.995]).within(0.0, 1.0)
    assert found.low > 0.9
    assert found.high == 1.0
    assert mean_over_seeds([0.02, 0.9]).within(0.0, 1.0)[1:] == (0.0, 1.0)
    assert np.isnan(mean_over_seeds([0.5]).within(0.0, 1.0).low)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=6, unique=True))
def test_the_steepest_line_bounds_every_change(temperatures: list[int]) -> None:
    levels = np.array(temperatures, dtype=float)
    above = (levels > levels.mean()).astype(float)
    # Of two seeds that differ by almost nothing, so that the interval is beside its estimate.
    steepest = change_over_temperature(np.stack([above, 0.999 * above]), levels, 1.0)
    assert steepest.high >= steepest.estimate
    wide = change_over_temperature(np.stack([above, -above]), levels, 1.0)
    assert wide.high == pytest.approx(steepest.estimate / 0.9995)
    assert wide.low == -wide.high


@given(VALUES, st.integers(0, 100))
def test_the_test_is_scipys(values: list[float], seed: int) -> None:
    other = np.random.default_rng(seed).random(len(values))
    found = paired_difference(values, other)
    expected = stats.ttest_rel(values, other)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.interval.estimate == pytest.approx(np.mean(values) - np.mean(other))
    # The interval excludes 0 where the test rejects.
    assert (found.p_value < 0.05) == (not found.interval.low <= 0 <= found.interval.high)


def test_seeds_that_all_differ_by_the_same_amount_prove_nothing() -> None:
    # Three of 450 test images, in both seeds: equal up to rounding.
    baseline = np.array([447, 446]) / 450
    found = paired_difference(baseline - 3 / 450, baseline)
    assert found.interval.estimate == pytest.approx(-3 / 450)
    assert np.isnan([found.interval.low, found.interval.high, found.p_value]).all()


def test_arms_that_never_differ_are_equal() -> None:
    found = paired_difference([0.5, 0.25], [0.5, 0.25])
    assert (found.interval.estimate, found.p_value) == (0.0, 1.0)
    assert np.isnan([found.interval.low, found.interval.high]).all()


def test_seeds_that_agree_are_no_certainty() -> None:
    found = mean_over_seeds([0.1 + 0.2, 0.3, 0.3])
    assert found.estimate == pytest.approx(0.3)
    assert np.isnan([found.low, found.high]).all()


def test_one_seed_has_no_interval() -> None:
    found = paired_difference([0.5], [0.25])
    assert found.interval.estimate == 0.25
    assert np.isnan([found.interval.low, found.interval.high, found.p_value]).all()


def test_arms_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="arms have 2 and 3 seeds; allowed: the same"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])


def test_the_change_is_that_of_each_seeds_line() -> None:
    temperatures = np.array([1.0, 2.0, 10.0])
    slopes = np.array([1.0, 2.0, 3.0])
    change = change_over_temperature(np.outer(slopes, temperatures), temperatures)
    assert change.estimate == pytest.approx(18)
    # t of 2 degrees of freedom, standard error 9 / sqrt(3)
    assert change.high - change.estimate == pytest.approx(4.302653 * 9 / np.sqrt(3))


@pytest.mark.parametrize("of_seeds", [0.0, 0.05])
def test_intervals_over_seeds_and_examples_hold_the_truth(of_seeds: float) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        own = rng.normal(0, 0.5, 200) + rng.normal(0, 0.5, (5, 200))
        interval = mean_of_seeds_and_examples(own + rng.normal(0, of_seeds, (5, 1)))
        held += interval.low <= 0 <= interval.high
    assert held >= 0.92 * 300
