"""Permutation of seeds: do more classes differ than the seeds give by chance?

If two arms do not differ, the assignment of seeds to arms is arbitrary, so every split of the seeds
is as likely as the observed one. The whole class table is recomputed for each split. The test
assumes nothing about distributions, about independence of classes, or about how many classes are
significant by chance.
"""

from dataclasses import dataclass
from functools import cache
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
from scipy import special

from kdplatform.analysis.classwise import Arm
from kdplatform.analysis.significance import (
    ROUNDING,
    Normalisation,
    arm_pair,
    check_fraction,
    normalised,
)
from kdplatform.analysis.tables import quotient
from kdplatform.predictions import FloatArray, IntArray

# A variance below this share of a class's sum of squares comes from rounding, not from seeds.
_NO_VARIANCE = 1e-12
# Splits worked on at a time: bounds memory at 10,000 splits of 1,000 classes.
_SPLITS = 256
# Critical values are interpolated. A statistic this close to one is decided by its exact p-value.
_INTERPOLATION_ERROR = 1e-4


@dataclass(frozen=True)
class SeedPermutation:
    """Result of permuting the seeds of two arms.

    Attributes:
        splits: Splits of the seeds examined, the observed one included. The smallest p possible is
            1 / `splits`.
        exhaustive: Whether these are all splits; otherwise they are a random sample.
        count: Classes with p below alpha in the observed split (the paper's #SC or #TC).
        count_by_chance: Mean of that count over the splits.
        p_count: Share of splits whose count is at least the observed one: the global test.
        max_t: Largest |t| of a class in the observed split.
        p_max_t: Share of splits whose largest |t| is at least the observed one.
        p_by_class: Family-wise p of each class: share of splits whose largest |t| over all classes
            is at least the class's |t|; NaN for a class without a test. [classes]
    """

    splits: int
    exhaustive: bool
    count: int
    count_by_chance: float
    p_count: float
    max_t: float
    p_max_t: float
    p_by_class: FloatArray


def seed_splits(
    n_a: int, n_b: int, *, max_splits: int = 10_000, seed: int = 0
) -> tuple[npt.NDArray[np.bool_], bool]:
    """Ways to choose arm b's seeds among all seeds; the first row is the observed one.

    With equally many seeds in both arms, exchanging the arms changes no |t|. Only one split of each
    such pair is therefore returned: 126 for five and five.

    Args:
        n_a: Seeds of arm a, which come first.
        n_b: Seeds of arm b.
        max_splits: If there are more splits, this many are drawn at random.

    Returns:
        Membership in arm b, [splits, seeds], and whether all splits are included.
    """
    total = n_a + n_b
    mirrored = n_a == n_b
    if comb(total, n_b) // (1 + mirrored) <= max_splits:
        # with mirrored arms the last seed stays in arm b
        free, chosen = (total - 1, n_b - 1) if mirrored else (total, n_b)
        rows = [
            (*row, total - 1) if mirrored else row
            for row in combinations(range(free - 1, -1, -1), chosen)
        ]
        splits = np.zeros((len(rows), total), dtype=bool)
        np.put_along_axis(splits, np.array(rows, dtype=np.intp), True, axis=1)
        return splits, True
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(total), (max_splits, 1)), axis=1)
    order[0] = np.arange(total)
    return np.asarray(order >= n_a), False


@cache
def _critical_values(fewest: int, most: int, alpha: float) -> tuple[FloatArray, FloatArray]:
    """Degrees of freedom, finely spaced, and the two-sided critical t of each."""
    degrees = np.linspace(fewest, most, 4097)
    return degrees, np.asarray(special.stdtrit(degrees, 1 - alpha / 2), dtype=float)


class _SplitTester:
    """Welch's t of every class for many splits of the seeds at once."""

    def __init__(
        self, location: FloatArray, values: FloatArray, n: tuple[int, int], alpha: float
    ) -> None:
        """Takes the values for means and those for variances, [seeds, classes], arm a first."""
        self.tested = np.isfinite(values).all(axis=0)
        self.location = self._centred(location[:, self.tested])
        self.values = self._centred(values[:, self.tested])
        self.n = n
        self.alpha = alpha
        self.noise = _NO_VARIANCE * (self.values**2).sum(axis=0)
        self.grid, self.critical = _critical_values(min(self.n) - 1, sum(self.n) - 2, alpha)

    @staticmethod
    def _centred(values: FloatArray) -> FloatArray:
        constant = np.ptp(values, axis=0) <= ROUNDING
        return np.where(constant, 0.0, values - values.mean(axis=0))

    def _variance_of_mean(self, squares: FloatArray, sums: FloatArray, n: int) -> FloatArray:
        variance = (squares - sums**2 / n) / (n - 1)
        return np.where(variance <= self.noise, 0.0, variance) / n

    def __call__(self, splits: npt.NDArray[np.bool_]) -> tuple[FloatArray, IntArray]:
        """|t| [splits, tested classes], 0 if undefined, and the number of significant classes."""
        in_b, (n_a, n_b) = splits.astype(float), self.n

        def sum_over_b(values: FloatArray) -> FloatArray:
            # the library's threads cost more than they gain in a matrix product this small
            return np.asarray(np.einsum("sn,nk->sk", in_b, values, optimize=False))

        # values are centred, so the sum of one arm is minus the sum of the other
        difference = sum_over_b(self.location) * (1 / n_a + 1 / n_b)
        sums, squares = sum_over_b(self.values), sum_over_b(self.values**2)
        part_a = self._variance_of_mean((self.values**2).sum(axis=0) - squares, sums, n_a)
        part_b = self._variance_of_mean(squares, sums, n_b)
        square = part_a + part_b
        t = np.nan_to_num(np.abs(quotient(difference, np.sqrt(square))), nan=0.0)
        degrees = quotient(square**2, part_a**2 / (n_a - 1) + part_b**2 / (n_b - 1))
        critical = np.interp(np.nan_to_num(degrees, nan=self.grid[-1]), self.grid, self.critical)
        significant = t > critical
        close = np.nonzero(np.abs(t - critical) < _INTERPOLATION_ERROR * critical)
        significant[close] = 2 * special.stdtr(degrees[close], -t[close]) < self.alpha
        return t, significant.sum(axis=1)


