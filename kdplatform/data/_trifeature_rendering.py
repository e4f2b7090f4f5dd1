"""Draws Trifeature images from their generating factors.

A shape is a union of convex pieces, a piece an intersection of half-planes. The signed distance to
a half-plane is linear in the pixel's column and row, so it costs one addition per pixel; distances
are in pixels, and clipping them to [0, 1] antialiases every edge. Each image is drawn by itself, in
arrays that fit the processor's cache, so no batch can change a pixel. There are no threads:
operations this short make them wait for each other, and two took longer than one when measured.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdplatform.data._trifeature_factors import COLORS, SHAPES, TEXTURES, Factors

if TYPE_CHECKING:
    import scipy.sparse

Floats = NDArray[np.floating]

CANVAS = 224  # pixels; the paper's
BOX = 128  # side of the square a shape is drawn in, pixels; the paper's, and the pieces' unit
LARGEST_BOX = 158  # a square of this side stays inside the canvas however it is turned
BACKGROUND = 0.5  # grey; the paper's
# Tone of a texture's dark parts, as a share of the shape's color; not given by the paper. It is
# light enough for the mean of a white shape to differ from the background in every texture.
DARK = 0.25

_NOISE_SIDE = 128  # cells of a noise table; more than the cells across a window


def _polygon(vertices: list[tuple[float, float]]) -> Floats:
    """Returns the half-planes of a convex polygon given counter-clockwise, y upwards.

    Rows are (normal x, normal y, bound) with unit normals outwards: inside, normal . p <= bound.
    """
    corners = np.asarray(vertices, dtype=np.float64)
    edges = np.roll(corners, -1, axis=0) - corners
    normals = np.stack([edges[:, 1], -edges[:, 0]], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    bounds = (normals * corners).sum(axis=1, keepdims=True)
    return np.concatenate([normals, bounds], axis=1).astype(np.float32)


def _rectangle(left: float, bottom: float, right: float, top: float) -> Floats:
    return _polygon([(left, bottom), (right, bottom), (right, top), (left, top)])


def _pentagon_corners() -> list[tuple[float, float]]:
    """Returns a regular pentagon, tip up, as wide as the box and centred in it."""
    angles = np.deg2rad(90.0 + 72.0 * np.arange(5))
    radius = BOX / 2 / np.cos(np.deg2rad(18.0))
    x, y = radius * np.cos(angles), radius * np.sin(angles)
    return list(zip(x, y - (y.max() + y.min()) / 2, strict=True))


def _star() -> list[Floats]:
    """Returns the pentagram over the pentagon's corners.

    Each of its five lines cuts off one tip. Leaving out one line gives that tip with the star's
    body, and the five such pieces make the star.
    """
    corners = _pentagon_corners()
    lines = _polygon([corners[2 * i % 5] for i in range(5)])
    return [np.delete(lines, i, axis=0) for i in range(5)]


def _shapes() -> dict[str, list[Floats]]:
    """Returns the convex pieces of every polygon; proportions are not given by the paper."""
    half = BOX / 2
    arm = BOX / 6  # half the width of a plus's arms and a tee's bars: a third of the box
    height = BOX * np.sqrt(3) / 4  # half that of an equilateral triangle as wide as the box
    lower, upper = -half + 2 * arm, half - 2 * arm
    return {
        "triangle": [_polygon([(-half, -height), (half, -height), (0, height)])],
        "square": [_rectangle(-half, -half, half, half)],
        "plus": [_rectangle(-half, -arm, half, arm), _rectangle(-arm, -half, arm, half)],
        "tee": [_rectangle(-half, upper, half, half), _rectangle(-arm, -half, arm, half)],
        "rhombus": [_polygon([(0, -half), (0.6 * half, 0), (0, half), (-0.6 * half, 0)])],
        "pentagon": [_polygon(_pentagon_corners())],
        "star": _star(),
        "fivesquare": [
            _rectangle(-arm, -arm, arm, arm),
            _rectangle(-half, -half, lower, lower),
            _rectangle(upper, -half, half, lower),
            _rectangle(-half, upper, lower, half),
            _rectangle(upper, upper, half, half),
        ],
        "trapezoid": [
            _polygon(
                [(-half, -0.7 * half), (half, -0.7 * half), (35, 0.7 * half), (-35, 0.7 * half)]
            )
        ],
    }


_PIECES = _shapes()


def _clipped(distance: Floats) -> Floats:
    """Turns the signed distance of a pixel's centre to an edge into its share beyond the edge."""
    share: Floats = np.clip(distance + 0.5, 0.0, 1.0)
    return share


