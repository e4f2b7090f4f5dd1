"""What was drawn is read back from the pixels."""

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from sklearn.neighbors import KNeighborsClassifier

from kdplatform.data._trifeature_factors import COLORS, SHAPES, TEXTURES, Factors, draw_factors
from kdplatform.data._trifeature_rendering import LARGEST_BOX, centres, render

PALETTE = np.asarray(list(COLORS.values()))
RED, WHITE = list(COLORS).index("red"), list(COLORS).index("white")

PENTAGON_RADIUS = 64 / math.cos(math.radians(18))
TAN_18 = math.tan(math.radians(18))
AREAS = {
    "triangle": math.sqrt(3) / 4 * 128**2,
    "square": 128**2,
    "plus": 128**2 * 5 / 9,
    "circle": math.pi * 64**2,
    "tee": 128**2 * 5 / 9,
    "rhombus": 0.6 * 128**2 / 2,
    "pentagon": 2.5 * PENTAGON_RADIUS**2 * math.sin(math.radians(72)),
    "star": 10 * TAN_18 / (3 - TAN_18**2) * PENTAGON_RADIUS**2,
    "fivesquare": 128**2 * 5 / 9,
    "trapezoid": (128 + 70) / 2 * 0.7 * 128,
}


def drawn(count: int, seed: int = 5) -> Factors:
    """The first factors of a split of 1,000: every one of them differs from image to image."""
    return taken(draw_factors(seed, 0, 10, 1, 0.0), slice(count))


def taken(factors: Factors, rows: slice | NDArray[np.int64]) -> Factors:
    return Factors(**{field.name: getattr(factors, field.name)[rows] for field in fields(factors)})


def all_equal(factors: Factors, **values: float) -> Factors:
    return replace(
        factors, **{name: np.full_like(getattr(factors, name), v) for name, v in values.items()}
    )


def solid_red(shape: str, count: int = 4, **values: float) -> Factors:
    return all_equal(
        drawn(count),
        shape=SHAPES.index(shape),
        color=RED,
        texture=TEXTURES.index("solid"),
        **values,
    )


def coverage(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Share of each pixel that a solid red shape covers: its green falls from .5 to 0 there."""
    return 1 - images[:, 1] / 128


def positions(size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances of the pixels' centres from the left and the top edge in pixels of 224."""
    pixels = (np.arange(size) + 0.5) * 224 / size
    return pixels[None, :], pixels[:, None]


def centroid(weights: NDArray[np.float64]) -> tuple[float, float]:
    x, y = positions(weights.shape[-1])
    return float((weights * x).sum() / weights.sum()), float((weights * y).sum() / weights.sum())


@pytest.mark.parametrize("size", [224, 48])
def test_color_is_the_mean_of_the_shape_up_to_its_brightness(size: int) -> None:
    factors = drawn(300)
    images = render(factors, size)
    x, y = positions(size)
    recovered = []
    for image, centre_x, centre_y in zip(images, *centres(factors), strict=True):
        # 14 pixels around the centre lie inside every shape.
        middle = (np.abs(x - centre_x) <= 7) & (np.abs(y - centre_y) <= 7)
        mean = image[:, middle].mean(axis=1)
        directions = PALETTE / np.linalg.norm(PALETTE, axis=1, keepdims=True)
        recovered.append(int((directions @ mean).argmax()))
    np.testing.assert_array_equal(recovered, factors.color)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("size", "side"), [(224, 128), (48, 128), (224, 96), (32, 158)])
def test_shape_has_its_known_area(shape: str, size: int, side: int) -> None:
    area = coverage(render(solid_red(shape), size, side)).sum(axis=(1, 2)) * (224 / size) ** 2
    np.testing.assert_allclose(area, AREAS[shape] * (side / 128) ** 2, rtol=4e-3)


