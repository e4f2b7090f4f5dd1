"""Draws of many small cells: the multinomial's own mean, covariance, margins and quantiles."""

import numpy as np
import pytest
from scipy import stats

from kdplatform.analysis.multinomial import Resampler

# Cells above and below the largest that is drawn by a table, and examples that are alone.
SIZES = np.array([150, 70, 64, 20, 20, 7, *[2] * 10, *[1] * 60])
N = int(SIZES.sum())
DRAWS = 40_000


@pytest.fixture(scope="module")
def drawn():
    return Resampler(SIZES).draw(DRAWS, np.random.default_rng(0)).astype(float)


def test_every_draw_has_as_many_examples_as_there_are(drawn):
    assert drawn.shape == (len(SIZES), DRAWS)
    assert np.array_equal(drawn.sum(axis=0), np.full(DRAWS, N))
    assert drawn.min() == 0
    assert np.array_equal(drawn, drawn.round())


def test_means_and_covariances_are_the_multinomials(drawn):
    share = SIZES / N
    covariance = N * (np.diag(share) - np.outer(share, share))
    error = np.sqrt(np.diag(covariance) / DRAWS)
    assert np.all(np.abs(drawn.mean(axis=1) - SIZES) < 4.5 * error)
    # Variance of a product of centred numbers, from the draws themselves.
    centred = drawn - SIZES[:, None]
    products = centred[:, None, ::20] * centred[None, :, ::20]
    error = products.std(axis=2) / np.sqrt(DRAWS)
    assert np.all(np.abs(np.cov(drawn) - covariance) < 5 * error + 1e-9)


@pytest.mark.parametrize("cell", [0, 2, 3, 5, 8, -1])
def test_each_cell_is_binomial(drawn, cell):
    values, numbers = np.unique(drawn[cell], return_counts=True)
    expected = DRAWS * stats.binom.pmf(values, N, SIZES[cell] / N)
    often = expected > 10
    rest = DRAWS - expected[often].sum()
    observed = np.append(numbers[often], DRAWS - numbers[often].sum())
    p = stats.chisquare(observed, np.append(expected[often], rest)).pvalue
    assert p > 1e-3


def test_the_range_of_rates_has_the_quantiles_of_resampled_examples(drawn):
    # A largest difference, as the metrics are: it depends on all cells at once.
    cell = np.repeat(np.arange(len(SIZES)), SIZES)
    rng = np.random.default_rng(1)
    plain = np.stack(
        [np.bincount(rng.choice(cell, N), minlength=len(SIZES)) for _ in range(10_000)], axis=1
    )
    ranges = [np.ptp(each[:20] / SIZES[:20, None], axis=0) for each in (drawn, plain)]
    assert stats.ks_2samp(*ranges).pvalue > 1e-3


@pytest.mark.parametrize(
    "sizes", [[1], [1, 1, 1], [200], [65, 1], [3] * 400], ids=["1", "3", "200", "65+1", "1200"]
)
def test_few_cells_and_cells_of_one_kind_are_drawn_too(sizes):
    found = Resampler(np.array(sizes)).draw(2000, np.random.default_rng(2))
    assert np.all(found.sum(axis=0) == sum(sizes))
    share = np.array(sizes) / sum(sizes)
    spread = np.sqrt(sum(sizes) * share * (1 - share) / 2000)
    assert np.all(np.abs(found.mean(axis=1) - sizes) <= 4.5 * spread)
