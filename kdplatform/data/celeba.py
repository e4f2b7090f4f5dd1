"""CelebA: 202,599 aligned photographs of faces with forty attributes of yes and no.

Liu et al. 2015, "Deep Learning Face Attributes in the Wild", arXiv 1411.7766. One of the forty is
the label, and each of the others may form two groups. The official split is kept. Not given by the
paper on distillation and fairness: the image size, and how many examples undersampling leaves.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._image_files import (
    MEASURED_IMAGES,
    ImageFilesConfig,
    ImageSize,
    files_below,
    files_digest,
    image_inputs,
    pixels_digest,
)
from kdplatform.data._sources import given_root, unpack
from kdplatform.data._splits import Rows, assembled, check_classes, numbered
from kdplatform.data._text_files import read_lines
from kdplatform.downloads import attempted, md5_of
from kdplatform.errors import UserError, unknown_name
from kdplatform.files import locked
from kdplatform.lazy import pandas as pd
from kdplatform.progress import say

_ATTRIBUTES, _PARTITION, _IMAGES = (
    "list_attr_celeba.txt",
    "list_eval_partition.txt",
    "img_align_celeba",
)
_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_HOLDING = f"celeba/{_ATTRIBUTES}, celeba/{_PARTITION} and celeba/{_IMAGES}/*.jpg (from {_PAGE})"
# The numbers of the official split.
_SPLITS = {"train": 0, "val": 1, "test": 2}


class Config(ImageFilesConfig):
    """Which attribute is the label, and how the aligned 178 x 218 images are cut: square."""

    name: Literal["celeba"] = Field("celeba", description="dataset")
    root: str = Field("", description="folder with celeba/, torchvision's layout; empty: download")
    label: str = Field("Smiling", description="attribute to be predicted, one of the forty")
    undersample: bool = Field(
        True, description="drop training images of the more frequent label until both are equal"
    )
    image_size: ImageSize = 128
    seed: int = Field(0, ge=0, description="seed of the undersampling")


def check(config: Config) -> None:
    """Checks that the user's folder holds the lists, and that there is such an attribute."""
    if config.root:
        lines = _lines(_given(config) / _ATTRIBUTES)
        # A list without names is cut short; `load` says where.
        if len(lines) > 1:
            _check_label(config, lines[1].split())


def load(config: Config, folder: Path) -> Dataset:
    """Loads CelebA; ids are the numbers of the images' lines in the list, from 0.

    Columns are all attributes but the label, their groups named such as `Young` and `not Young`.

    Raises:
        UserError: files are missing or damaged, or there is no such attribute; says which.
        MachineError: it is not there and cannot be downloaded; says which files to put where.
    """
    root = _found(config, folder)
    where = f"dataset.root={str(root)!r}"
    files, table = _attributes(root / _ATTRIBUTES)
    _check_label(config, list(map(str, table.columns)))
    parts = _partition(root / _PARTITION, files)
    there = set(files_below(root / _IMAGES)[0])
    if missing := [file for file in files if file not in there]:
        raise UserError(
            f"{str(root / _IMAGES / missing[0])!r} is missing, one of {len(missing)} images of "
            f"{_ATTRIBUTES}; allowed: all of {_IMAGES}.zip"
        )
    labels = table.pop(config.label).to_numpy().astype(np.int64)
    attributes = list(map(str, table.columns))
    columns = pd.DataFrame(
        {name: np.where(table[name], name, f"not {name}").tolist() for name in attributes}
    )
    names = [f"not {config.label}", config.label]
    rows = {name: np.flatnonzero(parts == number) for name, number in _SPLITS.items()}
    check_classes({name: labels[rows[name]] for name in rows}, names, where)
    if config.undersample:
        rows["train"] = _undersampled(labels, rows["train"], config.seed)
    source = files_digest(root, [_ATTRIBUTES, _PARTITION, *(f"{_IMAGES}/{file}" for file in files)])
    inputs = image_inputs(config, root / _IMAGES, files, source, folder)
    return assembled(
        config,
        pixels_digest(config, source, files),
        numbered(inputs, labels, columns),
        rows,
        class_names=names,
        attributes=attributes,
        measured=MEASURED_IMAGES,
    )


def _check_label(config: Config, names: list[str]) -> None:
    if config.label not in names:
        raise unknown_name("dataset.label", config.label, names)


