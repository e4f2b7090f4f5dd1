"""CIFAR-10, CIFAR-100 and SVHN, from small files in their published formats."""

import pickle
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.dataset_files import write_cifar, write_svhn
from torchvision.datasets import CIFAR10, CIFAR100

from kdplatform.data import Dataset, cifar10, cifar100, dataset_config_class, load_dataset
from kdplatform.downloads import md5_of
from kdplatform.errors import UserError
from kdplatform.settings.schema import DatasetConfig

NAMES = ("cifar10", "cifar100", "svhn")


@pytest.mark.parametrize(("module", "published"), [(cifar10, CIFAR10), (cifar100, CIFAR100)])
def test_the_archive_is_the_one_torchvision_knows(module: Any, published: Any) -> None:
    archive = module.ARCHIVE
    assert (archive.url, archive.name) == (published.url, published.filename)
    assert (archive.md5, archive.folder) == (published.tgz_md5, published.base_folder)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Writes one of the three to `tmp_path / "root"`; returns its images and labels."""

    def written(name: str) -> tuple[np.ndarray, list[int]]:
        root = tmp_path / "root"
        if name == "svhn":
            return write_svhn(root, monkeypatch)
        published = CIFAR10 if name == "cifar10" else CIFAR100
        return write_cifar(root, published, monkeypatch, int(name.removeprefix("cifar")))

    return written


def config_of(name: str, **fields: Any) -> DatasetConfig:
    return dataset_config_class(name).model_validate({"name": name, **fields})


def load(name: str, tmp_path: Path, **fields: Any) -> Dataset:
    fields = {"root": str(tmp_path / "root"), "val_fraction": 0.25} | fields
    return load_dataset(config_of(name, **fields), tmp_path / "data")


@pytest.mark.parametrize("name", NAMES)
def test_images_and_labels_are_those_of_the_files(
    write: Callable[[str], Any], tmp_path: Path, name: str
) -> None:
    images, labels = write(name)
    dataset = load(name, tmp_path)
    for split in dataset.splits().values():
        assert isinstance(split.inputs, torch.Tensor)
        np.testing.assert_array_equal(split.inputs.numpy(), images[split.ids])
        assert split.labels.tolist() == [labels[row] for row in split.ids]
    assert len(dataset.class_names) == 10
    assert dataset.attributes == ()


@pytest.mark.parametrize("name", NAMES)
def test_validation_is_a_share_of_every_class_of_training_and_test_is_theirs(
    write: Callable[[str], Any], tmp_path: Path, name: str
) -> None:
    images, _ = write(name)
    dataset = load(name, tmp_path)
    assert dataset.test.ids.tolist() == list(range(len(images) - 40, len(images)))
    assert np.bincount(dataset.val.labels).tolist() == [(len(images) - 40) // 40] * 10
    both = np.concatenate([dataset.train.ids, dataset.val.ids])
    assert sorted(both) == list(range(len(images) - 40))


def test_the_digest_follows_data_and_split_and_not_the_place(
    write: Callable[[str], Any], tmp_path: Path
) -> None:
    write("svhn")
    first = load("svhn", tmp_path)
    other = load("svhn", tmp_path, seed=1)
    assert other.digest != first.digest
    assert other.val.ids.tolist() != first.val.ids.tolist()
    (tmp_path / "root").rename(tmp_path / "moved")
    assert load("svhn", tmp_path, root=str(tmp_path / "moved")).digest == first.digest


def test_an_archive_is_taken_like_its_content(
    write: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("cifar100")
    digest = load("cifar100", tmp_path).digest
    (tmp_path / "packed").mkdir()
    archive = tmp_path / "packed" / CIFAR100.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "root" / CIFAR100.base_folder, CIFAR100.base_folder)
    own = replace(cifar100.ARCHIVE, md5=md5_of(archive))
    monkeypatch.setattr(cifar100, "ARCHIVE", own)
    assert load("cifar100", tmp_path, root=str(tmp_path / "packed")).digest == digest


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("cifar10", "cifar-10-batches-py/data_batch_3"),
        ("cifar10", "cifar-10-batches-py/batches.meta"),
        ("cifar100", "cifar-100-python/test"),
        ("svhn", "test_32x32.mat"),
    ],
)
def test_a_missing_or_damaged_file_is_named(
    write: Callable[[str], Any], tmp_path: Path, name: str, file: str
) -> None:
    write(name)
    path = tmp_path / "root" / file
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(UserError, match=rf"{file}' is not the published file \(md5 .*http"):
        load(name, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=rf"{file}' is missing; allowed: .*http"):
        load(name, tmp_path)


def test_a_pickle_of_another_sum_is_never_opened(
    write: Callable[[str], Any], tmp_path: Path
) -> None:
    write("cifar10")

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "it ran",)

    batch = tmp_path / "root" / CIFAR10.base_folder / "data_batch_1"
    batch.write_bytes(pickle.dumps(Touch()))
    with pytest.raises(UserError, match="not the published file"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "it ran").exists()
