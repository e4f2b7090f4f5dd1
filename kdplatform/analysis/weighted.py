"""Weighted means of many cells at once, with their variance over examples."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import special

from kdplatform.analysis.tables import quotient
from kdplatform.predictions import FloatArray

# A variance of single values below this comes from rounding.
_ROUNDING = 1e-12


# Adds values up by cell: [rows, examples] to [rows, cells].
Sums = Callable[[FloatArray], FloatArray]


class WeightedChange(NamedTuple):
    """A weighted mean of every cell with its limits; NaN where they are not known. [cells]."""

    mean: FloatArray
    low: FloatArray
    high: FloatArray


def weighted_means(sums: Sums, values: FloatArray, weights: FloatArray | None) -> FloatArray:
    """Mean of every cell, NaN if none of its examples has weight. [rows, cells].

    Args:
        values: [rows, examples]
        weights: How much each example counts; None: all alike. [examples]
    """
    share = np.ones(values.shape[1]) if weights is None else weights
    return quotient(sums(values * share), sums(share[None]))


def variance_of_weighted_means(
    n: FloatArray,
    weight: FloatArray,
    square: FloatArray,
    mean: FloatArray,
    linear: FloatArray,
    squares: FloatArray,
) -> FloatArray:
    """Variance of weighted means over examples: n / (n - 1) sum of w² (x - mean)² / (sum of w)².

    A weighted mean is a ratio of two sums, and both vary with the drawn examples. This is its
    linearisation (Hájek 1971). Equal weights give the usual s² / n. All arguments have the same
    shape.

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
    sums: Sums,
    values: FloatArray,
    weights: FloatArray,
    alpha: float = 0.05,
) -> WeightedChange:
    """Weighted mean of every cell with its t interval over examples, cut off at -1 and 1.

    Args:
        values: One per example. [examples]
        weights: How much each example counts. [examples]
    """
    mean = weighted_means(sums, values[None], weights)[0]
    n = sums((weights > 0).astype(float)[None])[0]
    variance = variance_over_examples(sums, values, mean, weights)
    reach = special.stdtrit(np.maximum(n - 1, 1), 1 - alpha / 2) * np.sqrt(variance)
    margin = np.where(variance > 0, reach, np.nan)
    return WeightedChange(mean, np.maximum(mean - margin, -1.0), np.minimum(mean + margin, 1.0))


def variance_over_examples(
    sums: Sums, values: FloatArray, mean: FloatArray, weights: FloatArray
) -> FloatArray:
    """Variance of the weighted mean of every cell; 0 if all its values are equal. [cells].

    Args:
        values: One per example. [examples]
        mean: Their weighted mean in every cell. [cells]
        weights: How much each example counts. [examples]
    """
    squared = weights**2
    rows = [(weights > 0).astype(float), weights, squared, squared * values, squared * values**2]
    n, weight, square, linear, squares = sums(np.stack(rows))
    variance = variance_of_weighted_means(n, weight, square, mean, linear, squares)
    return np.where(variance * (n - 1) > _ROUNDING, variance, 0.0)
