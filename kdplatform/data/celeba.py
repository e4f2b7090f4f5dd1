"""CelebA: 202,599 aligned photographs of faces with forty attributes of yes and no.

Liu et al. 2015, "Deep Learning Face Attributes in the Wild", arXiv 1411.7766. One of the forty is
the label, and each of the others may form two groups. The official split is kept. Not given by the
paper on distillation and fairness: the image size, and how many examples undersampling leaves.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.columns import usable_attributes
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
from kdplatform.data._text_files import read_csv, read_header, read_lines
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
# Where its authors put each of them, beside torchvision's and Kaggle's place: the folder itself.
_AUTHORS = {_ATTRIBUTES: "Anno", _PARTITION: "Eval", _IMAGES: "Img"}
_PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
_HOLDING = (
    f"celeba/{_ATTRIBUTES}, celeba/{_PARTITION} and celeba/{_IMAGES}/*.jpg (from {_PAGE}; without "
    "celeba/, below Anno/, Eval/ and Img/, or with Kaggle's lists in .csv)"
)
# The numbers of the official split.
_SPLITS = {"train": 0, "val": 1, "test": 2}


class Config(ImageFilesConfig):
    """Which attribute is the label, and how the aligned 178 x 218 images are cut: square."""

    name: Literal["celeba"] = Field("celeba", description="dataset")
    root: str = Field(
        "",
        description="folder in the layout of torchvision, Kaggle or the authors; empty: downloaded",
    )
    label: str = Field("Smiling", description="attribute to be predicted, one of the forty")
    undersample: bool = Field(
        True, description="drop training images of the more frequent label until both are equal"
    )
    image_size: ImageSize = 128
    seed: int = Field(0, ge=0, description="seed of the undersampling")


def check(config: Config) -> None:
    """Checks that the user's folder has the lists, and that the attribute exists."""
    if config.root:
        path = _given(config).attributes
        lines = [] if _is_csv(path) else _lines(path)
        names = read_header(path)[1:] if _is_csv(path) else " ".join(lines[1:2]).split()
        # A list without names is cut short; `load` says where.
        if names:
            _check_label(config, names)


def load(config: Config, folder: Path) -> Dataset:
    """Loads CelebA; ids are the numbers of the images' lines in the list, from 0.

    Columns are all attributes but the label, their groups named such as `Young` and `not Young`.

    Raises:
        UserError: files are missing or damaged, or there is no such attribute; says which.
        MachineError: it is not there and cannot be downloaded; says which files to put where.
    """
    found = _found(config, folder)
    where = f"dataset.root={str(found.root)!r}"
    files, table = _attributes(found.attributes)
    _check_label(config, list(map(str, table.columns)))
    parts = _partition(found.partition, found.attributes, files)
    there = set(files_below(found.images)[0])
    if missing := [file for file in files if file not in there]:
        raise UserError(
            f"{str(found.images / missing[0])!r} is missing, one of {len(missing)} images of "
            f"{found.attributes.name}; allowed: all of {_IMAGES}.zip"
        )
    if unread := len(there) - len(files):
        say(f"celeba: left out: {unread} images that are not in {found.attributes.name}")
    labels = table.pop(config.label).to_numpy().astype(np.int64)
    offered = list(map(str, table.columns))
    columns = pd.DataFrame(
        {name: np.where(table[name], name, f"not {name}").tolist() for name in offered}
    )
    attributes = usable_attributes(columns, labels, offered, config.name)
    names = [f"not {config.label}", config.label]
    rows = {name: np.flatnonzero(parts == number) for name, number in _SPLITS.items()}
    check_classes({name: labels[rows[name]] for name in rows}, names, where)
    if config.undersample:
        rows["train"] = _undersampled(labels, rows["train"], config.seed)
    read = [found.attributes, found.partition, *(found.images / file for file in files)]
    source = files_digest(found.root, [path.relative_to(found.root).as_posix() for path in read])
    inputs = image_inputs(config, found.images, files, source, folder)
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


def _is_csv(path: Path) -> bool:
    return path.suffix == ".csv"


def _attributes(path: Path) -> tuple[list[str], pd.DataFrame]:
    """Reads the list: a line with the count, one with forty names, then -1 or 1 for each image.

    Kaggle's has no count, and commas.
    """
    if _is_csv(path):
        table = read_csv(path)
        files = table.pop(str(table.columns[0])).tolist()
        if odd := np.flatnonzero(~table.isin(["1", "-1"]).all(axis=1)).tolist():
            raise UserError(
                f"{str(path)!r}, line {odd[0] + 2}: not as published; allowed: a file name and "
                f"{len(table.columns)} times 1 or -1"
            )
        return files, table == "1"
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
                f"{str(path)!r}, line {number}: not as published; allowed: a file name and "
                f"{len(names)} times 1 or -1"
            )
    values = np.array([row[1:] for row in rows]) == "1"
    return [row[0] for row in rows], pd.DataFrame(values, columns=names)


def _partition(path: Path, listed: Path, files: list[str]) -> NDArray[np.int64]:
    """Reads the split of every file, in the order of `files`, the files of the other list."""
    parts: dict[str, str] = {}
    lines = read_lines(path)
    between = "," if _is_csv(path) else " "
    for number, line in enumerate(lines, start=1):
        file, _, part = line.partition(between)
        if number == 1 and _is_csv(path):
            continue  # names of columns
        if part.strip() not in {"0", "1", "2"}:
            raise UserError(
                f"{str(path)!r}, line {number}: not as published; allowed: a file name and 0, 1 or "
                "2"
            )
        parts[file] = part.strip()
    if unlisted := [file for file in files if file not in parts]:
        raise UserError(
            f"{str(path)!r} lacks {unlisted[0]!r}, one of {len(unlisted)} images of {listed.name}"
        )
    if cut := sorted(set(parts) - set(files)):
        raise UserError(
            f"{str(listed)!r} lacks {cut[0]!r}, one of {len(cut)} images of {path.name}; allowed: "
            f"the whole file of {_PAGE}"
        )
    return np.array([parts[file] for file in files], dtype=np.int64)


class _Found(NamedTuple):
    """The folder that holds everything, both lists, and the folder of the images."""

    root: Path
    attributes: Path
    partition: Path
    images: Path


def _given(config: Config) -> _Found:
    """Returns the places of the lists and the images in the user's folder.

    Raises:
        UserError: one of them is missing; says which.
    """
    root = given_root(config.root, _HOLDING)
    inner = root / "celeba" if (root / "celeba").is_dir() else root
    places = {name: _place(inner, name) for name in _AUTHORS}
    given_root(str(inner), _HOLDING, [name for name, path in places.items() if path is None])
    attributes, partition, images = (path or inner for path in places.values())
    return _Found(inner, attributes, partition, images)


def _place(folder: Path, name: str) -> Path | None:
    """Returns the place of a list or of the images; None if missing."""
    for place in (folder / name, folder / _AUTHORS[name] / name):
        for path in (place, place.with_suffix(".csv")):
            if path.is_dir() if name == _IMAGES else path.is_file():
                # Kaggle's archive has the folder in a folder of the same name.
                return path / name if (path / name).is_dir() else path
    return None


def _found(config: Config, folder: Path) -> _Found:
    """Returns the places of the lists and the images, the user's or downloaded ones."""
    if config.root:
        return _given(config)
    own = folder / "celeba" / "celeba"
    with locked(folder / "celeba" / "lock", "waiting for another process that downloads CelebA"):
        _download(own)
    return _Found(own, own / _ATTRIBUTES, own / _PARTITION, own / _IMAGES)


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