def _undersampled(labels: Rows, rows: Rows, seed: int) -> Rows:
    """Drops rows of the over-represented label until both have equally many."""
    classes = [rows[labels[rows] == label] for label in (0, 1)]
    count = min(map(len, classes))
    random = np.random.default_rng(seed)
    kept = [random.permutation(some)[:count] for some in classes]
    say(f"celeba: {2 * count} of {len(rows)} training images kept, {count} of each label")
    return np.sort(np.concatenate(kept))


def _lines(path: Path) -> list[str]:
    return [line for line in read_lines(path) if line]


def _attributes(path: Path) -> tuple[list[str], pd.DataFrame]:
    """Reads the list: a line with the count, one with forty names, then -1 or 1 for each image."""
    lines = _lines(path)
    if len(lines) < 3 or not lines[0].isdecimal() or int(lines[0]) != len(lines) - 2:
        raise UserError(
            f"{str(path)!r} says {lines[0] if lines else 'nothing'!r} images and has "
            f"{max(0, len(lines) - 2)} lines of them; allowed: the whole file of {_PAGE}"
        )
    names = lines[1].split()
    rows = [line.split() for line in lines[2:]]
    for number, row in enumerate(rows, start=3):
        if len(row) != len(names) + 1 or not set(row[1:]) <= {"1", "-1"}:
            raise UserError(
                f"{str(path)!r}, line {number}: allowed: a file name and {len(names)} times 1 or -1"
            )
    values = np.array([row[1:] for row in rows]) == "1"
    return [row[0] for row in rows], pd.DataFrame(values, columns=names)


def _partition(path: Path, files: list[str]) -> NDArray[np.int64]:
    """Reads which split every file is of, in the order of `files`."""
    parts: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        file, _, part = line.partition(" ")
        if part.strip() not in {"0", "1", "2"}:
            raise UserError(f"{str(path)!r}, line {number}: allowed: a file name and 0, 1 or 2")
        parts[file] = part.strip()
    if unlisted := [file for file in files if file not in parts]:
        raise UserError(
            f"{str(path)!r} lacks {unlisted[0]!r}, one of {len(unlisted)} images of {_ATTRIBUTES}"
        )
    return np.array([parts[file] for file in files], dtype=np.int64)


def _given(config: Config) -> Path:
    """Returns the folder of the user's that holds the lists and the images."""
    root = given_root(config.root, _HOLDING)
    inner = root / "celeba" if (root / "celeba").is_dir() else root
    return given_root(str(inner), _HOLDING, [_ATTRIBUTES, _PARTITION, _IMAGES])


def _found(config: Config, folder: Path) -> Path:
    """Returns the folder that holds the lists and the images, the user's or a downloaded one."""
    if config.root:
        return _given(config)
    own = folder / "celeba" / "celeba"
    with locked(folder / "celeba" / "lock", "waiting for another process that downloads CelebA"):
        _download(own)
    return own


def _download(own: Path) -> None:
    """Fetches what is missing from Google Drive, which often refuses: its quota is shared by all.

    Raises:
        MachineError: it does; says which files to put where.
    """
    from torchvision.datasets import CelebA
    from torchvision.datasets.utils import download_file_from_google_drive

    published = {name: (number, md5) for number, md5, name in CelebA.file_list}
    for name in (_ATTRIBUTES, _PARTITION, f"{_IMAGES}.zip"):
        number, md5 = published[name]
        if (own / name).is_file() and md5_of(own / name) == md5:
            continue
        if name.endswith(".zip") and (own / _IMAGES).is_dir():
            continue
        own.mkdir(parents=True, exist_ok=True)
        attempted(
            f"CelebA's {name} on Google Drive",
            partial(download_file_from_google_drive, number, own, name, md5),
            f"{_ATTRIBUTES}, {_PARTITION} and {_IMAGES}.zip of {_PAGE} put into {str(own)!r}, or "
            f"dataset.root, a folder with {_HOLDING}",
            attempts=1,
            # Of many kinds: no gdown installed, no network, or a page that says the quota is used.
            failures=(Exception,),
        )
    if not (own / _IMAGES).is_dir():
        unpack(own / f"{_IMAGES}.zip", own, _IMAGES)
