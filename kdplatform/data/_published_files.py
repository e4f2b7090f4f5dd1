"""What ImageNet and Tiny ImageNet share: class folders, names of classes, splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kdplatform.data import Dataset
from kdplatform.data._decoding import IMAGE_SUFFIXES
from kdplatform.data._image_files import (
    MEASURED_IMAGES,
    ImageFilesConfig,
    files_below,
    files_digest,
    image_inputs,
    inside,
    pixels_digest,
)
from kdplatform.data._splits import (
    HeldOutFraction,
    Rows,
    SplitSeed,
    assembled,
    held_out_of_training,
    numbered,
)
from kdplatform.errors import UserError
from kdplatform.progress import say


class PublishedFilesConfig(ImageFilesConfig):
    """The place of the files, and how validation is held out of training."""

    val_fraction: HeldOutFraction = 0.1
    seed: SplitSeed = 0


class LabelledFiles(NamedTuple):
    """Image files relative to the dataset's root, and their labels. [files]."""

    files: list[str]
    labels: Rows


def by_label(pairs: Iterable[tuple[int, str]]) -> LabelledFiles:
    """Returns files by class and name, from labels and paths in any order."""
    pairs = sorted(pairs)
    labels = np.array([label for label, _ in pairs], dtype=np.int64)
    return LabelledFiles([file for _, file in pairs], labels)


def in_class_folders(
    root: Path, split: str, codes: Sequence[str], suffixes: Sequence[str] = IMAGE_SUFFIXES
) -> LabelledFiles:
    """Returns the images below the class folders of a split, and names folders of no class.

    Args:
        codes: the folders' names, in the order of the classes.

    Raises:
        UserError: there is no folder of this split.
    """
    if not (root / split).is_dir():
        raise UserError(f"{str(root / split)!r} is missing; allowed: class folders below {split}/")
    if unread := sorted(set(inside(root / split)[0]).difference(codes)):
        say(
            f"dataset.root={str(root)!r}: left out: {len(unread)} folders of {split}/ that are no "
            f"class, such as {unread[0]!r}"
        )
    return by_label(
        (label, f"{split}/{code}/{file}")
        for label, code in enumerate(codes)
        for file in files_below(root / split / code, suffixes)[0]
    )


def synset_names(words: Mapping[str, str], codes: Sequence[str]) -> list[str]:
    """Returns the first word of every class's synset; its code too where two share the word.

    The words of a synset of WordNet are separated by commas; its code is such as n01443537.
    """
    first = [words.get(code, code).split(",")[0].strip() for code in codes]
    return [
        f"{name} ({code})" if first.count(name) > 1 else name
        for name, code in zip(first, codes, strict=True)
    ]


def published_dataset(
    config: PublishedFilesConfig,
    root: Path,
    train: LabelledFiles,
    test: LabelledFiles,
    *,
    class_names: Sequence[str],
    read_besides: Sequence[str] = (),
    folder: Path,
) -> Dataset:
    """Holds validation out of the training files and makes the dataset of all three splits.

    Ids count through the training files, then the test files. The digest covers `read_besides`
    too, the files that labels or names came from.

    Raises:
        UserError: an image does not decode.
        MachineError: the cache of decoded images cannot be written.
    """
    files = [*train.files, *test.files]
    source = files_digest(root, [*read_besides, *files])
    inputs = image_inputs(config, root, files, source, folder)
    return assembled(
        config,
        pixels_digest(config, source, files),
        numbered(inputs, np.concatenate([train.labels, test.labels])),
        held_out_of_training(train.labels, len(test.files), config.val_fraction, config.seed),
        class_names=class_names,
        measured=MEASURED_IMAGES,
    )