def _half_plane_distance(
    half_plane: Floats, scale: float, rotation: float, column: Floats, row: Floats
) -> Floats:
    x, y, bound = (float(number) for number in half_plane)
    cos, sin = math.cos(rotation), math.sin(rotation)
    return (bound * scale - (x * cos - y * sin) * column) - (x * sin + y * cos) * row


def _coverage(shape: str, side: int, rotation: float, column: Floats, row: Floats) -> Floats:
    """Returns how much of each pixel a shape covers, float32 [rows, columns] in [0, 1].

    Args:
        shape: name of the shape.
        side: of the square it is drawn in, in pixels.
        rotation: radians, counter-clockwise.
        column: distance of each column to the right of the shape's centre, [1, columns].
        row: distance of each row above the shape's centre, [rows, 1].
    """
    if shape == "circle":
        return _clipped(side / 2 - np.sqrt(column * column + row * row))
    pieces = [
        functools.reduce(
            np.minimum,
            (_half_plane_distance(plane, side / BOX, rotation, column, row) for plane in piece),
        )
        for piece in _PIECES[shape]
    ]
    return _clipped(functools.reduce(np.maximum, pieces))


def _from_line(x: Floats, period: float) -> Floats:
    """Returns the distance to the nearest of the lines x = 0, period, 2 * period, ..."""
    distance: Floats = np.abs(x - np.rint(x * (1 / period)) * period)
    return distance


# A texture takes the pixels' coordinates in its own turned frame and a table of random bytes, and
# returns the share of the bright tone. Its motif recurs within 10 pixels, so a patch of that size
# identifies it; forms and widths of the motifs are not given by the paper.
_Texture = Callable[[Floats, Floats, NDArray[np.uint8]], Floats]


