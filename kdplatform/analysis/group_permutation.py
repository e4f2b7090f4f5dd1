"""Counts of models when groups are permuted among examples, or examples drawn anew for them.

Group codes stay in their places and the examples' profiles (label and predictions) move. Where many
examples share a profile, nothing is moved: the table of profiles by codes has the margins of the
data, and it is drawn with these margins given (Patefield 1981 names the distribution), column by
column as hypergeometric numbers. Otherwise the examples are shuffled. Both give the same
distribution, and the cost is the lower of both.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from kdplatform.analysis.group_rates import GroupCounts, Measure
from kdplatform.analysis.profiles import COUNTS_AT_ONCE, Measured, MeasuredPart, Models, Profiles
from kdplatform.analysis.threads import in_threads
from kdplatform.predictions import FloatArray, IntArray

# A number of a table costs as much as moving this many examples.
_COST_OF_A_CELL = 10
# Examples moved at a time: strata are many, and every one costs a call.
_EXAMPLES_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class _Stratum:
    """Examples among which groups are permuted.

    Attributes:
        examples: [examples of the stratum]
        profiles: those that occur. [profiles]
        sizes: how many examples have each of them. [profiles]
        codes: how many examples have each code. [codes]
    """

    examples: IntArray
    profiles: IntArray
    sizes: IntArray
    codes: IntArray

    @property
    def cells(self) -> int:
        """Numbers that decide a table of profiles by codes."""
        return (len(self.sizes) - 1) * (int((self.codes > 0).sum()) - 1)


class GroupPermutation:
    """Permutes the groups of some models' examples within strata."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._codes, self._members = models.groups.codes, models.groups.members
        self._n_codes = len(self._members)
        together = replace(
            models.groups,
            names=("all",),
            codes=np.zeros_like(self._codes),
            members=np.ones((1, 1), dtype=bool),
        )
        self._profiles = Profiles(replace(models, groups=together))

    def measured(
        self,
        strata: IntArray,
        permutations: int,
        generator: np.random.Generator,
        measure: Measure,
        *,
        redrawn: bool = False,
    ) -> dict[str, FloatArray]:
        """Measures permuted groups.

        Args:
            strata: number of each example's stratum. [examples]
            redrawn: whether what examples are is drawn with replacement instead of permuted.

        Returns:
            By metric. [permutations, models, ...]
        """
        found = Measured(permutations, len(self._models.predictions))
        step = self._step(permutations)

        def part(start: int, sizes: npt.NDArray[np.integer]) -> list[MeasuredPart]:
            counts = map(self._by_group, self._profiles.counts(sizes))
            large = self._models.large
            return [MeasuredPart(start, each.models, measure(each, large)) for each in counts]

        tables = self._tables(strata, permutations, step, generator, redrawn=redrawn)
        starts = range(0, permutations, step)
        parts = zip(starts, tables, strict=True)
        for measured in in_threads(lambda each: part(*each), parts, len(starts)):
            found.add(measured)
        return found.values

    def _step(self, permutations: int) -> int:
        """Permutations that are worked on at a time."""
        largest = max(self._profiles.counts_per_draw, len(self._profiles.size))
        return max(1, min(permutations, COUNTS_AT_ONCE // (largest * self._n_codes)))

    def _by_group(self, counts: GroupCounts) -> GroupCounts:
        """Counts [permutations, models, groups ...] of [permutations * codes, models, 1 ...]."""

        def by_code(values: npt.NDArray[Any]) -> FloatArray:
            split = values.reshape(-1, self._n_codes, values.shape[1], *values.shape[3:])
            # Ratios are compared with those observed, to the last digit.
            return np.moveaxis(split, 1, 2).astype(float)

        return GroupCounts(
            n=by_code(counts.n),
            positives=by_code(counts.positives),
            predicted=by_code(counts.predicted),
            hits=by_code(counts.hits),
            models=counts.models,
        ).of_groups(self._members)

    def _tables(
        self,
        strata: IntArray,
        permutations: int,
        step: int,
        generator: np.random.Generator,
        *,
        redrawn: bool,
    ) -> Iterator[npt.NDArray[np.integer]]:
        """Tables of profiles by codes, `step` permutations at a time.

        Returns:
            [profiles, permutations * codes]
        """
        each = [self._stratum(np.flatnonzero(strata == s)) for s in np.unique(strata)]
        n = len(self._codes)
        numbers = sum(len(own.sizes) * self._n_codes if redrawn else own.cells for own in each)
        drawn = numbers * _COST_OF_A_CELL < n
        if drawn:
            for start in range(0, permutations, step):
                size = min(step, permutations - start)
                yield self._drawn(each, size, generator, redrawn=redrawn)
            return
        many = max(step, min(permutations, _EXAMPLES_AT_ONCE // n) // step * step)
        for start in range(0, permutations, many):
            size = min(many, permutations - start)
            profile = self._shuffled(each, size, generator, redrawn=redrawn)
            for first in range(0, size, step):
                yield self._tabulated(profile[first : first + step])

    def _stratum(self, examples: IntArray) -> _Stratum:
        profiles, sizes = np.unique(self._profiles.profile[examples], return_counts=True)
        codes = np.bincount(self._codes[examples], minlength=self._n_codes)
        return _Stratum(examples, profiles, sizes, codes)

    def _drawn(
        self,
        strata: list[_Stratum],
        permutations: int,
        generator: np.random.Generator,
        *,
        redrawn: bool,
    ) -> IntArray:
        found = np.zeros((len(self._profiles.size), permutations, self._n_codes), dtype=np.int64)
        for own in strata:
            for code, column in self._columns(own, permutations, generator, redrawn=redrawn):
                found[own.profiles, :, code] += column
        return found.reshape(len(found), -1)

    def _columns(
        self, own: _Stratum, permutations: int, generator: np.random.Generator, *, redrawn: bool
    ) -> Iterator[tuple[int, IntArray]]:
        """How many examples of each profile get a code. [profiles, permutations]."""
        present = np.flatnonzero(own.codes)
        left = np.repeat(own.sizes[:, None], permutations, axis=1)
        chances = own.sizes / own.sizes.sum()
        for code in present:
            if redrawn:
                column = generator.multinomial(own.codes[code], chances, size=permutations).T
            elif code == present[-1]:
                column = left
            else:
                column = _column(left, int(own.codes[code]), generator)
                left = left - column
            yield int(code), column

    def _shuffled(
        self,
        strata: list[_Stratum],
        permutations: int,
        generator: np.random.Generator,
        *,
        redrawn: bool,
    ) -> IntArray:
        """Profiles of the examples after a permutation. [permutations, examples]."""
        profile = np.tile(self._profiles.profile, (permutations, 1))
        for own in strata:
            if redrawn:
                n = len(own.examples)
                chosen = generator.integers(0, n, (permutations, n))
                profile[:, own.examples] = self._profiles.profile[own.examples[chosen]]
            elif len(own.profiles) > 1:
                profile[:, own.examples] = generator.permuted(profile[:, own.examples], axis=1)
        return profile

    def _tabulated(self, profile: IntArray) -> IntArray:
        permutations, n_profiles = len(profile), len(self._profiles.size)
        columns = permutations * self._n_codes
        cell = profile * columns + self._codes
        cell += (np.arange(permutations) * self._n_codes)[:, None]
        sizes = np.bincount(cell.ravel(), minlength=n_profiles * columns)
        return sizes.reshape(n_profiles, columns)


def _column(left: IntArray, size: int, generator: np.random.Generator) -> IntArray:
    """Draws examples without replacement from what is left: multivariate hypergeometric.

    Args:
        left: examples of each profile. [profiles, permutations]
        size: how many are drawn.

    Returns:
        How many of each profile. [profiles, permutations]
    """
    column = np.empty_like(left)
    others, wanted = left.sum(axis=0), np.full(left.shape[1], size)
    for profile, own in enumerate(left[:-1]):
        others = others - own
        column[profile] = generator.hypergeometric(own, others, wanted)
        wanted = wanted - column[profile]
    column[-1] = wanted
    return column
