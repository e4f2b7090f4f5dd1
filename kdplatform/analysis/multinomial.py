"""Multinomial draws of many small cells: how often each is drawn when examples are resampled.

Libraries draw a multinomial as one binomial per cell, which costs as much for a cell of one example
as for one of a thousand. Tables of many classes have thousands of cells of a few examples. Here
small cells are drawn as independent Poisson numbers, by a look-up of 16 random bits each. Their
mean sum is slightly below the wanted number, and the missing examples are drawn one by one. Given
its sum, a vector of Poisson numbers is multinomial. The sum of two multinomials with equal
probabilities is multinomial too. The distribution is therefore exactly that of the multinomial.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import special

from kdplatform.predictions import FloatArray, IntArray

Sizes = npt.NDArray[np.float32 | np.float64]

# Cells of more examples than this are drawn as binomials, because their numbers would not fit the
# tables.
_MOST = 64
# The Poisson numbers stay this many standard deviations below the wanted number.
_MARGIN = 4.0
_BITS = 16
# Marks entries of a table whose number 16 bits do not decide. No cell of `_MOST` examples is drawn
# this often.
_OPEN = 255


class _Table(NamedTuple):
    """Poisson numbers of one mean, by the first 16 bits of a uniform random number.

    Attributes:
        values: the number, or `_OPEN`. [2^16]
        cumulative: chance of at most 0, 1, ... [numbers]
    """

    values: npt.NDArray[np.uint8]
    cumulative: FloatArray

    def draw(self, shape: tuple[int, int], generator: np.random.Generator) -> npt.NDArray[np.uint8]:
        """Returns independent Poisson numbers of this mean."""
        bits = _random_bits(shape[0] * shape[1], generator)
        drawn = self.values.take(bits)
        unknown = np.flatnonzero(drawn == _OPEN)
        uniform = (bits[unknown] + generator.random(len(unknown))) / (1 << _BITS)
        drawn[unknown] = self.cumulative.searchsorted(uniform, side="right")
        return drawn.reshape(shape)


def _random_bits(number: int, generator: np.random.Generator) -> npt.NDArray[np.uint16]:
    words = generator.bit_generator.random_raw(-(-number // 4))
    return np.asarray(words, dtype=np.uint64).view(np.uint16)[:number]


@lru_cache(maxsize=4 * _MOST)
def _table(mean: float) -> _Table:
    cumulative = np.asarray(special.pdtr(np.arange(_OPEN - 1), mean), dtype=float)
    edges = np.arange((1 << _BITS) + 1) / (1 << _BITS)
    lowest = cumulative.searchsorted(edges[:-1], side="right")
    highest = cumulative.searchsorted(edges[1:], side="left")
    return _Table(np.where(lowest == highest, lowest, _OPEN).astype(np.uint8), cumulative)


class Resampler:
    """Draws examples with replacement, as many as there are, and counts them by cell."""

    def __init__(self, sizes: IntArray) -> None:
        """Takes the number of examples of every cell, the largest first. [cells]."""
        self.n = int(sizes.sum())
        # Sums of up to 2^24 are exact in single precision.
        self._kind = np.float32 if self.n < 1 << 22 else np.float64
        self._large = sizes[sizes > _MOST]
        small = sizes[len(self._large) :]
        self._small = len(small)
        self._examples = np.repeat(np.arange(len(small)), small)  # cell of every example
        of_small = len(self._examples)
        # The wanted number of examples in small cells is random too.
        spread = np.sqrt(of_small * (2 - of_small / self.n))
        self._share = max(0.0, 1 - _MARGIN * spread / of_small) if of_small else 0.0
        values, numbers = np.unique(-small, return_counts=True)
        self._runs = list(zip((-values).tolist(), numbers.tolist(), strict=True))

    def draw(self, draws: int, generator: np.random.Generator) -> Sizes:
        """Returns how often each cell is drawn. [cells, draws]."""
        chances = np.append(self._large, len(self._examples)) / self.n
        large = generator.multinomial(self.n, chances, size=draws).T
        found = np.empty((len(self._large) + self._small, draws), dtype=self._kind)
        found[: len(self._large)] = large[:-1]
        self._draw_small(found[len(self._large) :], large[-1], generator)
        return found

    def _draw_small(self, found: Sizes, wanted: IntArray, generator: np.random.Generator) -> None:
        """Draws the small cells, of which `wanted` examples are to be in each draw."""
        if not self._small:
            return
        missing = wanted.copy()
        if self._share:
            self._draw_poisson(found, generator)
            missing -= found.sum(axis=0).astype(np.int64)
            while len(again := np.flatnonzero(missing < 0)):
                fresh = np.empty((self._small, len(again)), dtype=self._kind)
                self._draw_poisson(fresh, generator)
                found[:, again] = fresh
                missing[again] = wanted[again] - fresh.sum(axis=0).astype(np.int64)
        else:
            found[:] = 0
        draws = found.shape[1]
        chosen = generator.integers(0, len(self._examples), missing.sum(), dtype=np.uint32)
        cell = self._examples.take(chosen) * draws + np.repeat(np.arange(draws), missing)
        np.add.at(found.reshape(-1), cell, self._kind(1))

    def _draw_poisson(self, found: Sizes, generator: np.random.Generator) -> None:
        start = 0
        for size, number in self._runs:
            end = start + number
            table = _table(size * self._share)
            found[start:end] = table.draw((number, found.shape[1]), generator)
            start = end
