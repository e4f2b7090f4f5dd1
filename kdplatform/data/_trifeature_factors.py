"""The generating factors of Trifeature: which image shows what, and where.

Everything here is made of raw PCG64 output, integers and single float64 operations that IEEE 754
rounds in one way only, so that equal configurations give equal factors, and an equal digest, on
every machine and with every version of numpy.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

# The names, and the colors as fractions of full red, green and blue, are those of Hermann and
# Lampinen 2020 (arXiv 2006.12433).
SHAPES = (
    "triangle",
    "square",
    "plus",
    "circle",
    "tee",
    "rhombus",
    "pentagon",
    "star",
    "fivesquare",
    "trapezoid",
)
TEXTURES = (
    "solid",
    "stripes",
    "grid",
    "hexgrid",
    "dots",
    "noise",
    "triangles",
    "zigzags",
    "rain",
    "pluses",
)
COLORS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "pink": (1.0, 0.4, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "purple": (0.3, 0.0, 0.5),
    "ocean": (0.1, 0.4, 0.5),
    "orange": (1.0, 0.6, 0.0),
    "white": (1.0, 1.0, 1.0),
}

LARGEST_ROTATION = 45.0  # degrees, either way; the paper's


@dataclass(frozen=True)
class Factors:
    """What generates the images of one split; every array has one entry per image.

    Attributes:
        shape: int64, index into SHAPES.
        color: int64, index into COLORS.
        texture: int64, index into TEXTURES.
        shape_rotation: float64, degrees, counter-clockwise.
        texture_rotation: float64, degrees, counter-clockwise, independent of the shape's.
        placement_x: float64 in [0, 1), share of the free room left of the shape.
        placement_y: float64 in [0, 1), share of the free room above the shape.
        texture_seed: int64, seeds the texture's offset and its random parts.
    """

    shape: NDArray[np.int64]
    color: NDArray[np.int64]
    texture: NDArray[np.int64]
    shape_rotation: NDArray[np.float64]
    texture_rotation: NDArray[np.float64]
    placement_x: NDArray[np.float64]
    placement_y: NDArray[np.float64]
    texture_seed: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.shape)

    def canonical_bytes(self) -> bytes:
        """Returns all factors in one spelling: names, then little-endian 8-byte numbers."""
        parts: list[bytes] = []
        for field in fields(self):
            values: NDArray[np.generic] = getattr(self, field.name)
            parts += [field.name.encode(), values.astype(values.dtype.newbyteorder("<")).tobytes()]
        return b"\0".join(parts)


class _Stream:
    """Random numbers whose values no version of numpy may change: raw PCG64 output."""

    def __init__(self, *entropy: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(entropy))

    def raw(self, count: int) -> NDArray[np.uint64]:
        return np.asarray(self._bits.random_raw(count), dtype=np.uint64)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """Returns float64 in [0, 1) with 53 random bits each."""
        return (self.raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53

    def permutation(self, count: int) -> NDArray[np.int64]:
        return np.argsort(self.raw(count), kind="stable").astype(np.int64)


def _colors_of_one_shape(
    own_color: int, values: int, versions: int, correlation: float, stream: _Stream
) -> NDArray[np.int64]:
    """Returns the colors of all images of one shape, ordered by texture, [values^2 * versions].

    Quotas, not coin flips: round(correlation * count) images, spread evenly over the textures, have
    the shape's own color; the others take all colors in turn, in an order drawn for the shape.
    """
    count = values * values * versions
    own_count = round(correlation * count)
    # Steps of a staircase that rises to own_count: the own color recurs at even distances.
    stairs = np.arange(count + 1) * own_count // count
    owns = np.diff(stairs) == 1
    colors = np.full(count, own_color, dtype=np.int64)
    colors[~owns] = stream.permutation(values)[np.arange(count - own_count) % values]
    return colors


def draw_factors(
    seed: int, split_number: int, values: int, versions: int, correlation: float
) -> Factors:
    """Draws the factors of one split, in random order.

    Every shape comes with every texture equally often; every color too where correlation is 0.
    The splits of a dataset have streams of their own: changing one leaves the others as they are.

    Args:
        seed: seed of the dataset.
        split_number: number of the split within the dataset.
        values: how many shapes, textures and colors there are, the first ones of each.
        versions: images of every combination, values^3 combinations in all.
        correlation: share of the images that have their shape's own color by quota.
    """
    stream = _Stream(seed, split_number)
    per_shape = values * values * versions
    count = values * per_shape
    shape = np.repeat(np.arange(values), per_shape)
    texture = np.tile(np.repeat(np.arange(values), values * versions), values)
    color = np.concatenate(
        [_colors_of_one_shape(own, values, versions, correlation, stream) for own in range(values)]
    )
    order = stream.permutation(count)
    return Factors(
        shape=shape[order].astype(np.int64),
        color=color[order],
        texture=texture[order].astype(np.int64),
        shape_rotation=(stream.uniform(count) * 2.0 - 1.0) * LARGEST_ROTATION,
        texture_rotation=(stream.uniform(count) * 2.0 - 1.0) * LARGEST_ROTATION,
        placement_x=stream.uniform(count),
        placement_y=stream.uniform(count),
        texture_seed=(stream.raw(count) >> np.uint64(32)).astype(np.int64),
    )
