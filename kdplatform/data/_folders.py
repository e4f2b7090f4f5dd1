"""What the folders of the user's images are: splits, classes, or neither."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdplatform.data._decoding import IMAGE_SUFFIXES
from kdplatform.data._image_files import files_below, inside
from kdplatform.data._text_files import composed
from kdplatform.errors import UserError

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_WORDS = {word: split for split, words in SPLITS.items() for word in words}
HOLDING = (
    "train/<class>/*.jpg (val/ and test/ may be there too; Training, valid, validation and Testing "
    "are known as well), or <class>/*.jpg"
)


@dataclass(frozen=True)
class Layout:
    """The contents of the folder.

    Attributes:
        splits: the folder of every split that has one; empty if there are only class folders.
        classes: the class folders below each of these, or below the root under the name "".
        beside: folders beside those of the splits, which remain unread.
        files: files outside class folders, relative to the root.
    """

    splits: Mapping[str, str]
    classes: Mapping[str, Sequence[str]]
    beside: Sequence[str]
    files: Sequence[str]

    @property
    def class_names(self) -> list[str]:
        """The names of all classes, sorted."""
        return sorted({composed(name) for names in self.classes.values() for name in names})


def refuse_one_folder_around(root: Path, layout: Layout, where: str) -> None:
    """Refuses a root whose only class folder holds folders itself, and names it."""
    folders = [name for name in layout.classes.get("", ()) if not layout.splits]
    if len(folders) != 1:
        return
    [only] = folders
    inner, _ = inside(root / only)
    if inner:
        some = ", ".join(map(repr, inner[:3])) + (", ..." if len(inner) > 3 else "")
        raise UserError(
            f"{where} has only one class ({only!r}); did you mean "
            f"dataset.root={str(root / only)!r}, which has the folders {some}?"
        )


def split_of(folder: str) -> str | None:
    """Returns the split that a folder is named after, in any case."""
    return _WORDS.get(folder.casefold())


def layout_of(root: Path, where: str) -> Layout:
    """Returns the roles of the folders, from their names.

    Raises:
        UserError: two folders are one split, there are splits without one for training, folders
            look like splits and are none, or images are outside class folders.
    """
    folders, files = inside(root)
    splits: dict[str, str] = {}
    for name in folders:
        split = split_of(name)
        if split in splits:
            raise UserError(
                f"{where} has {splits[split]!r} and {name!r}, which are one split; allowed: one of "
                "them"
            )
        if split is not None:
            splits[split] = name
    if splits and "train" not in splits:
        named = " and ".join(repr(name) for name in splits.values())
        raise UserError(
            f"{where} has {named} and no folder for training; allowed: {HOLDING}; a class may not "
            "be named as a split is"
        )
    if not splits:
        _refuse_unknown_splits(folders, where)
    classes: dict[str, Sequence[str]] = {}
    outside = list(files)
    for folder in splits.values() or ("",):
        own, loose = (folders, []) if folder == "" else inside(root / folder)
        classes[folder] = own
        outside += [f"{folder}/{name}" for name in loose]
    stray = [file for file in outside if "/" in file or not splits]
    stray = sorted(file for file in stray if file.lower().endswith(IMAGE_SUFFIXES))
    if stray:
        raise UserError(
            f"{where}: {stray[0]!r} is in no class folder, one of {len(stray)} such images; "
            f"allowed: {HOLDING}"
        )
    beside = [name for name in folders if splits and name not in splits.values()]
    return Layout(splits, classes, beside, outside)


def _refuse_unknown_splits(folders: Sequence[str], where: str) -> None:
    """Refuses `seg_train` and `seg_test`, which would become two classes."""
    sound: dict[str, str] = {}
    for name in folders:
        for word in re.split(r"[\W\d_]+", name.casefold()):
            if split := split_of(word):
                sound.setdefault(split, name)
    if "train" in sound and len(sound) > 1:
        raise UserError(
            f"{where}: {' and '.join(repr(name) for name in sound.values())} sound like splits and "
            f"would be classes; allowed: {HOLDING}"
        )


def refuse_splits_inside_classes(files: Sequence[str], depth: int, where: str) -> None:
    """Refuses `cat/train/1.jpg`, whose splits would be mixed.

    Args:
        depth: which part of a file's path is the class.
    """
    for file in files:
        inner = file.split("/")[depth + 1 : -1]
        if inner and split_of(inner[0]):
            raise UserError(
                f"{where}: {file!r} is of a split inside a class folder; allowed: {HOLDING}"
            )


def refuse_lost_classes(root: Path, layout: Layout, found: set[str], where: str) -> None:
    """Refuses class folders without any image that can be read; their classes would disappear."""
    lost = [name for name in layout.class_names if name not in found]
    if not lost:
        return
    kinds: Counter[str] = Counter()
    for folder, names in layout.classes.items():
        for name in names:
            if composed(name) == lost[0]:
                kinds += files_below(root / folder / name)[1]
    holds = f"only {kinds_text(kinds)}" if kinds else "is empty"
    rest = f", one of {len(lost)} such classes" if len(lost) > 1 else ""
    raise UserError(
        f"{where}: class folder {lost[0]!r} has no image ({holds}){rest}; allowed: images "
        f"({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}), or no such folder"
    )


def kinds_text(kinds: Counter[str]) -> str:
    """Says how many files there are of each kind, the most frequent first."""
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=_frequent))


def _frequent(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]
