"""Your own images: one folder per class, and groups from an optional list of attributes."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.columns import check_attribute_names, check_attributes
from kdplatform.data import Dataset, Inputs
from kdplatform.data._dataset import inputs_at
from kdplatform.data._decoding import IMAGE_SUFFIXES
from kdplatform.data._image_files import (
    MEASURED_IMAGES,
    ImageFilesConfig,
    decoded_once,
    files_below,
    files_digest,
    in_memory,
    pixels_digest,
    refuse_bad,
    streamed,
)
from kdplatform.data._sources import given_root
from kdplatform.data._splits import Rows, assembled, check_classes, hold_out, numbered
from kdplatform.data._text_files import read_csv, read_header
from kdplatform.errors import UserError
from kdplatform.lazy import pandas as pd
from kdplatform.progress import say

ATTRIBUTES = "attributes.csv"
SPLITS = ("train", "val", "test")
_HOLDING = "train/<class>/*.jpg (val/ and test/ may be there too), or <class>/*.jpg"


class Config(ImageFilesConfig):
    """Where the images lie, and how splits are made that have no folder of their own."""

    name: Literal["imagefolder"] = Field("imagefolder", description="dataset")
    root: str = Field("", description="folder with train/<class>/ or <class>/, and attributes.csv")
    val_fraction: float = Field(
        0.1, ge=0.01, le=0.5, description="share for validation where there is no val/"
    )
    test_fraction: float = Field(
        0.2, ge=0.01, le=0.5, description="share to test where there is no test/"
    )
    skip_bad: bool = Field(False, description="leave out images that do not decode; false: refuse")
    seed: int = Field(0, ge=0, description="seed of the splits made here")


def check(config: Config) -> None:
    """Checks the folders of the classes and the columns of the attributes, and opens no image.

    Raises:
        UserError: there are no classes, an image lies outside of them, or the list of attributes is
            of another kind; names what.
    """
    root = given_root(config.root, _HOLDING)
    where = f"dataset.root={config.root!r}"
    classes: set[str] = set()
    stray: list[str] = []
    for folder in [root / name for name in SPLITS] if _has_splits(root) else [root]:
        for path in sorted(folder.glob("[!.]*")):
            if path.is_dir():
                classes.add(path.name)
            elif path.name.lower().endswith(IMAGE_SUFFIXES):
                stray.append(path.relative_to(root).as_posix())
    if stray:
        raise UserError(
            f"{where}: {min(stray)!r} lies in no class folder, one of {len(stray)} such images; "
            f"allowed: {_HOLDING}"
        )
    if not classes:
        raise _no_images(where)
    check_classes({}, sorted(classes), where)
    _check_attribute_columns(root / ATTRIBUTES)


def load(config: Config, folder: Path) -> Dataset:
    """Loads images of class folders; classes are the folders' names in alphabetical order.

    All images are decoded once, to know that they can be; those held in memory are kept below
    `folder`. Ids count through all files that are not left out, sorted by path.

    Raises:
        UserError: no images, an image that does not decode, a class without training or test
            images, attributes that do not fit the images; names what.
        MachineError: the cache of decoded images cannot be written.
    """
    check(config)
    root = given_root(config.root, _HOLDING)
    where = f"dataset.root={config.root!r}"
    listing = _listed(root, where)
    files = listing.files
    images = streamed(config, root, files)
    digest = pixels_digest(config, files_digest(root, files))
    pixels, bad = decoded_once(config, images, digest, folder, pixels=in_memory(config, len(files)))
    if bad and config.skip_bad:
        say(f"{where}: {len(bad)} of {len(files)} images do not decode and are left out")
    elif bad:
        refuse_bad(bad, "images that decode, or dataset.skip_bad=true to leave such images out")
    good = np.setdiff1d(np.arange(len(files)), list(bad)).astype(np.int64)
    labels, columns = listing.labels[good], _attributes(root, [files[row] for row in good])
    _check_held_out(listing.splits[good], labels, listing.classes, where)
    rows = _splits(config, listing.splits[good], labels)
    check_classes({name: labels[own] for name, own in rows.items()}, listing.classes, where)
    attributes = list(map(str, columns))
    check_attributes(columns, labels, attributes, f"{str(root / ATTRIBUTES)!r}")
    if (root / ATTRIBUTES).is_file():
        digest += files_digest(root, [ATTRIBUTES])
    inputs: Inputs = images if pixels is None else pixels
    return assembled(
        config,
        digest,
        numbered(inputs_at(inputs, good) if bad else inputs, labels, columns),
        rows,
        class_names=listing.classes,
        attributes=attributes,
        measured=MEASURED_IMAGES,
    )


@dataclass(frozen=True)
class _Listing:
    """All image files below a folder, sorted by path.

    Attributes:
        splits: [N], the split each file's folder is of; empty strings where there are no such
            folders.
    """

    files: list[str]
    labels: Rows
    splits: NDArray[np.str_]
    classes: list[str]


def _listed(root: Path, where: str) -> _Listing:
    has_splits = _has_splits(root)
    files: list[str] = []
    others = 0
    for prefix in [f"{name}/" for name in SPLITS] if has_splits else [""]:
        below, left = files_below(root / prefix)
        files += [prefix + file for file in below]
        others += left
    files.sort()
    if not files:
        raise _no_images(where)
    others -= not has_splits and (root / ATTRIBUTES).is_file()
    if others:
        say(f"{where}: {others} files of other kinds than images are left out")
    names = [file.split("/")[1 if has_splits else 0] for file in files]
    classes = sorted(set(names))
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{where}: the class folder {os.fsencode(name)!r} has a name that is not UTF-8; "
                "allowed: folders named in UTF-8"
            ) from None
    number = {name: label for label, name in enumerate(classes)}
    return _Listing(
        files,
        np.array([number[name] for name in names], dtype=np.int64),
        np.array([file.split("/")[0] if has_splits else "" for file in files]),
        classes,
    )


def _has_splits(root: Path) -> bool:
    return (root / "train").is_dir()


def _no_images(where: str) -> UserError:
    return UserError(f"{where} has no images; allowed: {_HOLDING}")


def _check_attribute_columns(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise UserError(
            f"{str(path)!r} is no file; allowed: a CSV file of this name, or nothing of this name"
        )
    columns = read_header(path)
    if "file" not in columns:
        raise UserError(
            f"{str(path)!r} has no column 'file' (its columns: {', '.join(columns)}); allowed: a "
            "column 'file' with paths below the folder, and one column per attribute"
        )
    check_attribute_names([name for name in columns if name != "file"], f"{str(path)!r}")


def _attributes(root: Path, files: Sequence[str]) -> pd.DataFrame:
    """Reads the groups of every file, as strings; an empty cell is the group `missing`."""
    path = root / ATTRIBUTES
    if not path.is_file():
        return pd.DataFrame(index=range(len(files)))
    table = read_csv(path)
    names = table.pop("file").map(lambda name: posixpath.normpath(name.replace("\\", "/")))
    if outside := [name for name in names if name.startswith(("/", "../")) or name == ".."]:
        raise UserError(
            f"{str(path)!r} names {outside[0]!r}, one of {len(outside)} files outside the folder; "
            "allowed: paths below the folder, such as cat/1.jpg"
        )
    if repeated := names[names.duplicated()].tolist():
        raise UserError(f"{str(path)!r} has {repeated[0]!r} twice; allowed: every image once")
    table.index = pd.Index(names)
    absent = [name for name in names if not (root / name).is_file()]
    if absent:
        raise UserError(
            f"{str(path)!r} names {absent[0]!r}, one of {len(absent)} files that are not there"
        )
    listed = set(names)
    if bare := [file for file in files if file not in listed]:
        raise UserError(
            f"{str(path)!r} has no line for {bare[0]!r}, one of {len(bare)} images without "
            "attributes; allowed: a line for every image"
        )
    chosen = table.loc[list(files)].reset_index(drop=True)
    for column in chosen:
        if empty := int((chosen[column] == "").sum()):
            say(f"{str(path)!r}: {column} is empty for {empty} images: group 'missing'")
    return chosen.replace("", "missing")


def _check_held_out(
    folders: NDArray[np.str_], labels: Rows, classes: Sequence[str], where: str
) -> None:
    """Checks that every class has an image for training and for every split without a folder."""
    held_out = [name for name in ("val", "test") if not (folders == name).any()]
    pool = ", ".join(["train", *held_out])
    rest = (folders == "train") | (folders == "")
    check_classes({pool: labels[rest]}, classes, where, least=1 + len(held_out))


def _splits(config: Config, folders: NDArray[np.str_], labels: Rows) -> dict[str, Rows]:
    """Returns the rows of every split: of its folder, or held out of what is left for training."""
    rows = {name: np.flatnonzero(folders == name) for name in SPLITS}
    rest = np.flatnonzero((folders == "train") | (folders == ""))
    left = 1.0
    for number, (name, share) in enumerate(
        {"test": config.test_fraction, "val": config.val_fraction}.items()
    ):
        if not len(rows[name]):
            kept, held = hold_out(labels[rest], share / left, 2 * config.seed + number)
            rows[name], rest, left = rest[held], rest[kept], left - share
    return rows | {"train": rest}