def permute_seeds(
    tables_a: Arm,
    tables_b: Arm,
    *,
    normalisation: Normalisation = "ratio",
    alpha: float = 0.05,
    max_splits: int = 10_000,
    seed: int = 0,
) -> SeedPermutation:
    """Permutation test of the whole class table of `welch_by_class`.

    All splits of the seeds are examined, or `max_splits` random ones (including the observed one)
    if there are more. p is the share of splits at least as extreme, which is valid with any number
    of seeds (Westfall and Young 1993 for the max-|t| p of each class). A class without variance on
    both sides of a split counts as not significant in it, whatever its means.

    The null hypothesis is that the two arms do not differ at all, neither in mean nor in spread.

    Args:
        tables_a: The reference arm: one table per seed, or `arm_accuracies` of them.
        tables_b: The other arm, on the same examples.
        normalisation: As in `welch_by_class`.
        alpha: Level at which a class counts.
        max_splits: Largest number of splits examined.

    Raises:
        ValueError: An arm has fewer than two seeds, or the arms hold different examples.
    """
    a, b = arm_pair(tables_a, tables_b)
    if normalisation == "pooled-difference":
        # the arm's mean shifts all its seeds alike, so it changes the means and not the variances
        location = np.concatenate([normalised(arm, "difference") for arm in (a, b)])
        values = np.concatenate([a.accuracy, b.accuracy])
    else:
        location = values = np.concatenate([normalised(arm, normalisation) for arm in (a, b)])
    seeds = len(a.overall), len(b.overall)
    return _permuted(location, values, seeds, alpha, max_splits, seed)


def permute_values(
    values_a: FloatArray,
    values_b: FloatArray,
    *,
    alpha: float = 0.05,
    max_splits: int = 10_000,
    seed: int = 0,
) -> SeedPermutation:
    """Permutes the seeds of two arms as `permute_seeds` does, on the given values.

    Args:
        values_a: one row per seed, one column per class or group. [seeds of a, columns]
        values_b: the same of the other arm. [seeds of b, columns]

    Raises:
        ValueError: an arm has fewer than two seeds, or no column is finite.
    """
    seeds = len(values_a), len(values_b)
    if min(seeds) < 2:
        raise ValueError(f"arms have {seeds[0]} and {seeds[1]} seeds; allowed: at least 2 each")
    values = np.concatenate([values_a, values_b])
    return _permuted(values, values, seeds, alpha, max_splits, seed)


def _permuted(
    location: FloatArray,
    values: FloatArray,
    seeds: tuple[int, int],
    alpha: float,
    max_splits: int,
    seed: int,
) -> SeedPermutation:
    check_fraction("alpha", alpha)
    if max_splits < 1:
        raise ValueError(f"max_splits is {max_splits}; allowed: at least 1")
    test = _SplitTester(location, values, seeds, alpha)
    if not test.tested.any():
        raise ValueError("no class can be tested; allowed: arms with an accuracy above 0")
    splits, exhaustive = seed_splits(*seeds, max_splits=max_splits, seed=seed)
    counts, largest, observed = [], [], None
    for start in range(0, len(splits), _SPLITS):
        t, significant = test(splits[start : start + _SPLITS])
        observed = t[0] if observed is None else observed
        counts.append(significant)
        largest.append(t.max(axis=1))
    assert observed is not None
    count, top = np.concatenate(counts), np.sort(np.concatenate(largest))
    # equal statistics of two splits may differ in the last digits
    reached = len(top) - np.searchsorted(top, observed * (1 - 1e-9), side="left")
    p_by_class = np.full(values.shape[1], np.nan)
    p_by_class[test.tested] = reached / len(top)
    return SeedPermutation(
        splits=len(splits),
        exhaustive=exhaustive,
        count=int(count[0]),
        count_by_chance=float(count.mean()),
        p_count=float(np.mean(count >= count[0])),
        max_t=float(observed.max()),
        p_max_t=float(reached.min() / len(top)),
        p_by_class=p_by_class,
    )
