"""Trifeature: images of one shape, color and texture each, generated from these factors.

The dataset of Hermann and Lampinen 2020 (arXiv 2006.12433), drawn anew. Theirs: 224 x 224 pixels on
a grey (.5) background; ten shapes, textures and colors; the shape drawn in a 128 x 128 square,
turned by U[-45, 45] degrees and placed wholly inside the image; the texture turned independently
and readable within 10 x 10 pixels; 100 versions of every combination; 7 of the 10 values of each
feature in their task. Not given by the paper on distillation and fairness: the split, the image
size, the number of values and of versions, so the defaults below are ours. The label is the shape;
color and texture are the attributes.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.data import Dataset, Split
from kdplatform.data._splits import fields_that_matter
from kdplatform.data._trifeature_factors import COLORS, SHAPES, TEXTURES, Factors, draw_factors
from kdplatform.data._trifeature_rendering import BOX, CANVAS, LARGEST_BOX, centres, render
from kdplatform.errors import MachineError
from kdplatform.files import (
    Arrays,
    load_arrays,
    locked,
    remove_left_overs,
    save_arrays,
    writable_folder,
)
from kdplatform.lazy import pandas as pd
from kdplatform.lazy import torch
from kdplatform.progress import progress_bar, say
from kdplatform.settings.schema import NEUTRAL, DatasetConfig

# Part of the digest. Raise it whenever equal factors would give other pixels.
RENDERER_VERSION = 1

KNOWN_ATTRIBUTES: tuple[str, ...] = ("color", "texture")


class Config(DatasetConfig):
    """What of Trifeature is generated; the splits hold every combination equally often.

    `correlation` ties color to shape in the training split alone, by quota and not by chance: of
    the n images of a shape, round(correlation * n) have the shape's own color (the first shape the
    first color, and so on), spread evenly over its textures; the others take all colors in turn,
    the own one included. A share of correlation + (1 - correlation) / values_per_feature therefore
    has the own color. Every shape has the same number of images, and every shape has every texture
    equally often. Validation and test stay balanced.
    """

    name: Literal["trifeature"] = Field("trifeature", description="dataset")
    image_size: int = Field(
        48, ge=8, le=CANVAS, description="side in pixels; drawn at 224, then resized by area"
    )
    values_per_feature: int = Field(
        10,
        ge=2,
        le=10,
        description="number of shapes, of textures and of colors; the authors use 10 and 7",
    )
    versions_train: int = Field(4, ge=1, description="training images of every combination")
    versions_val: int = Field(1, ge=1, description="validation images of every combination")
    versions_test: int = Field(2, ge=1, description="test images of every combination")
    correlation: float = Field(
        0.0, ge=0, le=1, description="share of training images whose color is tied to their shape"
    )
    seed: int = Field(0, ge=0, description="seed of the generating factors")
    shape_size: int = Field(
        BOX,
        ge=16,
        le=LARGEST_BOX,
        description="side in pixels of the square that a shape is drawn in, before resizing; the "
        "authors use 128",
        json_schema_extra=NEUTRAL,
    )


def _draw_all_factors(config: Config) -> dict[str, Factors]:
    versions = {
        "train": config.versions_train,
        "val": config.versions_val,
        "test": config.versions_test,
    }
    return {
        name: draw_factors(
            config.seed,
            number,
            config.values_per_feature,
            count,
            config.correlation if name == "train" else 0.0,
        )
        for number, (name, count) in enumerate(versions.items())
    }


def _digest(config: Config, factors: dict[str, Factors]) -> str:
    """Returns the SHA-256 of specification and factors; pixels would differ between machines."""
    specification = fields_that_matter(config) | {"renderer_version": RENDERER_VERSION}
    digest = hashlib.sha256(json.dumps(specification, sort_keys=True).encode())
    for name, split_factors in factors.items():
        digest.update(name.encode() + b"\0" + split_factors.canonical_bytes())
    return digest.hexdigest()


def _draw_images(config: Config, factors: dict[str, Factors]) -> Arrays:
    """Draws all splits, uint8 [N, 3, image_size, image_size] each, under one progress bar."""
    arrays: Arrays = {}
    with progress_bar(sum(map(len, factors.values())), "drawing trifeature", "image") as bar:
        for name, split_factors in factors.items():
            arrays[name] = render(
                split_factors, config.image_size, config.shape_size, on_image=bar.update
            )
    return arrays


def _images(config: Config, factors: dict[str, Factors], folder: Path) -> Arrays:
    """Returns the images by split, from the cache in `folder` or drawn and kept there."""
    path = folder / "images.npz"
    lock = folder / "lock"
    with locked(lock, f"waiting for another process that draws the same images ({lock})"):
        if (cached := load_arrays(path)) is not None:
            return cached
        remove_left_overs(path)
        start = time.perf_counter()
        arrays = _draw_images(config, factors)
        save_arrays(path, arrays)
        seconds = time.perf_counter() - start
        count = sum(map(len, factors.values()))
        say(f"trifeature: drew {count} images in {seconds:.1f} s, kept in {path}")
        return arrays


def _columns(factors: Factors, shape_size: int) -> pd.DataFrame:
    def names(indices: NDArray[np.int64], known: tuple[str, ...]) -> NDArray[np.object_]:
        return np.asarray(known, dtype=object)[indices]

    x, y = centres(factors, shape_size)
    return pd.DataFrame(
        {
            "shape": names(factors.shape, SHAPES),
            "color": names(factors.color, tuple(COLORS)),
            "texture": names(factors.texture, TEXTURES),
            "shape_rotation": factors.shape_rotation,
            "texture_rotation": factors.texture_rotation,
            "position_x": x,
            "position_y": y,
        }
    )


def load(config: Config, folder: Path) -> Dataset:
    """Loads the dataset, drawing its images once below `folder / "trifeature"`.

    The splits' columns are the names of shape, color and texture; both rotations in degrees,
    counter-clockwise; position_x and position_y, the centre of the shape's square in pixels of the
    224 px image, from its left and its top edge.

    Raises:
        MachineError: the folder cannot be written, or the disk is full.
    """
    factors = _draw_all_factors(config)
    digest = _digest(config, factors)
    own_folder = writable_folder("data_folder", folder / "trifeature" / digest[:16])
    try:
        images = _images(config, factors, own_folder)
    except OSError as error:
        raise MachineError(
            f"data_folder={str(folder)!r} cannot hold the images of trifeature "
            f"({error.strerror or error}); allowed: a folder this user may write, with free space"
        ) from error
    splits: dict[str, Split] = {}
    first_id = 0
    for name, split_factors in factors.items():
        splits[name] = Split(
            inputs=torch.from_numpy(images[name]),
            labels=torch.from_numpy(split_factors.shape),
            ids=np.arange(first_id, first_id + len(split_factors), dtype=np.int64),
            columns=_columns(split_factors, config.shape_size),
        )
        first_id += len(split_factors)
    return Dataset(
        name="trifeature",
        digest=digest,
        class_names=SHAPES[: config.values_per_feature],
        attributes=KNOWN_ATTRIBUTES,
        train=splits["train"],
        val=splits["val"],
        test=splits["test"],
    )
