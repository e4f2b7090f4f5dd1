"""The exact test of pairs: its p, its own level, its interval and what it can detect."""

import numpy as np
import pytest
from scipy import stats

from kdplatform.analysis.mcnemar import (
    attained_level,
    change_interval,
    detectable_change,
    mcnemar_p,
)


def test_p_is_that_of_the_library() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 40, (2, 60))
    expected = [
        stats.binomtest(x, x + y).pvalue if x + y else 1.0 for x, y in zip(a, b, strict=True)
    ]
    assert mcnemar_p(a, b) == pytest.approx(expected)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_the_level_is_the_chance_of_all_significant_results(alpha: float) -> None:
    for m in (0, 3, 5, 6, 17, 60):
        results = np.arange(m + 1)
        chances = stats.binom.pmf(results, m, 0.5)
        expected = chances[mcnemar_p(results, m - results) < alpha].sum()
        assert attained_level(m, alpha) == pytest.approx(expected)


def test_five_examples_cannot_reach_the_level() -> None:
    assert attained_level([0, 1, 2, 3, 4, 5]).tolist() == [0] * 6
    assert attained_level(6) > 0


def test_the_interval_excludes_zero_exactly_where_the_test_does() -> None:
    a, b = (grid.ravel() for grid in np.meshgrid(np.arange(30), np.arange(30)))
    low, high = change_interval(a, b, 500)
    assert ((low > 0) | (high < 0)).tolist() == (mcnemar_p(a, b) < 0.05).tolist()
    assert (low <= (b - a) / 500).all()
    assert (high >= (b - a) / 500).all()


def test_no_difference_at_all_is_no_certainty() -> None:
    low, high = change_interval(0, 0, 100)
    assert low < -0.02 < 0.02 < high


def test_limits_end_at_the_range() -> None:
    low, high = change_interval([10, 0], [0, 10], 10)
    assert low.tolist()[0] == -1
    assert high.tolist()[1] == 1


@pytest.mark.parametrize(("n", "discordant"), [(400, 0), (400, 40), (5000, 900)])
def test_the_detectable_change_is_found_four_times_in_five(n: int, discordant: int) -> None:
    change = float(detectable_change(discordant, n))
    share = max(discordant / n, change)
    rng = np.random.default_rng(1)
    chances = [(share + change) / 2, (share - change) / 2, 1 - share]
    only_b, only_a, _ = rng.multinomial(n, chances, size=4000).T
    assert (mcnemar_p(only_a, only_b) < 0.05).mean() == pytest.approx(0.8, abs=0.03)


def test_a_handful_of_examples_shows_no_change_however_large() -> None:
    assert np.isinf(detectable_change(0, 7))
    assert detectable_change(0, 10) == pytest.approx(0.79, abs=0.01)
