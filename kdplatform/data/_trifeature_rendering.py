"""Draws Trifeature images from their generating factors.

A shape is a union of convex pieces, a piece an intersection of half-planes. The signed distance to
a half-plane is linear in the pixel's column and row, so it costs one addition per pixel; distances
are in pixels, and clipping them to [0, 1] antialiases every edge. Each image is drawn by itself in
arrays that fit the processor's cache, therefore neither batches nor threads can change a pixel.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from kdplatform.data._trifeature_factors import COLORS, SHAPES, TEXTURES, Factors

Floats = NDArray[np.float32]

CANVAS = 224  # pixels; the paper's
BOX = 128  # side of the square a shape is drawn in, pixels; the paper's
BACKGROUND = 0.5  # grey; the paper's
# Tone of a texture's dark parts, as a share of the shape's color; not given by the paper. It is
# light enough for the mean of a white shape to differ from the background in every texture.
DARK = 0.25

# A turned box spans at most BOX * sqrt(2) = 181.02 pixels; the window starts on a whole pixel.
_WINDOW = 184
_CHUNK = 64  # images per task
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
                [(-half, -0.7 * half), (half, -0.7 * half), (arm, 0.7 * half), (-arm, 0.7 * half)]
            )
        ],
    }


_PIECES = _shapes()


def _coverage(shape: str, rotation: float, right: Floats, up: Floats) -> Floats:
    """Returns how much of each pixel a shape covers, float32 [rows, columns] in [0, 1].

    Args:
        shape: name of the shape.
        rotation: radians, counter-clockwise.
        right: distance of each column from the shape's centre, rightwards.
        up: distance of each row from the shape's centre, upwards.
    """
    column, row = right[None, :], up[:, None]
    if shape == "circle":
        distance = BOX / 2 - np.sqrt(column * column + row * row)
    else:
        cos, sin = np.float32(np.cos(rotation)), np.float32(np.sin(rotation))
        distance = None
        for piece in _PIECES[shape]:
            inside = None
            for x, y, bound in piece:
                edge = (bound - (x * cos - y * sin) * column) - (x * sin + y * cos) * row
                inside = edge if inside is None else np.minimum(inside, edge, out=inside)
            distance = inside if distance is None else np.maximum(distance, inside, out=distance)
    return _clipped(distance)


def _clipped(distance: Floats) -> Floats:
    """Turns the signed distance of a pixel's centre to an edge into its share beyond the edge."""
    distance += np.float32(0.5)
    return np.clip(distance, 0.0, 1.0, out=distance)


def _from_line(x: Floats, period: float) -> Floats:
    """Returns the distance to the nearest of the lines x = 0, period, 2 * period, ..."""
    nearest = np.rint(x * np.float32(1 / period))
    nearest *= np.float32(period)
    return np.abs(np.subtract(x, nearest, out=nearest), out=nearest)


# A texture takes the pixels' coordinates in its own turned frame and a table of random bytes, and
# returns the share of the bright tone. Its motif repeats at least every 10 pixels, so a patch of
# that size shows which it is; forms and widths of the motifs are not given by the paper.
_Texture = Callable[[Floats, Floats, NDArray[np.uint8]], Floats]


