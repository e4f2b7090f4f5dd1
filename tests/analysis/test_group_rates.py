"""Spreads of rates over groups, from counts."""

import warnings

import numpy as np
import pytest

from kdplatform.analysis.group_rates import spread_of_rates


@pytest.mark.parametrize("kind", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("zeros", [False, True], ids=["no empty group", "an empty group"])
@pytest.mark.parametrize("one_denominator", [False, True])
def test_spreads_of_rates_equal_the_largest_minus_the_smallest(kind, zeros, one_denominator):
    rng = np.random.default_rng(0)
    denominator = rng.integers(1, 50, (7, 3, 4, 1 if one_denominator else 6)).astype(kind)
    numerator = (rng.integers(0, 50, (7, 3, 4, 6)) % (denominator + 1)).astype(kind)
    enough = rng.random((4, 1 if one_denominator else 6)) < 0.7
    enough[:2] = [[True], [False]]
    if not one_denominator:
        enough[1:, 3] = False
    if zeros:
        denominator[2, :, 0] = numerator[2, :, 0] = 0
    rates = np.where(enough & (denominator > 0), numerator / np.maximum(denominator, 1), np.nan)
    known = np.isfinite(rates).sum(axis=-2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.nanmax(rates, axis=-2) - np.nanmin(rates, axis=-2)
    expected[known < 2] = np.nan
    found = spread_of_rates(numerator, denominator, enough)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert np.isnan(expected[..., 3]).all() or one_denominator
