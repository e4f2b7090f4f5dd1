"""Tiny ImageNet, from a small folder in its archive's layout."""

import shutil
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dataset_files import TINY_IMAGENET_CODES, write_image, write_tiny_imagenet
from helpers.refusals import assert_refused

from kdplatform.data import Dataset, StreamedInputs, load_dataset, tiny_imagenet
from kdplatform.data.tiny_imagenet import Config
from kdplatform.downloads import md5_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_tiny_imagenet(tmp_path / "root")


def load(place: Path, **fields: Any) -> Dataset:
    fields = {
        "root": str(place.parent),
        "image_size": 8,
        "workers": 0,
        "val_fraction": 0.25,
    } | fields
    return load_dataset(Config(**fields), place.parent.parent / "data")


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_images_stand_with_the_labels_of_their_lists(root: Path, storage: str) -> None:
    dataset = load(root, storage=storage)
    assert dataset.class_names == ("crane (n03)", "crane (n01)", "goldfish")
    assert [len(split) for split in dataset.splits().values()] == [9, 3, 6]
    for split in dataset.splits().values():
        assert np.bincount(split.labels).tolist() == [len(split) // 3] * 3
    files = [f"train/{c}/images/{c}_{i}.JPEG" for c in TINY_IMAGENET_CODES for i in range(4)]
    files += [f"val/images/val_{i * 3 + n}.JPEG" for n in range(3) for i in range(2)]
    expected = StreamedInputs(root, files, size=8, workers=0)
    for split in dataset.splits().values():
        for row, number in enumerate(split.ids):
            assert (split.inputs[row] == expected[int(number)]).all()


def test_the_archive_is_unpacked_and_gives_the_same(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed").mkdir()
    packed = tmp_path / "packed" / tiny_imagenet.ARCHIVE.name
    with zipfile.ZipFile(packed, "w") as archive:
        for path in root.rglob("*"):
            archive.write(path, Path("tiny-imagenet-200") / path.relative_to(root))
    own = replace(tiny_imagenet.ARCHIVE, md5=md5_of(packed))
    monkeypatch.setattr(tiny_imagenet, "ARCHIVE", own)
    assert load(root, root=str(tmp_path / "packed")).digest == load(root).digest


@pytest.mark.parametrize("inner", ["", "images"])
def test_validation_images_in_class_folders_give_the_same(root: Path, inner: str) -> None:
    expected = load(root)
    path = root / "val" / "val_annotations.txt"
    for line in path.read_text().splitlines():
        name, code, *_ = line.split("\t")
        target = root / "val" / code / inner
        target.mkdir(parents=True, exist_ok=True)
        (root / "val" / "images" / name).rename(target / name)
    (root / "val" / "images").rmdir()
    path.unlink()
    found = load(root)
    assert found.class_names == expected.class_names
    for name, split in expected.splits().items():
        assert found.splits()[name].labels.tolist() == split.labels.tolist()
        assert (found.splits()[name].inputs == split.inputs).all()
    (root / "val" / "images").mkdir()
    write_image(root / "val" / "images" / "1.JPEG", 1)
    refused(root, r"val' has images/ and class folders \('n03'\); allowed: one of them")


def test_training_images_may_lie_in_the_class_folders_themselves(root: Path) -> None:
    expected = load(root)
    for folder in list((root / "train").iterdir()):
        for path in list((folder / "images").iterdir()):
            path.rename(folder / path.name)
    assert load(root).train.labels.tolist() == expected.train.labels.tolist()


def test_what_is_of_no_class_is_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(root / "train" / "n77" / "images" / "1.JPEG", 1)
    write_image(root / "val" / "images" / "other.JPEG", 1)
    load(root)
    said = capsys.readouterr().err
    assert "left out: 1 folders of train/ that are no class, such as 'n77'\n" in said
    assert "left out: 1 images that are not in val_annotations.txt\n" in said


refused = partial(assert_refused, load)


def test_missing_images_are_named(root: Path) -> None:
    (root / "val" / "images" / "val_4.JPEG").unlink()
    refused(root, r"val/images/val_4\.JPEG' is missing, one of 1 images of val_annotations\.txt")


def test_missing_training_images_are_named(root: Path) -> None:
    (root / "train" / "n01" / "images" / "n01_2.JPEG").unlink()
    refused(root, r"n01_2\.JPEG' is missing, one of 1 images of n01_boxes\.txt")


def test_a_class_without_training_images_is_named(root: Path) -> None:
    shutil.rmtree(root / "train" / "n01")
    refused(root, r"1 of 3 classes have fewer than 2 training examples \('crane \(n01\)'\)")


def test_a_class_that_does_not_exist_is_refused(root: Path) -> None:
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn77\t0\t0\t1\t1\n")
    refused(root, r"val_annotations\.txt', line 1: 'n77' is no class; allowed: those of wnids\.txt")


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_a_missing_list_is_named(root: Path, name: str) -> None:
    (root / name).unlink()
    refused(root, rf"{name}' is missing")


def test_an_image_that_does_not_decode_is_named(root: Path) -> None:
    (root / "train" / "n01" / "images" / "n01_2.JPEG").write_bytes(b"x")
    refused(root, r"n01_2\.JPEG' cannot be decoded \(.*\); allowed: whole image files")
