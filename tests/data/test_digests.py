"""The digests of equal data and settings never change: runs of earlier versions stay known."""

import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from torchvision.datasets import CIFAR10, SVHN

from kdplatform.data import dataset_config_class, load_dataset

CLASSES = ("n01", "n02")
Make = Callable[[Path, pytest.MonkeyPatch], dict[str, Any]]


def write_image(path: Path, number: int, side: int = 8) -> None:
    """Writes an image whose every byte is known, whatever version of a library writes images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (np.arange(3 * side * side) * (2 * number + 1) % 251).astype(np.uint8)
    path.write_bytes(b"P6 %d %d 255\n" % (side, side) + pixels.tobytes())


def arrays(count: int) -> tuple[np.ndarray, list[int]]:
    images = (np.arange(count * 3072) % 253).astype(np.uint8).reshape(count, 3, 32, 32)
    return images, [row % 10 for row in range(count)]


def digits(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {}


def table(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    rows = [f"{row * 7 % 31},{'abc'[row % 3]},{'fm'[row // 2 % 2]},{row % 2}" for row in range(40)]
    (root / "people.csv").write_text("\n".join(["age,job,sex,label", *rows, ""]))
    return {"file": str(root / "people.csv"), "attributes": "sex"}


def imagefolder(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    lines = ["file,place"]
    for number in range(16):
        file = f"{CLASSES[number % 2]}/{number}.ppm"
        write_image(root / file, number)
        lines.append(f"{file},{'in' if number // 2 % 2 else 'out'}")
    (root / "attributes.csv").write_text("\n".join(lines))
    return {"root": str(root), "image_size": 8, "workers": 0}


def celeba(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    files = [f"{number:06d}.jpg" for number in range(1, 17)]
    for number, file in enumerate(files):
        write_image(root / "celeba" / "img_align_celeba" / file, number)
    lines = [f"{file} {2 * (n % 2) - 1} {2 * (n // 2 % 2) - 1}" for n, file in enumerate(files)]
    text = "\n".join([str(len(files)), "Smiling Young", *lines])
    (root / "celeba" / "list_attr_celeba.txt").write_text(text)
    parts = [f"{file} {min(n // 4, 3) % 3}" for n, file in enumerate(files)]
    (root / "celeba" / "list_eval_partition.txt").write_text("\n".join(parts))
    return {"root": str(root), "image_size": 8, "workers": 0}


def tiny_imagenet(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    own = root / "tiny-imagenet-200"
    listed = []
    for number in range(8):
        code = CLASSES[number % 2]
        write_image(own / "train" / code / "images" / f"{number}.JPEG", number)
        write_image(own / "val" / "images" / f"{number}.JPEG", 100 + number)
        listed.append(f"{number}.JPEG\t{code}\t0\t0\t9\t9")
    (own / "val" / "val_annotations.txt").write_text("\n".join(listed))
    (own / "wnids.txt").write_text("\n".join(CLASSES))
    (own / "words.txt").write_text("".join(f"{code}\tword {code}\n" for code in CLASSES))
    return {"root": str(root), "image_size": 8, "workers": 0}


def imagenet(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    for number in range(8):
        for split in ("train", "val"):
            code = CLASSES[number % 2]
            write_image(root / split / code / f"{number}.JPEG", number + 50 * (split == "val"))
    kind = [(n, "O") for n in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")]
    rows = [(1 + n, code, f"word {code}", "", 0) for n, code in enumerate(CLASSES)]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    truth = "ILSVRC2012_validation_ground_truth.txt"
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        for name, content in {"meta.mat": meta.getvalue(), truth: b"1\n2\n" * 4}.items():
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return {"root": str(root), "image_size": 8, "resize": 8, "workers": 0, "val_fraction": 0.25}


def svhn(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    lists = {}
    for split, count in (("train", 40), ("test", 20)):
        images, labels = arrays(count)
        name = f"{split}_32x32.mat"
        content = {"X": images.transpose(2, 3, 1, 0), "y": np.array([[n or 10] for n in labels])}
        scipy.io.savemat(root / name, content)
        lists[split] = ["http://nowhere", name, hashlib.md5((root / name).read_bytes()).hexdigest()]
    patch.setattr(SVHN, "split_list", lists)
    return {"root": str(root)}


def cifar10(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    own = root / CIFAR10.base_folder
    own.mkdir()

    def written(name: str, content: Any) -> str:
        (own / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((own / name).read_bytes()).hexdigest()

    for field in ("train_list", "test_list"):
        images, labels = arrays(20)
        content = {"data": images.reshape(20, -1), "labels": labels}
        lists = [[name, written(name, content)] for name, _ in getattr(CIFAR10, field)]
        patch.setattr(CIFAR10, field, lists)
    names = {CIFAR10.meta["key"]: [f"class{number}" for number in range(10)]}
    md5 = written(CIFAR10.meta["filename"], names)
    patch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5})
    return {"root": str(root)}


def hatexplain(root: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    targets = (["Women"], ["Men"], ["Arab", "Asian"], ["None"])
    posts = {}
    for number in range(48):
        label = ("normal", "hatespeech")[number // 4 % 2]
        own = {"label": label, "target": targets[number % 4]}
        tokens = ["some", "word", "other"][: 1 + number % 3]
        posts[f"p{number}"] = {"annotators": [own] * 3, "post_tokens": tokens}
    names = list(posts)
    divisions = {"train": names[:24], "val": names[24:32], "test": names[32:]}
    (root / "dataset.json").write_text(json.dumps(posts))
    (root / "post_id_divisions.json").write_text(json.dumps(divisions))
    return {"root": str(root), "vocabulary_size": 200}


@pytest.mark.parametrize(
    ("make", "fields", "digest"),
    [
        (digits, {}, "f013084a449a8b65"),
        (digits, {"seed": 3, "val_fraction": 0.2}, "fadbf52904f65725"),
        (table, {}, "acdcada633d6bfcf"),
        (table, {"seed": 1, "leave_out": "job"}, "53f6a10e3422f639"),
        (imagefolder, {}, "4bf975603eb42240"),
        (imagefolder, {"storage": "stream", "skip_bad": True}, "4bf975603eb42240"),
        (imagefolder, {"seed": 2, "resize": 12}, "c9987d180fba6039"),
        (celeba, {}, "9e64b6759ef1d44a"),
        (celeba, {"undersample": False, "label": "Young"}, "5a62b77d594aa028"),
        (tiny_imagenet, {}, "e879a8c50e44df2a"),
        (imagenet, {}, "67e7a4b0419719d5"),
        (svhn, {}, "b60c2c22fd1957c9"),
        (svhn, {"val_fraction": 0.3}, "aec32d05156d5a43"),
        (cifar10, {}, "4fd170cd84513fda"),
        (hatexplain, {}, "6fdbff8e9e4eed0b"),
    ],
)
def test_equal_data_and_settings_have_the_digest_they_always_had(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make: Make,
    fields: dict[str, Any],
    digest: str,
) -> None:
    (tmp_path / "root").mkdir()
    own = make(tmp_path / "root", monkeypatch)
    config = dataset_config_class(make.__name__).model_validate(
        {"name": make.__name__, **own, **fields}
    )
    assert load_dataset(config, tmp_path / "data").digest.startswith(digest)
