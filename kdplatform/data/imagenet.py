"""ImageNet (ILSVRC 2012): 1,281,167 training images of 1,000 classes, from the user's own copy.

Russakovsky et al. 2015, arXiv 1409.0575. Its terms allow no download by others. Test labels are not
public, so the 50,000 official validation images are the test split here, as is usual, and
validation is held out of training. No attributes.
"""

from __future__ import annotations

import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from kdplatform.data import Dataset
from kdplatform.data._image_files import ImageSize, Resize, files_below
from kdplatform.data._published_files import (
    LabelledFiles,
    PublishedFilesConfig,
    by_label,
    in_class_folders,
    published_dataset,
    synset_names,
)
from kdplatform.data._sources import given_root
from kdplatform.data._splits import check_classes
from kdplatform.errors import UserError, one_line
from kdplatform.tensor_files import read_tensors

DEVKIT = "ILSVRC2012_devkit_t12"
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_HOLDING = (
    f"train/, val/ and {DEVKIT}.tar.gz (or the meta.bin that torchvision.datasets.ImageNet makes "
    "when it unpacks the archives)"
)
_SUFFIXES = (".jpeg", ".jpg", ".png")

KNOWN_ATTRIBUTES: tuple[str, ...] = ()


class Config(PublishedFilesConfig):
    """The place of ImageNet; images are cut as usual: shorter side 256, centre 224."""

    name: Literal["imagenet"] = Field("imagenet", description="dataset")
    root: str = Field("", description="folder with train/, val/ and the devkit's archive")
    image_size: ImageSize = 224
    resize: Resize = 256
    val_fraction: float = Field(
        0.02, ge=0.001, le=0.5, description="share of every class's training images for validation"
    )


def check(config: Config) -> None:
    """Checks that the user's folder holds both splits and what names the classes.

    Raises:
        UserError: one is missing; says what is expected where.
    """
    root = given_root(config.root, _HOLDING)
    where = f"dataset.root={config.root!r}"
    known = (f"{DEVKIT}.tar.gz", f"{DEVKIT}/data", "meta.bin")
    if not any((root / name).exists() for name in known):
        raise UserError(
            f"{where} has neither {DEVKIT}.tar.gz nor meta.bin; allowed: a folder with {_HOLDING}"
        )
    for split in ("train", "val"):
        if not (root / split).is_dir():
            packed = f"ILSVRC2012_img_{split}.tar"
            hint = f"; {packed} exists: torchvision.datasets.ImageNet(root, {split!r}) unpacks it"
            raise UserError(
                f"{where} has no {split}/; allowed: a folder with {_HOLDING}"
                + (hint if (root / packed).is_file() else "")
            )


def load(config: Config, folder: Path) -> Dataset:
    """Loads ImageNet from torchvision's layout: `train/<code>/*.JPEG`, `val/<code>/*.JPEG`.

    `val/` may also hold all images side by side, as its archive does; the devkit then says which
    class each is of. Ids count through the training images, then the test images, by class and
    file name.

    Raises:
        UserError: files are missing or damaged; names one, and what is expected where.
    """
    check(config)
    root = given_root(config.root, _HOLDING)
    where = f"dataset.root={config.root!r}"
    synsets, val_codes = _synsets(root)
    codes = sorted(synsets)
    train, test = (in_class_folders(root, split, codes, _SUFFIXES) for split in ("train", "val"))
    if not test.files:
        test = _flat_files(root, codes, val_codes)
    names = synset_names(synsets, codes)
    check_classes({"training (train/)": train.labels}, names, where, least=2)
    check_classes({"test (val/)": test.labels}, names, where)
    return published_dataset(config, root, train, test, class_names=names, folder=folder)


def _synsets(root: Path) -> tuple[dict[str, str], list[str]]:
    """Returns the words of every class by its code, and the codes of the validation images."""
    unpacked, packed = root / DEVKIT / "data", root / f"{DEVKIT}.tar.gz"
    try:
        if (root / "meta.bin").is_file():
            words, codes = read_tensors(root / "meta.bin")
            return {code: ", ".join(names) for code, names in words.items()}, list(codes)
        if unpacked.is_dir():
            return _parsed((unpacked / _META).read_bytes(), (unpacked / _TRUTH).read_bytes())
        with tarfile.open(packed) as archive:
            return _parsed(_member(archive, _META), _member(archive, _TRUTH))
    # Whatever reading a damaged file of these formats raises.
    except Exception as error:
        raise UserError(
            f"dataset.root={str(root)!r}: its devkit or meta.bin cannot be read "
            f"({one_line(error)}); allowed: {DEVKIT}.tar.gz as published, and no other meta.bin "
            "than torchvision's"
        ) from None


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(f"{DEVKIT}/data/{name}")
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()


def _parsed(meta: bytes, truth: bytes) -> tuple[dict[str, str], list[str]]:
    """Parses the devkit: a table of synsets, and one synset number per validation image."""
    from scipy.io import loadmat

    table: Any = BytesIO(meta)  # scipy takes open files too; its stubs know paths alone
    synsets = np.atleast_1d(loadmat(table, squeeze_me=True)["synsets"])
    # The table has inner nodes of WordNet too; only leaves are classes.
    leaves = [synset for synset in synsets if int(synset["num_children"]) == 0]
    code_of = {int(leaf["ILSVRC2012_ID"]): str(leaf["WNID"]) for leaf in leaves}
    words = {str(leaf["WNID"]): str(leaf["words"]) for leaf in leaves}
    return words, [code_of[int(line)] for line in truth.split()]


def _flat_files(root: Path, codes: list[str], val_codes: list[str]) -> LabelledFiles:
    below, _ = files_below(root / "val", _SUFFIXES)
    if len(below) != len(val_codes):
        raise UserError(
            f"dataset.root={str(root)!r}: val/ has {len(below)} images; the devkit has labels for "
            f"{len(val_codes)}"
        )
    number = {code: label for label, code in enumerate(codes)}
    files = [f"val/{file}" for file in below]
    return by_label(zip((number[code] for code in val_codes), files, strict=True))
