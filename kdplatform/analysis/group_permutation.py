"""Counts of models when groups are permuted among examples, or examples are drawn anew.

Permuting groups keeps the margins of the table of profiles (label and predictions) by group codes.
For profiles of many examples, the rows of the table are drawn with these margins, as hypergeometric
numbers (Patefield 1981, Applied Statistics 30, algorithm AS 159). The examples of all other
profiles form one further row, and the codes of this row are shuffled among them. Both ways give the
distribution of permuted groups. Profiles are divided so that the total cost is low.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from kdplatform.analysis.group_rates import GroupCounts, Measure
from kdplatform.analysis.profiles import COUNTS_AT_ONCE, Measured, MeasuredPart, Models, Profiles
from kdplatform.analysis.threads import in_threads
from kdplatform.predictions import FloatArray, IntArray

# Drawing one number of a table costs as much as moving this many examples.
_COST_OF_A_CELL = 10
# Examples moved at a time. There may be many strata, and each of them costs a call.
_EXAMPLES_AT_ONCE = 8_000_000


@dataclass(frozen=True)
class _Stratum:
    """Examples among which groups are permuted.

    Attributes:
        common: profiles with so many examples that their table rows are drawn. [profiles]
        sizes: number of examples of each common profile, then of all others. [profiles + 1]
        others: profile of every example without a common profile. [examples]
        codes: number of examples of each code. [codes]
    """

    common: IntArray
    sizes: IntArray
    others: IntArray
    codes: IntArray

    @classmethod
    def of(cls, profiles: IntArray, codes: IntArray, n_codes: int) -> "_Stratum":
        found, place, sizes = np.unique(profiles, return_inverse=True, return_counts=True)
        of_codes = np.bincount(codes, minlength=n_codes)
        common = sizes > _COST_OF_A_CELL * (np.count_nonzero(of_codes) - 1)
        others = profiles[~common[place]]
        return cls(found[common], np.append(sizes[common], len(others)), others, of_codes)

    def tables(
        self, permutations: int, generator: np.random.Generator, *, redrawn: bool
    ) -> IntArray:
        """Draws how many examples of each row of `sizes` get each code.

        Returns:
            [profiles + 1, permutations, codes]
        """
        found = np.zeros((len(self.sizes), permutations, len(self.codes)), dtype=np.int64)
        present = np.flatnonzero(self.codes)
        left = np.repeat(self.sizes[:, None], permutations, axis=1)
        chances = self.sizes / self.sizes.sum()
        for code in present:
            if redrawn:
                size = int(self.codes[code])
                found[:, :, code] = generator.multinomial(size, chances, size=permutations).T
            elif code == present[-1]:
                found[:, :, code] = left
            else:
                found[:, :, code] = _column(left, int(self.codes[code]), generator)
                left -= found[:, :, code]
        return found


class _Moved(NamedTuple):
    """Some permutations: numbers of common profiles, and the codes of all other examples.

    Attributes:
        drawn: common profiles of a stratum and their numbers [profiles, permutations, codes].
        codes: [permutations, other examples]
        profiles: of the other examples. [other examples], or per permutation.
    """

    drawn: list[tuple[IntArray, IntArray]]
    codes: IntArray
    profiles: IntArray


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
            redrawn: whether the profiles of examples are drawn with replacement instead of
                permuted.

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
            # Double precision, because ratios are compared with the observed ones to the last
            # digit.
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
        profile, n = self._profiles.profile, len(self._codes)
        each = [
            _Stratum.of(profile[strata == s], self._codes[strata == s], self._n_codes)
            for s in np.unique(strata)
        ]
        many = max(step, min(permutations, _EXAMPLES_AT_ONCE // n) // step * step)
        for start in range(0, permutations, many):
            size = min(many, permutations - start)
            moved = self._moved(each, size, generator, redrawn=redrawn)
            for first in range(0, size, step):
                yield self._tabulated(moved, slice(first, min(first + step, size)))

    def _moved(
        self,
        strata: list[_Stratum],
        permutations: int,
        generator: np.random.Generator,
        *,
        redrawn: bool,
    ) -> _Moved:
        drawn, codes, profiles = [], [], []
        every_code = np.tile(np.arange(self._n_codes), permutations)
        for own in strata:
            tables = own.tables(permutations, generator, redrawn=redrawn)
            drawn.append((own.common, tables[:-1]))
            if not len(own.others):
                continue
            if redrawn:
                # As many as the stratum has examples; those of common profiles have no code here.
                n = int(own.codes.sum())
                row = np.full((permutations, n), -1)
                inside = np.arange(n) < tables[-1].sum(axis=1, keepdims=True)
                row[inside] = np.repeat(every_code, tables[-1].ravel())
                chosen = own.others[generator.integers(0, len(own.others), (permutations, n))]
            else:
                row = np.repeat(every_code, tables[-1].ravel()).reshape(permutations, -1)
                row = generator.permuted(row, axis=1)
                chosen = own.others
            codes.append(row)
            profiles.append(chosen)
        if not codes:
            return _Moved(drawn, *(np.empty((permutations, 0), dtype=np.int64) for _ in range(2)))
        return _Moved(drawn, np.concatenate(codes, axis=1), np.concatenate(profiles, axis=-1))

    def _tabulated(self, moved: _Moved, chosen: slice) -> IntArray:
        codes, profiles = moved.codes[chosen], moved.profiles
        n_profiles, columns = len(self._profiles.size), len(codes) * self._n_codes
        cell = (profiles if profiles.ndim == 1 else profiles[chosen]) * columns + codes
        cell += (np.arange(len(codes)) * self._n_codes)[:, None]
        with_code = cell.ravel() if profiles.ndim == 1 else cell[codes >= 0]
        sizes = np.bincount(with_code, minlength=n_profiles * columns)
        table = sizes.reshape(n_profiles, columns)
        for common, numbers in moved.drawn:
            table[common] += numbers[:, chosen].reshape(len(common), columns)
        return table


def _column(left: IntArray, size: int, generator: np.random.Generator) -> IntArray:
    """Draws examples without replacement from those that are left: multivariate hypergeometric.

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