def _solid(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    return np.ones_like(u)


def _stripes(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    return _clipped(_from_line(u, 8) - 1.6)


def _grid(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    return _clipped(np.minimum(_from_line(u, 9), _from_line(v, 9)) - 1.2)


def _hexgrid(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    """Cells of width 9 whose centres form two interleaved rectangular lattices."""
    width, height = 9.0, 9.0 * 3**0.5
    from_centre = None
    for shift in (0.0, 0.5):
        p = _from_line(u + np.float32(shift * width), width)
        q = _from_line(v + np.float32(shift * height), height)
        metric = np.maximum(p, p * np.float32(0.5) + q * np.float32(0.75**0.5))
        from_centre = metric if from_centre is None else np.minimum(from_centre, metric)
    return _clipped(width / 2 - 1.1 - from_centre)


def _dots(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    p, q = _from_line(u, 8), _from_line(v, 8)
    return _clipped(np.sqrt(p * p + q * q) - 2.7)


def _noise(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    columns = np.floor(u * np.float32(0.4)).astype(np.int32) % _NOISE_SIDE
    rows = np.floor(v * np.float32(0.4)).astype(np.int32) % _NOISE_SIDE
    return table.take(rows * _NOISE_SIDE + columns) * np.float32(1 / 255)


def _triangles(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    """Dark upright triangles of a lattice of side 10: all three barycentric distances positive."""
    height = np.float32(10 * 0.75**0.5)
    b = v * (1 / height)
    a = u * np.float32(0.1) - b * np.float32(0.5)
    a -= np.floor(a)
    b -= np.floor(b)
    smallest = np.minimum(np.minimum(a, b), 1 - a - b)
    return _clipped(np.float32(0.7) - smallest * height)


def _zigzags(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    return _clipped((_from_line(u + _from_line(v, 10), 8) - 2.1) * np.float32(0.5**0.5))


def _rain(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    """Dashes in columns of width 4.5, each column shifted by its own random length."""
    columns = np.floor(u * np.float32(1 / 4.5))
    shifts = table.take(columns.astype(np.int32) % _NOISE_SIDE) * np.float32(10 / 256)
    across = np.abs(u - (columns + np.float32(0.5)) * np.float32(4.5))
    return _clipped(np.maximum(across - 1.0, _from_line(v + shifts, 10) - 3.0))


def _pluses(u: Floats, v: Floats, table: NDArray[np.uint8]) -> Floats:
    p, q = _from_line(u, 9), _from_line(v, 9)
    return _clipped(np.maximum(np.minimum(p, q) - 1.1, np.maximum(p, q) - 3.2))


_TEXTURES: dict[str, _Texture] = {
    "solid": _solid,
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


def _brightness(texture: str, rotation: float, seed: int, right: Floats, up: Floats) -> Floats:
    """Returns the share of the bright tone, float32 [rows, columns] in [0, 1]."""
    if texture == "solid":
        return np.ones((len(up), len(right)), dtype=np.float32)
    raw = np.asarray(np.random.PCG64(seed).random_raw(2 + _NOISE_SIDE**2 // 8), dtype="<u8")
    offset_u, offset_v = (raw[:2] >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-17)
    cos, sin = np.float32(np.cos(rotation)), np.float32(np.sin(rotation))
    column, row = right[None, :], up[:, None]
    u = (cos * column + offset_u) + sin * row
    v = (offset_v - sin * column) + cos * row
    return _TEXTURES[texture](u, v, raw[2:].view(np.uint8))


def centres(factors: Factors) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the centres of the shapes' squares, columns and rows in pixels of the 224 px canvas.

    Wherever the turned square fits into the canvas it may lie; it never leaves the canvas.
    """
    radians = np.deg2rad(factors.shape_rotation)
    half = BOX / 2 * (np.abs(np.cos(radians)) + np.abs(np.sin(radians)))
    room = CANVAS - 2 * half
    return half + factors.placement_x * room, half + factors.placement_y * room


def area_weights(size: int) -> Floats:
    """Returns the shares of a resize by area as whole numbers, float32 [size, CANVAS].

    With a canvas pixel `size` units wide, a resized one is CANVAS units wide; the entries are their
    overlaps and each row sums to CANVAS. Sums over 8-bit pixels in two dimensions stay below 2^24,
    hence exact in float32 whatever the order of summation.
    """
    edges = np.arange(CANVAS + 1) * size
    targets = np.arange(size)[:, None] * CANVAS
    overlap = np.minimum(edges[1:], targets + CANVAS) - np.maximum(edges[:-1], targets)
    return np.maximum(overlap, 0).astype(np.float32)


class _Renderer:
    """Draws one image at a time of a split's factors into a shared array."""

    def __init__(self, factors: Factors, images: NDArray[np.uint8]) -> None:
        self._factors = factors
        self._images = images
        self._x, self._y = centres(factors)
        self._shape_radians = np.deg2rad(factors.shape_rotation)
        self._texture_radians = np.deg2rad(factors.texture_rotation)
        self._weights = area_weights(images.shape[-1])
        self._palette = np.asarray(list(COLORS.values()), dtype=np.float32)

    def draw(self, start: int, stop: int) -> int:
        for index in range(start, stop):
            self._draw_one(index)
        return stop - start

    def _draw_one(self, index: int) -> None:
        factors = self._factors
        left, top = (
            int(np.clip(centre[index] - _WINDOW / 2, 0, CANVAS - _WINDOW))
            for centre in (self._x, self._y)
        )
        pixels = np.arange(_WINDOW) + 0.5
        right = (pixels + (left - self._x[index])).astype(np.float32)
        up = ((self._y[index] - top) - pixels).astype(np.float32)
        covered = _coverage(
            SHAPES[factors.shape[index]], float(self._shape_radians[index]), right, up
        )
        tone = _brightness(
            TEXTURES[factors.texture[index]],
            float(self._texture_radians[index]),
            int(factors.texture_seed[index]),
            right,
            up,
        )
        tone *= np.float32(255 * (1 - DARK))
        tone += np.float32(255 * DARK)
        tone *= covered
        covered *= np.float32(255)
        covered, tone = (self._resized(np.rint(x, out=x), top, left) for x in (covered, tone))
        # Both are linear in the pixel: the background shows where the shape does not.
        background = np.float32(BACKGROUND) * (np.float32(255) - covered)
        color = self._palette[factors.color[index]]
        for channel in range(3):
            self._images[index, channel] = np.rint(background + color[channel] * tone)

    def _resized(self, window: Floats, top: int, left: int) -> Floats:
        """Puts a window of whole numbers back on the canvas and resizes it by area."""
        size = self._images.shape[-1]
        if size == CANVAS:
            canvas = np.zeros((CANVAS, CANVAS), dtype=np.float32)
            canvas[top : top + _WINDOW, left : left + _WINDOW] = window
            return canvas
        rows = self._weights[:, top : top + _WINDOW]
        columns = self._weights[:, left : left + _WINDOW]
        total: Floats = rows @ window @ columns.T
        total *= np.float32(1 / CANVAS**2)
        return total


def render(factors: Factors, images: NDArray[np.uint8], workers: int) -> Iterator[int]:
    """Draws the images of a split and yields how many have been added, as they come.

    Args:
        factors: what to draw.
        images: receives the images, uint8 [N, 3, size, size].
        workers: threads that draw.
    """
    renderer = _Renderer(factors, images)
    starts = range(0, len(factors), _CHUNK)
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(
            lambda start: renderer.draw(start, min(start + _CHUNK, len(factors))), starts
        )
