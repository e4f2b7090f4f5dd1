"""Your own images: one folder per class, and groups from an optional list of attributes.

A line says which folders are splits and what remains unread. A class that would disappear is
refused.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kdplatform.columns import (
    MISSING,
    check_attribute_names,
    check_attributes,
    is_index,
    say_look_alikes,
    spelled_once,
)
from kdplatform.data import Dataset, Inputs
from kdplatform.data._dataset import inputs_at
from kdplatform.data._folders import (
    HOLDING,
    SPLITS,
    Layout,
    kinds_text,
    layout_of,
    refuse_lost_classes,
    refuse_one_folder_around,
    refuse_splits_inside_classes,
)
from kdplatform.data._image_files import (
    MEASURED_IMAGES,
    ImageFilesConfig,
    decoded_once,
    files_below,
    files_digest,
    hashed_files,
    in_memory,
    pixels_digest,
    refuse_bad,
    streamed,
)
from kdplatform.data._sources import given_root
from kdplatform.data._splits import Rows, assembled, check_classes, hold_out, numbered
from kdplatform.data._text_files import composed, read_csv, read_header
from kdplatform.errors import UserError
from kdplatform.lazy import pandas as pd
from kdplatform.progress import say

ATTRIBUTES = "attributes.csv"
_FILE = "file"


class Config(ImageFilesConfig):
    """The place of the images, and how splits without a folder are made."""

    name: Literal["imagefolder"] = Field("imagefolder", description="dataset")
    root: str = Field("", description="folder with train/<class>/ or <class>/, and attributes.csv")
    val_fraction: float = Field(
        0.1,
        ge=0.01,
        le=0.5,
        description="share of every class for validation, without a folder val/",
    )
    test_fraction: float = Field(
        0.2,
        ge=0.01,
        le=0.5,
        description="share of every class for the test, without a folder test/",
    )
    skip_bad: bool = Field(
        False, description="leave out images that do not decode; false: they end the command"
    )
    seed: int = Field(0, ge=0, description="seed of the splits that are not folders")


def check(config: Config) -> None:
    """Checks the folders of the classes and the columns of the attributes, and opens no image.

    Raises:
        UserError: there are no classes, folders are neither splits nor classes, an image lies
            outside of them, or the list of attributes is of another kind; names what.
    """
    root = given_root(config.root, HOLDING)
    where = f"dataset.root={config.root!r}"
    layout = layout_of(root, where)
    if not layout.class_names:
        raise UserError(f"{where} has no images; allowed: {HOLDING}")
    refuse_one_folder_around(root, layout, where)
    check_classes({}, layout.class_names, where)
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
    root = given_root(config.root, HOLDING)
    where = f"dataset.root={config.root!r}"
    listing = _listed(config, root, where)
    files = listing.files
    images = streamed(config, root, files)
    source, contents = hashed_files(root, files)
    digest = pixels_digest(config, source, files)
    pixels, bad = decoded_once(config, images, digest, folder, pixels=in_memory(config, len(files)))
    if bad and config.skip_bad:
        say(f"{where}: {len(bad)} of {len(files)} images do not decode and are left out")
    elif bad:
        refuse_bad(bad, "images that decode, or dataset.skip_bad=true to leave such images out")
    good = np.setdiff1d(np.arange(len(files)), list(bad)).astype(np.int64)
    labels = listing.labels[good]
    columns, readings = _attributes(root, [files[row] for row in good])
    _check_held_out(listing.splits[good], labels, listing.classes, where)
    rows = _splits(config, listing.splits[good], labels)
    check_classes({name: labels[own] for name, own in rows.items()}, listing.classes, where)
    _say_copies({name: good[own] for name, own in rows.items()}, contents, files)
    attributes = list(map(str, columns))
    check_attributes(columns, labels, attributes, f"{str(root / ATTRIBUTES)!r}")
    if (root / ATTRIBUTES).is_file():
        digest = "/".join([digest + files_digest(root, [ATTRIBUTES]), *readings])
    inputs: Inputs = images if pixels is None else pixels
    return assembled(
        config,
        digest,
        numbered(
            inputs_at(inputs, good) if bad else inputs, labels, columns, np.array(files)[good]
        ),
        rows,
        class_names=listing.classes,
        attributes=attributes,
        measured=MEASURED_IMAGES,
        named_by=_FILE,
    )


@dataclass(frozen=True)
class _Listing:
    """All image files below a folder, sorted by path.

    Attributes:
        splits: [N], the split of each file's folder; empty strings without such folders.
    """

    files: list[str]
    labels: Rows
    splits: NDArray[np.str_]
    classes: list[str]


def _listed(config: Config, root: Path, where: str) -> _Listing:
    layout = layout_of(root, where)
    files: list[str] = []
    kinds = Counter(Path(name).suffix.lower() for name in layout.files if name != ATTRIBUTES)
    for folder, classes in layout.classes.items():
        for name in classes:
            prefix = f"{folder}/{name}" if folder else name
            below, left = files_below(root / prefix)
            files += [f"{prefix}/{file}" for file in below]
            kinds += left
    files.sort()
    depth = 1 if layout.splits else 0
    refuse_splits_inside_classes(files, depth, where)
    names = [composed(file.split("/")[depth]) for file in files]
    classes = sorted(set(names))
    _check_utf8(classes, where)
    refuse_lost_classes(root, layout, set(classes), where)
    _say_layout(config, layout, where)
    _say_unread(root, layout, kinds, where)
    say_look_alikes(classes, f"{where}: classes")
    if nested := len({file.rsplit("/", 1)[0] for file in files if file.count("/") > depth + 1}):
        say(f"{where}: images of {nested} folders inside class folders belong to the class")
    number = {name: label for label, name in enumerate(classes)}
    split = {folder: name for name, folder in layout.splits.items()}
    return _Listing(
        files,
        np.array([number[name] for name in names], dtype=np.int64),
        np.array([split[file.split("/")[0]] if split else "" for file in files]),
        classes,
    )


def _check_utf8(classes: Sequence[str], where: str) -> None:
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"{where}: the class folder {os.fsencode(name)!r} has a name that is not UTF-8; "
                "allowed: folders named in UTF-8"
            ) from None


def _say_layout(config: Config, layout: Layout, where: str) -> None:
    """Says where each split comes from."""
    shares = {"val": config.val_fraction, "test": config.test_fraction}
    origins = [f"{name} is {layout.splits[name]}/" for name in SPLITS if name in layout.splits]
    of = "train" if layout.splits else "all images"
    origins += [
        f"{split} is {share:g} of every class of {of}"
        for split, share in shares.items()
        if split not in layout.splits
    ]
    say(f"{where}: {', '.join(origins)}")


def _say_unread(root: Path, layout: Layout, kinds: Counter[str], where: str) -> None:
    """Names the folders and counts the files that are no image of any class."""
    unread = [
        f"folder {name!r} ({sum(map(len, ([*below], [*left.elements()])))} files)"
        for name in layout.beside
        for below, left in [files_below(root / name)]
    ]
    unread += [kinds_text(kinds)] if kinds else []
    if unread:
        say(f"{where}: left out: {', '.join(unread)}")


def _say_copies(rows: Mapping[str, Rows], contents: Sequence[bytes], files: Sequence[str]) -> None:
    """Says which images of validation and test models see in training, byte for byte."""
    if not contents:
        return
    seen = {contents[row]: row for row in rows["train"].tolist()}
    for split in ("val", "test"):
        if copies := [row for row in rows[split].tolist() if contents[row] in seen]:
            first = copies[0]
            say(
                f"imagefolder: {len(copies)} images of {split} are in train too: "
                f"{files[first]!r} is {files[seen[contents[first]]]!r}"
            )


def _check_attribute_columns(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise UserError(
            f"{str(path)!r} is no file; allowed: a CSV file of this name, or nothing of this name"
        )
    columns = read_header(path)
    if _FILE not in columns:
        raise UserError(
            f"{str(path)!r} has no column 'file' (its columns: {', '.join(columns)}); allowed: a "
            "column 'file' with paths below the folder, and one column per attribute"
        )
    check_attribute_names([name for name in columns if name != _FILE], f"{str(path)!r}")


def _attributes(root: Path, files: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Reads the groups of every file, as strings; an empty cell is the group `missing`.

    Returns:
        The groups, and what was read in another spelling than the file's.
    """
    path = root / ATTRIBUTES
    if not path.is_file():
        return pd.DataFrame(index=range(len(files))), []
    table = read_csv(path)
    own = [composed(file) for file in files]
    names = table.pop(_FILE).map(lambda name: posixpath.normpath(name.replace("\\", "/")))
    if outside := [name for name in names if name.startswith(("/", "../")) or name == ".."]:
        raise UserError(
            f"{str(path)!r} names {outside[0]!r}, one of {len(outside)} files outside the folder; "
            "allowed: paths below the folder, such as cat/1.jpg"
        )
    if repeated := names[names.duplicated()].tolist():
        raise UserError(f"{str(path)!r} has {repeated[0]!r} twice; allowed: every image once")
    table.index = pd.Index(names)
    unread = sorted(set(names) - set(own))
    if absent := [name for name in unread if not (root / name).is_file()]:
        raise UserError(
            f"{str(path)!r} names {absent[0]!r}, one of {len(absent)} files that are not there"
        )
    if unread:
        say(f"{str(path)!r}: {len(unread)} lines name no image that is read: {unread[0]!r}")
    listed = set(names)
    if bare := [file for file in own if file not in listed]:
        raise UserError(
            f"{str(path)!r} has no line for {bare[0]!r}, one of {len(bare)} images without "
            "attributes; allowed: a line for every image"
        )
    chosen = table.loc[own].reset_index(drop=True)
    index = [str(column) for column in chosen if is_index(str(column), chosen[column])]
    readings = [f"index {column}" for column in index]
    if index:
        say(f"{str(path)!r}: left out, an index as pandas writes it: {', '.join(index)}")
    chosen = chosen.drop(columns=index)
    for column in chosen:
        chosen[column], joined = spelled_once(chosen[column], f"{str(path)!r}: {column}")
        readings += [f"{column}: {texts}" for texts in joined]
        if empty := int((chosen[column] == "").sum()):
            say(f"{str(path)!r}: {column} is empty for {empty} images: group 'missing'")
    return chosen.replace("", MISSING), readings


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