@pytest.mark.parametrize("shape", ["square", "plus", "circle", "rhombus", "fivesquare"])
@pytest.mark.parametrize(("size", "side"), [(224, 128), (48, 128), (224, 96)])
def test_symmetric_shape_lies_at_its_position(shape: str, size: int, side: int) -> None:
    factors = solid_red(shape, 8)
    images = coverage(render(factors, size, side))
    for covered, x, y in zip(images, *centres(factors, side), strict=True):
        assert centroid(covered) == pytest.approx((x, y), abs=0.3)


@pytest.mark.parametrize(
    ("shape", "heavy_side"), [("tee", 90), ("triangle", -90), ("trapezoid", -90)]
)
def test_shape_rotation_is_counter_clockwise(shape: str, heavy_side: float) -> None:
    factors = solid_red(shape, 8)
    covered = coverage(render(factors, 224))
    for i, (x, y) in enumerate(zip(*centres(factors), strict=True)):
        mean_x, mean_y = centroid(covered[i])
        angle = math.degrees(math.atan2(y - mean_y, mean_x - x)) - heavy_side
        assert (angle + 180) % 360 - 180 == pytest.approx(factors.shape_rotation[i], abs=1)


def test_texture_turns_by_its_own_angle() -> None:
    stripes = all_equal(
        drawn(12), shape=SHAPES.index("square"), texture=TEXTURES.index("stripes"), color=WHITE
    )
    for i, (image, x, y) in enumerate(zip(render(stripes, 224), *centres(stripes), strict=True)):
        inner = image[0, int(y) - 40 : int(y) + 40, int(x) - 40 : int(x) + 40].astype(float)
        down, right = (
            gaussian_filter(inner, 2, order=order)[8:-8, 8:-8] for order in ((1, 0), (0, 1))
        )
        # The main axis of the gradients crosses the stripes; up is against the rows.
        doubled = math.atan2(-2 * (right * down).sum(), (right**2 - down**2).sum())
        off = math.degrees(doubled) / 2 - stripes.texture_rotation[i]
        assert abs((off + 90) % 180 - 90) < 0.5


def test_texture_can_be_told_from_patches_of_ten_pixels() -> None:
    squares = all_equal(
        taken(drawn(1), np.zeros(20, dtype=np.int64)),
        shape=SHAPES.index("square"),
        color=WHITE,
        texture_rotation=10.0,
    )
    squares = replace(
        squares,
        texture=np.tile(np.arange(10), 2),
        texture_seed=np.repeat([11, 12], 10),
    )
    images = render(squares, 224)
    x, y = (int(values[0]) for values in centres(squares))
    # Magnitudes of a patch's spectrum do not depend on where it was cut out.
    corners = [(x + dx, y + dy) for dx in range(-40, 31, 7) for dy in range(-40, 31, 7)]
    spectra = np.asarray(
        [
            np.abs(np.fft.rfft2(image[0, top : top + 10, left : left + 10])).ravel()
            for image in images
            for left, top in corners
        ]
    )
    labels = np.repeat(squares.texture, len(corners))
    half = len(labels) // 2
    classifier = KNeighborsClassifier(5).fit(spectra[:half], labels[:half])
    hits = classifier.predict(spectra[half:]) == labels[half:]
    worst = min(hits[labels[half:] == texture].mean() for texture in range(10))
    assert hits.mean() > 0.95
    assert worst > 0.8


