"""Tiny ImageNet: 200 classes of ImageNet at 64 x 64 pixels.

Stanford CS231n 2015 (Le and Yang, "Tiny ImageNet Visual Recognition Challenge"). 100,000 training
images, 500 of each class. The labels of its test images were never published, so its 10,000
labelled validation images are the test split here, and validation is held out of training. No
attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._image_files import files_below
from kdplatform.data._published_files import (
    LabelledFiles,
    PublishedFilesConfig,
    by_label,
    in_class_folders,
    published_dataset,
    synset_names,
)
from kdplatform.data._sources import Archive, given_archive, obtained
from kdplatform.data._splits import check_classes
from kdplatform.data._text_files import read_lines
from kdplatform.errors import UserError
from kdplatform.progress import say

ARCHIVE = Archive(
    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    name="tiny-imagenet-200.zip",
    md5="90528d7ca1a48142e341f4ef8d21d0de",
    folder="tiny-imagenet-200",
)

_ANNOTATIONS = "val/val_annotations.txt"

KNOWN_ATTRIBUTES: tuple[str, ...] = ()


class Config(PublishedFilesConfig):
    """The place of Tiny ImageNet, and how validation is held out."""

    name: Literal["tiny_imagenet"] = Field("tiny_imagenet", description="dataset")
    root: str = Field("", description="folder with the archive or its content; empty: downloaded")


def check(config: Config) -> None:
    """Checks that the user's folder holds the archive or its content; see `given_archive`."""
    if config.root:
        given_archive(ARCHIVE, config.root)


def load(config: Config, folder: Path) -> Dataset:
    """Loads Tiny ImageNet, downloading it when no root is given.

    Ids count through the training images, then the test images, by class and file name.

    Raises:
        UserError: files are missing or damaged; names one.
        MachineError: the archive cannot be downloaded.
    """
    root = obtained(ARCHIVE, config.root, folder / "tiny_imagenet") / ARCHIVE.folder
    where = f"dataset.root={str(root)!r}"
    codes = [line for line in read_lines(root / "wnids.txt") if line]
    train = _training_files(root, codes)
    test, annotations = _test_files(root, codes)
    words = dict(line.split("\t", 1) for line in read_lines(root / "words.txt") if "\t" in line)
    names = synset_names(words, codes)
    check_classes({"training": train.labels}, names, where, least=2)
    check_classes({"test": test.labels}, names, where)
    return published_dataset(
        config,
        root,
        train,
        test,
        class_names=names,
        read_besides=["wnids.txt", *annotations],
        folder=folder,
    )


def _training_files(root: Path, codes: list[str]) -> LabelledFiles:
    found = in_class_folders(root, "train", codes)
    there = {Path(file).name for file in found.files}
    for code in codes:
        boxes = root / "train" / code / f"{code}_boxes.txt"
        if boxes.is_file():
            names = {line.partition("\t")[0] for line in read_lines(boxes)}
            _check_there(root / "train" / code / "images", names, there, boxes.name)
    return found


def _test_files(root: Path, codes: list[str]) -> tuple[LabelledFiles, list[str]]:
    """Returns the validation images, and the list that gave their labels where one did.

    As published they are side by side with a list; many copies have them in class folders.
    """
    sorted_out = [code for code in codes if (root / "val" / code).is_dir()]
    if not files_below(root / "val" / "images")[0] and sorted_out:
        return in_class_folders(root, "val", codes), []
    if sorted_out:
        raise UserError(
            f"{str(root / 'val')!r} has images/ and class folders ({sorted_out[0]!r}); allowed: "
            "one of them"
        )
    return _annotated_files(root, codes), [_ANNOTATIONS]


def _annotated_files(root: Path, codes: list[str]) -> LabelledFiles:
    """Returns the validation images with the labels that their list gives them."""
    path = root / _ANNOTATIONS
    below, _ = files_below(root / "val" / "images")
    numbers = {code: label for label, code in enumerate(codes)}
    labelled: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        file, _, rest = line.partition("\t")
        code = rest.partition("\t")[0]
        if code not in numbers:
            raise UserError(
                f"{str(path)!r}, line {number}: {code!r} is no class; allowed: those of wnids.txt"
            )
        labelled[file] = numbers[code]
    _check_there(root / "val" / "images", set(labelled), set(below), path.name)
    if unlisted := set(below) - set(labelled):
        say(f"tiny_imagenet: left out: {len(unlisted)} images that are not in {path.name}")
    return by_label((label, f"val/images/{file}") for file, label in labelled.items())


def _check_there(folder: Path, listed: set[str], there: set[str], by: str) -> None:
    if missing := sorted(listed - there):
        raise UserError(
            f"{str(folder / missing[0])!r} is missing, one of {len(missing)} images of {by}; "
            f"allowed: all files of {ARCHIVE.url}"
        )
