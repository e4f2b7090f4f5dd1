"""Waterbirds: birds of land or water before a background of land or water, mostly the matching one.

Sagawa et al. 2020, arXiv 1911.08731: photographs of birds (CUB-200-2011) pasted before backgrounds
(Places). 95% of the training images show a bird before its usual background, so the background is a
shortcut. In validation and test both are independent. The label is the kind of bird. Attributes are
`place`, the background, and `group`, bird and background together; the literature reports the worst
group. The official split is kept.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._image_files import (
    MEASURED_IMAGES,
    ImageFilesConfig,
    ImageSize,
    Resize,
    files_digest,
    image_inputs,
    pixels_digest,
)
from kdplatform.data._sources import given_root
from kdplatform.data._splits import assembled, check_classes, numbered
from kdplatform.data._text_files import read_csv, read_header
from kdplatform.errors import UserError
from kdplatform.lazy import pandas as pd

_LIST = "metadata.csv"
_ARCHIVE = "waterbird_complete95_forest2water2"
_HOLDING = (
    f"{_LIST} and the images it names, as {_ARCHIVE} has them (see "
    "https://github.com/kohpangwei/group_DRO)"
)
_FILE, _LABEL, _SPLIT, _PLACE = "img_filename", "y", "split", "place"
_COLUMNS = (_FILE, _LABEL, _SPLIT, _PLACE)
_ALLOWED = {_LABEL: ("0", "1"), _SPLIT: ("0", "1", "2"), _PLACE: ("0", "1")}
# The numbers of the official list.
_SPLITS = {"train": "0", "val": "1", "test": "2"}
CLASS_NAMES = ("landbird", "waterbird")
PLACES = ("land", "water")
KNOWN_ATTRIBUTES = ("place", "group")


class Config(ImageFilesConfig):
    """The place of the images; the centre of each is cut out square."""

    name: Literal["waterbirds"] = Field("waterbirds", description="dataset")
    root: str = Field("", description=f"folder with {_LIST}, or folder around {_ARCHIVE}")
    image_size: ImageSize = 224
    # As the code of group_DRO does for evaluation: 256/224 of the size, then the centre.
    resize: Resize = 256


def check(config: Config) -> None:
    """Checks that the list exists and has its columns."""
    root = _root(config)
    columns = read_header(root / _LIST)
    if lacking := [name for name in _COLUMNS if name not in columns]:
        raise UserError(
            f"{str(root / _LIST)!r} has no column {lacking[0]!r} (its columns: "
            f"{', '.join(columns)}); allowed: the official list"
        )


def load(config: Config, folder: Path) -> Dataset:
    """Loads Waterbirds; ids are the numbers of the images' lines in the list, from 0.

    Raises:
        UserError: the list or an image is missing or of another kind; says which.
        MachineError: the cache of decoded images cannot be written.
    """
    check(config)
    root = _root(config)
    path = root / _LIST
    table = read_csv(path)
    for name, values in _ALLOWED.items():
        wrong = ~table[name].isin(values)
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise UserError(
                f"{str(path)!r}, line {row + 2}: {name} is {table[name].iloc[row]!r}; allowed: "
                f"{', '.join(values)}"
            )
    files = table[_FILE].tolist()
    if outside := [file for file in files if Path(file).is_absolute() or ".." in Path(file).parts]:
        raise UserError(
            f"{str(path)!r}: {outside[0]!r} leads out of its folder; allowed: files below it"
        )
    if repeated := table[_FILE][table[_FILE].duplicated()].tolist():
        raise UserError(
            f"{str(path)!r} names {len(repeated)} images more than once ({repeated[0]!r}); "
            "allowed: each image once"
        )
    if missing := [file for file in files if not (root / file).is_file()]:
        raise UserError(
            f"{str(root / missing[0])!r} is missing, one of {len(missing)} images of {_LIST}; "
            f"allowed: all of {_ARCHIVE}"
        )
    labels = table[_LABEL].to_numpy().astype(np.int64)
    places = [PLACES[int(place)] for place in table[_PLACE]]
    columns = pd.DataFrame(
        {
            "place": places,
            "group": [f"{CLASS_NAMES[y]} on {p}" for y, p in zip(labels, places, strict=True)],
        }
    )
    rows = {
        name: np.flatnonzero((table[_SPLIT] == number).to_numpy())
        for name, number in _SPLITS.items()
    }
    where = f"dataset.root={config.root!r}"
    check_classes({name: labels[own] for name, own in rows.items()}, CLASS_NAMES, where)
    source = files_digest(root, [_LIST, *files])
    return assembled(
        config,
        pixels_digest(config, source, files),
        numbered(
            image_inputs(config, root, files, source, folder), labels, columns, np.array(files)
        ),
        rows,
        class_names=CLASS_NAMES,
        attributes=KNOWN_ATTRIBUTES,
        measured=MEASURED_IMAGES,
        named_by=_FILE,
    )


def _root(config: Config) -> Path:
    root = given_root(config.root, _HOLDING)
    inner = root / _ARCHIVE
    return given_root(str(inner if inner.is_dir() else root), _HOLDING, [_LIST])