@pytest.mark.parametrize(
    ("texture", "share"),
    {
        "solid": 1.0,
        "stripes": 1 - 3.2 / 8,
        "grid": (1 - 2.4 / 9) ** 2,
        "hexgrid": (1 - 1.1 / 4.5) ** 2,
        "dots": 1 - math.pi * 2.7**2 / 8**2,
        "noise": 0.5,
        "triangles": 1 - (1 - 0.7 / (10 * math.sqrt(3) / 6)) ** 2 / 2,
        "zigzags": 1 - 4.2 / 8,
        "rain": 1 - 2 * 6 / (4.5 * 10),
        "pluses": 1 - (2 * 2.2 * 6.4 - 2.2**2) / 9**2,
    }.items(),
)
def test_texture_has_the_bright_share_of_its_geometry(texture: str, share: float) -> None:
    squares = all_equal(
        drawn(8), shape=SHAPES.index("square"), texture=TEXTURES.index(texture), color=WHITE
    )
    inner = [
        image[0, int(y) - 43 : int(y) + 43, int(x) - 43 : int(x) + 43].mean() / 255
        for image, x, y in zip(render(squares, 224), *centres(squares), strict=True)
    ]
    assert np.mean(inner) == pytest.approx(0.25 + 0.75 * share, abs=0.01)


def test_white_shape_stands_out_from_the_background_in_every_texture() -> None:
    white = all_equal(drawn(100), color=WHITE, shape=SHAPES.index("square"))
    images = render(white, 48)
    x, y = positions(48)
    for image, centre_x, centre_y in zip(images, *centres(white), strict=True):
        middle = (np.abs(x - centre_x) <= 40) & (np.abs(y - centre_y) <= 40)
        assert image[:, middle].mean() > 145


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rotation", [-45.0, 0.0, 45.0])
@pytest.mark.parametrize("side", [96, 128, LARGEST_BOX])
def test_shape_lies_wholly_inside_wherever_it_is_placed(
    shape: str, rotation: float, side: int
) -> None:
    corners = replace(
        solid_red(shape, 4, shape_rotation=rotation),
        placement_x=np.array([0.0, 0.0, 1.0, 1.0]),
        placement_y=np.array([0.0, 1.0, 0.0, 1.0]),
    )
    area = coverage(render(corners, 224, side)).sum(axis=(1, 2))
    # Antialiasing misses some pixels at corners; a side cut by one pixel would miss more.
    np.testing.assert_allclose(area, AREAS[shape] * (side / 128) ** 2, rtol=0, atol=26)


@pytest.mark.parametrize("side", [96, 128])
def test_all_room_is_used(side: int) -> None:
    x, y = centres(replace(drawn(1000), shape_rotation=np.zeros(1000)), side)
    for values in (x, y):
        assert 0 <= values.min() - side / 2 < 2
        assert 0 <= 224 - side / 2 - values.max() < 2


@pytest.mark.parametrize("size", [32, 48, 100])
def test_small_image_is_the_area_mean_of_the_large_one(size: int) -> None:
    factors = drawn(40)
    large = render(factors, 224).astype(float)
    edges = np.arange(size + 1) * 224 / size
    for axis in (2, 3):
        running = np.insert(np.cumsum(large, axis=axis), 0, 0, axis=axis)
        whole = np.minimum(edges.astype(int), 223)
        part = (edges - whole).reshape(-1, *([1] * (3 - axis)))
        at_edges = running.take(whole, axis) * (1 - part) + running.take(whole + 1, axis) * part
        large = np.diff(at_edges, axis=axis) * size / 224
    np.testing.assert_allclose(render(factors, size), large, atol=1)


@pytest.mark.parametrize("size", [224, 48])
def test_image_does_not_depend_on_its_batch(size: int) -> None:
    factors = drawn(30)
    together = render(factors, size)
    one_by_one = [render(taken(factors, slice(i, i + 1)), size)[0] for i in range(30)]
    np.testing.assert_array_equal(together, one_by_one)


@pytest.mark.parametrize("name", [field.name for field in fields(Factors)])
def test_every_factor_shows(name: str) -> None:
    factors = all_equal(drawn(4), texture=TEXTURES.index("rain"))
    values = getattr(factors, name)
    changed = (values + 1) % 10 if name in ("shape", "color", "texture") else 0.9 * values
    other = replace(factors, **{name: changed.astype(values.dtype)})
    differs = (render(factors, 48) != render(other, 48)).any(axis=(1, 2, 3))
    assert differs.all()
