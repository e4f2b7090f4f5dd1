"""ImageNet, from a small folder in torchvision's layout with a devkit of the published format."""

import shutil
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.dataset_files import IMAGENET_CODES, IMAGENET_SYNSETS, IMAGENET_TRUTH, write_imagenet
from helpers.refusals import assert_refused

from kdplatform.data import Dataset, StreamedInputs, load_dataset
from kdplatform.data.imagenet import Config
from kdplatform.errors import UserError

NAMES = ("tench", "crane (n02)", "crane (n03)")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_imagenet(tmp_path / "root")


def load(root: Path, **fields: Any) -> Dataset:
    fields = {"image_size": 8, "resize": 10, "workers": 0, "val_fraction": 0.25} | fields
    return load_dataset(Config(root=str(root), **fields), root.parent / "data")


def test_images_stand_with_the_class_of_their_folder(root: Path) -> None:
    dataset = load(root, storage="stream")
    assert dataset.class_names == NAMES
    assert [len(split) for split in dataset.splits().values()] == [9, 3, 6]
    for split in dataset.splits().values():
        assert isinstance(split.inputs, StreamedInputs)
        for row, label in enumerate(split.labels):
            assert split.inputs.path(row).parent.name == IMAGENET_CODES[label]
            assert split.inputs.path(row).parent.parent.name == (
                "train" if split.ids[row] < 12 else "val"
            )


def test_validation_images_side_by_side_get_their_class_from_the_devkit(root: Path) -> None:
    by_class = load(root, storage="stream").test
    images = by_class.inputs[:]
    for path in list((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
    flat = load(root, storage="stream").test
    assert flat.labels.tolist() == by_class.labels.tolist()
    assert torch.equal(flat.inputs[:], images)


def test_the_devkit_may_be_unpacked_or_torchvisions_own_file(root: Path) -> None:
    digest = load(root).digest
    packed = root / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(packed) as archive:
        archive.extractall(root, filter="data")
    packed.unlink()
    assert load(root).digest == digest
    shutil.rmtree(root / "ILSVRC2012_devkit_t12")
    leaves = [synset for synset in IMAGENET_SYNSETS if not synset[3]]
    words = {code: tuple(words.split(", ")) for _, code, words, _ in leaves}
    codes = [code for number in IMAGENET_TRUTH for n, code, _, _ in leaves if n == number]
    torch.save((words, codes), root / "meta.bin")
    assert load(root).digest == digest


def test_the_usual_cut_is_256_and_224() -> None:
    assert (Config().resize, Config().image_size) == (256, 224)


refused = partial(assert_refused, load)


def test_without_devkit_it_says_what_is_expected(root: Path) -> None:
    (root / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    refused(root, r"has neither ILSVRC2012_devkit_t12\.tar\.gz nor meta\.bin; allowed: a folder wi")


@pytest.mark.parametrize("name", ["ILSVRC2012_devkit_t12.tar.gz", "meta.bin"])
def test_a_damaged_devkit_is_refused(root: Path, name: str) -> None:
    (root / name).write_bytes(b"damaged")
    refused(root, r"its devkit or meta\.bin cannot be read \(")


def test_archives_that_are_not_unpacked_are_pointed_out(root: Path) -> None:
    shutil.rmtree(root / "train")
    refused(root, r"has no train/; allowed: a folder with train/, val/ and")
    (root / "ILSVRC2012_img_train.tar").write_bytes(b"")
    refused(root, r"ILSVRC2012_img_train\.tar exists: torchvision\.datasets\.ImageNet\(root, 'tr")


def test_a_class_without_training_images_is_named(root: Path) -> None:
    shutil.rmtree(root / "train" / "n02")
    refused(root, r"1 of 3 classes have fewer than 2 training .* \('crane \(n02\)'\)")


def test_a_missing_validation_image_is_counted(root: Path) -> None:
    for path in list((root / "val").rglob("*.JPEG")):
        path.rename(root / "val" / path.name)
    (root / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    refused(root, r"val/ has 5 images; the devkit has labels for 6")


def test_without_a_root_it_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^dataset\.root is not given; allowed: a folder with trai"
    ):
        load_dataset(Config(), tmp_path)
