"""Means and paired differences over a few seeds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from kdplatform.analysis.paired import mean_interval, paired_difference

VALUES = st.lists(st.floats(0, 1), min_size=3, max_size=8)


@given(VALUES)
def test_intervals_are_scipys(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.mean == pytest.approx(np.mean(values))
    if np.ptp(values) < 1e-6:
        return
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_intervals_end_where_the_quantity_does() -> None:
    found = mean_interval([0.99, 0.995], lowest=0.0, highest=1.0)
    assert found.low > 0.9
    assert found.high == 1.0


@given(VALUES, st.integers(0, 100))
def test_the_test_is_scipys(values: list[float], seed: int) -> None:
    other = np.random.default_rng(seed).random(len(values))
    found = paired_difference(values, other)
    expected = stats.ttest_rel(values, other)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.mean == pytest.approx(np.mean(values) - np.mean(other))
    # The interval excludes 0 where the test rejects.
    assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)


def test_seeds_that_all_differ_by_the_same_amount_prove_nothing() -> None:
    # Three of 450 test images, in both seeds: equal up to rounding.
    baseline = np.array([447, 446]) / 450
    found = paired_difference(baseline - 3 / 450, baseline)
    assert found.mean == pytest.approx(-3 / 450)
    assert np.isnan([found.low, found.high, found.p_value]).all()


def test_arms_that_never_differ_are_equal() -> None:
    found = paired_difference([0.5, 0.25], [0.5, 0.25])
    assert (found.mean, found.p_value) == (0.0, 1.0)
    assert np.isnan([found.low, found.high]).all()


def test_seeds_that_agree_are_no_certainty() -> None:
    found = mean_interval([0.1 + 0.2, 0.3, 0.3])
    assert found.mean == pytest.approx(0.3)
    assert np.isnan([found.low, found.high]).all()


def test_one_seed_has_no_interval() -> None:
    found = paired_difference([0.5], [0.25])
    assert found.mean == 0.25
    assert np.isnan([found.low, found.high, found.p_value]).all()


def test_arms_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="arms have 2 and 3 seeds; allowed: the same"):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0])