def _stripes(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    return _clipped(_from_line(u, 8) - 1.6)


def _grid(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    return _clipped(np.minimum(_from_line(u, 9), _from_line(v, 9)) - 1.2)


def _hexgrid(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    """Cells of width 9 whose centres form two interleaved rectangular lattices."""
    width, height = 9.0, 9.0 * 3**0.5
    lattices = [
        (_from_line(u, width), _from_line(v, height)),
        (_from_line(u + width / 2, width), _from_line(v + height / 2, height)),
    ]
    from_centre = np.minimum(*(np.maximum(p, p * 0.5 + q * 0.75**0.5) for p, q in lattices))
    return _clipped(width / 2 - 1.1 - from_centre)


def _dots(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    p, q = _from_line(u, 8), _from_line(v, 8)
    return _clipped(np.sqrt(p * p + q * q) - 2.7)


def _noise(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    columns = np.floor(u * 0.4).astype(np.int32) % _NOISE_SIDE
    rows = np.floor(v * 0.4).astype(np.int32) % _NOISE_SIDE
    tones: Floats = table.take(rows * _NOISE_SIDE + columns) * np.float32(1 / 255)
    return tones


def _triangles(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    """Dark upright triangles of a lattice of side 10: all three barycentric distances positive."""
    height = 10 * 0.75**0.5
    b = v * (1 / height)
    a = u * 0.1 - b * 0.5
    a -= np.floor(a)
    b -= np.floor(b)
    smallest = np.minimum(np.minimum(a, b), 1 - a - b)
    return _clipped(0.7 - smallest * height)


def _zigzags(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    return _clipped((_from_line(u + _from_line(v, 10), 8) - 2.1) * 0.5**0.5)


def _rain(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    """Dashes in columns of width 4.5, each column shifted by its own random length."""
    columns = np.floor(u * (1 / 4.5))
    shifts = table.take(columns.astype(np.int32) % _NOISE_SIDE) * np.float32(10 / 256)
    across = np.abs(u - (columns + 0.5) * 4.5)
    return _clipped(np.maximum(across - 1.0, _from_line(v + shifts, 10) - 3.0))


def _pluses(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    p, q = _from_line(u, 9), _from_line(v, 9)
    return _clipped(np.maximum(np.minimum(p, q) - 1.1, np.maximum(p, q) - 3.2))


_TEXTURES: dict[str, _Texture] = {
    "stripes": _stripes,
    "grid": _grid,
    "hexgrid": _hexgrid,
    "dots": _dots,
    "noise": _noise,
    "triangles": _triangles,
    "zigzags": _zigzags,
    "rain": _rain,
    "pluses": _pluses,
}


def _brightness(texture: str, rotation: float, seed: int, column: Floats, row: Floats) -> Floats:
    """Returns the share of the bright tone in each pixel, float32 [rows, columns] in [0, 1].

    Arguments are those of `_coverage`; the seed gives the texture's offset and random parts.
    """
    if texture == "solid":
        return np.ones((row.shape[0], column.shape[1]), dtype=np.float32)
    raw = np.asarray(np.random.PCG64(seed).random_raw(2 + _NOISE_SIDE**2 // 8), dtype="<u8")
    offset_u, offset_v = (float(bits >> np.uint64(40)) * 2.0**-17 for bits in raw[:2])  # below 128
    cos, sin = math.cos(rotation), math.sin(rotation)
    u = (cos * column + offset_u) + sin * row
    v = (offset_v - sin * column) + cos * row
    return _TEXTURES[texture](u, v, raw[2:].view(np.uint8))


def centres(factors: Factors, side: int = BOX) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the centres of the shapes' squares, columns and rows in pixels of the 224 px canvas.

    Wherever the turned square fits into the canvas it may lie; it never leaves the canvas.
    """
    radians = np.deg2rad(factors.shape_rotation)
    half = side / 2 * (np.abs(np.cos(radians)) + np.abs(np.sin(radians)))
    room = CANVAS - 2 * half
    return half + factors.placement_x * room, half + factors.placement_y * room


def _area_overlaps(size: int) -> scipy.sparse.csr_array:
    """Returns the overlaps of resized with canvas pixels as whole numbers, [size, CANVAS].

    A canvas pixel is `size` units long and a resized one CANVAS units, so each row sums to CANVAS.
    Sums of 8-bit values over both dimensions stay below 2^24, hence exact in float32. Sparse: a
    dense product would be shared out over threads, which costs more than it is worth here.
    """
    edges = np.arange(CANVAS + 1) * size
    starts = np.arange(size)[:, None] * CANVAS
    overlaps = np.minimum(edges[1:], starts + CANVAS) - np.maximum(edges[:-1], starts)
    import scipy.sparse

    return scipy.sparse.csr_array(np.maximum(overlaps, 0).astype(np.float32))


def _resized(canvas: Floats, overlaps: scipy.sparse.csr_array) -> Floats:
    """Resizes a canvas of whole numbers up to 255 by area; only the last product rounds."""
    if overlaps.shape[0] == CANVAS:
        return canvas
    sums: Floats = (overlaps @ (overlaps @ canvas).T).T
    return sums * (1 / CANVAS**2)


def _draw(factors: Factors, i: int, side: int, centre_x: float, centre_y: float) -> Floats:
    """Draws image i on the canvas: its coverage, and its tone where covered, float32 in 0..255.

    Both are whole numbers, [2, CANVAS, CANVAS].
    """
    # A turned square spans at most side * sqrt(2), edges blur by half a pixel, and the window
    # starts on a whole one.
    width = min(math.ceil(side * math.sqrt(2)) + 2, CANVAS)
    left, top = (
        int(np.clip(centre - width / 2, 0, CANVAS - width)) for centre in (centre_x, centre_y)
    )
    pixels = np.arange(width) + 0.5
    column = (left + pixels - centre_x).astype(np.float32)[None, :]
    row = (centre_y - top - pixels).astype(np.float32)[:, None]
    covered = _coverage(
        SHAPES[factors.shape[i]], side, math.radians(factors.shape_rotation[i]), column, row
    )
    bright = _brightness(
        TEXTURES[factors.texture[i]],
        math.radians(factors.texture_rotation[i]),
        int(factors.texture_seed[i]),
        column,
        row,
    )
    planes = np.zeros((2, CANVAS, CANVAS), dtype=np.float32)
    window = planes[:, top : top + width, left : left + width]
    np.rint(covered * 255, out=window[0])
    np.rint(covered * (255 * DARK + 255 * (1 - DARK) * bright), out=window[1])
    return planes


def render(
    factors: Factors,
    size: int,
    side: int = BOX,
    on_image: Callable[[], object] = lambda: None,
) -> NDArray[np.uint8]:
    """Draws the images of a split.

    Args:
        factors: what to draw, N images.
        size: side of the images in pixels, at most CANVAS.
        side: of the square each shape is drawn in, in pixels of the canvas, at most LARGEST_BOX.
        on_image: called after each image, for a progress bar.

    Returns:
        uint8 [N, 3, size, size].
    """
    images = np.empty((len(factors), 3, size, size), dtype=np.uint8)
    overlaps = _area_overlaps(size)
    palette = tuple(COLORS.values())
    for i, (x, y) in enumerate(zip(*centres(factors, side), strict=True)):
        # Pixels are linear in coverage and tone: two planes are resized instead of three channels.
        covered, tone = (_resized(plane, overlaps) for plane in _draw(factors, i, side, x, y))
        background = BACKGROUND * (255 - covered)
        for channel, full in enumerate(palette[factors.color[i]]):
            images[i, channel] = np.rint(background + full * tone)
        on_image()
    return images
