"""Weighted means of many cells at once, with their variance over examples."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from kdplatform.analysis.tables import quotient
from kdplatform.predictions import FloatArray

# Below this a variance is rounding of sums: values that never vary are no certainty.
_NO_VARIANCE = 1e-14


class WeightedChange(NamedTuple):
    """A weighted mean of every cell with its limits; NaN where they are not known. [cells]."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


def variance_of_weighted_means(
    n: FloatArray,
    weight: FloatArray,
    square: FloatArray,
    mean: FloatArray,
    linear: FloatArray,
    squares: FloatArray,
) -> FloatArray:
    """Variance of weighted means over examples: n / (n - 1) sum of w² (x - mean)² / (sum of w)².

    A weighted mean is a ratio of two sums, both of which vary with the examples drawn; this is its
    linearisation (Hájek 1971). Equal weights give the usual s² / n. All arguments have one shape.

    Args:
        n: Examples.
        weight: Sum of w.
        square: Sum of w².
        linear: Sum of w² x.
        squares: Sum of w² x².
    """
    residuals = squares - 2 * mean * linear + mean**2 * square
    return quotient(residuals * n, weight**2 * (n - 1))


def weighted_changes(
    sums: Callable[[FloatArray], FloatArray],
    values: FloatArray,
    weights: FloatArray,
    alpha: float = 0.05,
) -> WeightedChange:
    """Weighted mean of every cell with its t interval over examples, cut off at -1 and 1.

    Args:
        sums: Adds values up by cell: [rows, examples] to [rows, cells].
        values: One per example. [examples]
        weights: How much each example counts. [examples]
    """
    rows = np.stack(
        [
            (weights > 0).astype(float),
            weights,
            weights**2,
            weights * values,
            weights**2 * values,
            weights**2 * values**2,
        ]
    )
    n, weight, square, total, linear, squares = sums(rows)
    mean = quotient(total, weight)
    variance = variance_of_weighted_means(n, weight, square, mean, linear, squares)
    known = variance > _NO_VARIANCE
    margin = special.stdtrit(np.maximum(n - 1, 1), 1 - alpha / 2) * np.sqrt(
        np.where(known, variance, np.nan)
    )
    return WeightedChange(mean, np.maximum(mean - margin, -1.0), np.minimum(mean + margin, 1.0))
