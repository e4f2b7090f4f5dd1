"""From an image file to pixels: decoded, turned upright, cropped and resized."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from kdplatform.errors import UserError, one_line
from kdplatform.lazy import torch

# left, top, right, bottom of a crop in an image of the width and height given, in pixels.
Box = tuple[float, float, float, float]
BoxIn = Callable[[int, int], Box]

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")

# Grey values of 16 bits, in either order of bytes.
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")
# Grey values without a known range: whole numbers of 32 bits, and fractions.
_WITHOUT_RANGE = ("I", "F")
# EXIF orientations of pictures rotated by a quarter turn.
_TURNED = (5, 6, 7, 8)
# Aspect ratios of random crops, and the number of draws before the centre is used; both are those
# of the Inception training recipe (Szegedy et al. 2015, arXiv 1409.4842) as it is commonly
# programmed.
_NARROWEST, _WIDEST = 3 / 4, 4 / 3
_ATTEMPTS = 10


def centre_box(share: float) -> BoxIn:
    """Returns the square in the middle whose side is `share` of the shorter one."""

    def box(width: int, height: int) -> Box:
        side = min(width, height) * share
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    return box


def random_box(generator: np.random.Generator, smallest: float) -> BoxIn:
    """Returns a random crop, to be resized to a square whatever its own shape.

    Its share of the image's area is uniform from `smallest` to 1, the logarithm of its aspect ratio
    from log(3/4) to log(4/3), its place uniform. The centre where ten draws do not fit.
    """

    def box(width: int, height: int) -> Box:
        for _ in range(_ATTEMPTS):
            area = width * height * generator.uniform(smallest, 1.0)
            ratio = math.exp(generator.uniform(math.log(_NARROWEST), math.log(_WIDEST)))
            across, down = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if across <= width and down <= height:
                left = generator.uniform(0, width - across)
                top = generator.uniform(0, height - down)
                return left, top, left + across, top + down
        return centre_box(1.0)(width, height)

    return box


def decoded(path: Path, size: int, box_in: BoxIn) -> torch.Tensor:
    """Reads an image and returns one crop of it: uint8 [3, size, size], RGB.

    Upright as its EXIF data say; grey becomes RGB, 16 bits become their upper 8, transparency is
    dropped; resized bilinearly with antialiasing.

    Raises:
        UserError: it cannot be read or decoded, or its values have no known range; names the file.
    """
    try:
        with Image.open(path) as image:
            return _crop(image, size, box_in)
    # Pillow's decoders raise errors of many types about files that are not what they seem.
    except Exception as error:
        raise UserError(f"image {str(path)!r} cannot be decoded ({one_line(error)})") from None


def _white_is_zero(image: Image.Image) -> bool:
    """Tells whether the file is a TIFF in which 0 stands for white."""
    return isinstance(image, TiffImagePlugin.TiffImageFile) and (
        image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    )


def _crop(image: Image.Image, size: int, box_in: BoxIn) -> torch.Tensor:
    # What Pillow reads of a PPM file with more than 8 bits it brings to 16.
    wide = image.mode in _SIXTEEN_BITS or (image.mode == "I" and image.format == "PPM")
    if image.mode in _WITHOUT_RANGE and not wide:
        raise ValueError(
            f"mode {image.mode!r}: which values are black and white is not known; save it with 8 "
            "or 16 bits"
        )
    width, height = image.size
    if image.getexif().get(ExifTags.Base.Orientation) in _TURNED:
        width, height = height, width
    left, top, right, bottom = box_in(width, height)
    # A JPEG much larger than needed is decoded at a half, a quarter or an eighth of its size.
    scale = size / min(right - left, bottom - top)
    if scale < 1:
        image.draft("RGB", (math.ceil(image.width * scale), math.ceil(image.height * scale)))
    upright = ImageOps.exif_transpose(image)
    if wide:
        grey = (np.array(upright) >> 8).astype(np.uint8)
        # Pillow inverts such images of 8 bits by itself.
        upright = Image.fromarray(255 - grey if _white_is_zero(image) else grey)
    upright = upright.convert("RGB")
    across, down = upright.width / width, upright.height / height
    # Rounding must not lead beyond the edge.
    box = (
        left * across,
        top * down,
        min(right * across, upright.width),
        min(bottom * down, upright.height),
    )
    pixels = upright.resize((size, size), Image.Resampling.BILINEAR, box=box)
    return torch.from_numpy(np.array(pixels)).permute(2, 0, 1).contiguous()
