"""Small files in the formats in which datasets are published."""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image
from torchvision.datasets import SVHN

# ---- images in pickles and matrices


def _drawn(count: int, random: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """Returns images uint8 [count, 3, 32, 32] and labels, every one of ten equally often."""
    images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return images, [row % 10 for row in range(count)]


def _md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def write_cifar(
    root: Path, published: Any, patch: pytest.MonkeyPatch, classes: int, per_file: int = 40
) -> tuple[np.ndarray, list[int]]:
    """Writes the batches as Python 2 pickled them, and makes their sums the published ones.

    Args:
        published: torchvision's class of the dataset.
        classes: 10 or 100; images are of ten classes either way.
        per_file: images in each of the published files.

    Returns:
        Images uint8 [N, 3, 32, 32] and labels, training before test.
    """
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    key = "labels" if classes == 10 else "fine_labels"
    random = np.random.default_rng(0)
    images, labels = [], []
    for field in ("train_list", "test_list"):
        sums = []
        for name, _ in getattr(published, field):
            some, their = _drawn(per_file, random)
            content = {"data": some.reshape(per_file, -1), key: their}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
            sums.append([name, _md5_of(folder / name)])
            images.append(some)
            labels += their
        patch.setattr(published, field, sums)
    names = [f"class{number}" for number in range(10)]
    meta = folder / published.meta["filename"]
    meta.write_bytes(pickle.dumps({published.meta["key"]: names}, protocol=2))
    patch.setattr(published, "meta", {**published.meta, "md5": _md5_of(meta)})
    return np.concatenate(images), labels


def write_svhn(root: Path, patch: pytest.MonkeyPatch) -> tuple[np.ndarray, list[int]]:
    """Writes both matrices and makes their sums the published ones; returns as `write_cifar`."""
    root.mkdir(parents=True)
    random = np.random.default_rng(0)
    images, labels, lists = [], [], {}
    for split in ("train", "test"):
        some, their = _drawn(40, random)
        url, name, _ = SVHN.split_list[split]
        # Pixels come first and images last; the digit 0 is written as 10.
        content = {"X": some.transpose(2, 3, 1, 0), "y": np.array([[d or 10] for d in their])}
        scipy.io.savemat(root / name, content)
        lists[split] = [url, name, _md5_of(root / name)]
        images.append(some)
        labels += their
    patch.setattr(SVHN, "split_list", lists)
    return np.concatenate(images), labels


# ---- images in files


def write_image(path: Path, seed: int, width: int = 12, height: int = 12) -> None:
    """Writes a smooth random image, different for every seed; JPEG keeps what it looks like."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 3, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR).save(path)


# Not in alphabetical order, as in the original; two synsets share their first word.
TINY_IMAGENET_CODES = {
    "n03": "crane, machine",
    "n01": "crane, bird",
    "n02": "goldfish, Carassius auratus",
}


def write_tiny_imagenet(root: Path) -> Path:
    """Writes four training and two test images of each of three classes; returns their folder."""
    codes = TINY_IMAGENET_CODES
    folder = root / "tiny-imagenet-200"
    lines = []
    for number, code in enumerate(codes):
        for image in range(4):
            name = f"{code}_{image}.JPEG"
            write_image(folder / "train" / code / "images" / name, 10 * number + image)
        boxes = "".join(f"{code}_{image}.JPEG\t0\t0\t9\t9\n" for image in range(4))
        (folder / "train" / code / f"{code}_boxes.txt").write_text(boxes)
        for image in range(2):
            # Neighbours in the list are of different classes.
            name = f"val_{image * 3 + number}.JPEG"
            write_image(folder / "val" / "images" / name, 100 + 10 * number + image)
            lines.append(f"{name}\t{code}\t0\t32\t44\t62\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(sorted(lines)))
    (folder / "wnids.txt").write_text("\n".join(codes))
    (folder / "words.txt").write_text("".join(f"{c}\t{w}\n" for c, w in codes.items()) + "n9\tx\n")
    (folder / "test" / "images").mkdir(parents=True)
    return folder


_CELEBA_NAMES = ["Bald", "Male", "Smiling", "Young"]
CELEBA_COUNT = 24


def celeba_values(row: int) -> list[int]:
    """Returns the attributes of an image: three of four smile, the others do not follow it."""
    return [row // 4 % 2, row // 2 % 2, int(row % 4 > 0), row // 3 % 2]


def celeba_split(row: int) -> int:
    """Returns the number by which the list of splits calls an image's: 0 is training."""
    return 0 if row < 16 else 1 if row < 20 else 2


def write_celeba(root: Path) -> Path:
    """Writes 16 training, 4 validation and 4 test images with their lists; returns `root`."""
    folder = root / "celeba"
    files = [f"{row + 1:06d}.jpg" for row in range(CELEBA_COUNT)]
    for row, file in enumerate(files):
        write_image(folder / "img_align_celeba" / file, row, 18, 22)
    lines = [
        f"{file}  {'  '.join(f'{2 * v - 1: d}' for v in celeba_values(row))}"
        for row, file in enumerate(files)
    ]
    (folder / "list_attr_celeba.txt").write_text(
        "\n".join([str(CELEBA_COUNT), " ".join(_CELEBA_NAMES), *lines, ""])
    )
    parts = [f"{file} {celeba_split(row)}\n" for row, file in enumerate(files)]
    (folder / "list_eval_partition.txt").write_text("".join(parts))
    return root


WATERBIRDS_COUNTS = {"0": (6, 2, 2, 6), "1": (2, 2, 2, 2), "2": (3, 3, 3, 3)}


def write_waterbirds(root: Path, side: int = 40) -> Path:
    """Writes images of both birds before both backgrounds with the official list; returns `root`.

    `WATERBIRDS_COUNTS` has those of landbirds on land and water, then of waterbirds, by split.
    """
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for split, counts in WATERBIRDS_COUNTS.items():
        for cell, count in enumerate(counts):
            for _ in range(count):
                number = len(lines)
                file = f"{number:03d}.Bird_{cell // 2}/Bird_{number:04d}.jpg"
                write_image(root / file, number, side, side + 4)
                place = f"/o/ocean/{number:08d}.jpg"
                lines.append(f"{number},{file},{cell // 2},{split},{cell % 2},{place}")
    (root / "metadata.csv").write_text("\n".join([*lines, ""]))
    return root


# Numbers as in the devkit: not in the order of the codes. The fourth is an inner node.
IMAGENET_SYNSETS = [
    (1, "n02", "crane, bird", 0),
    (2, "n03", "crane, machine", 0),
    (3, "n01", "tench, Tinca tinca", 0),
    (4, "n00", "fish", 1),
]
IMAGENET_CODES = ["n01", "n02", "n03"]
# Of the validation images, in the order of their names.
IMAGENET_TRUTH = [3, 1, 2, 2, 3, 1]


def write_imagenet(folder: Path) -> Path:
    """Writes four training and two validation images of each class, of different sizes."""
    for number, code in enumerate(IMAGENET_CODES):
        for image in range(4):
            path = folder / "train" / code / f"{code}_{image}.JPEG"
            write_image(path, 10 * number + image, 30 + image, 20)
    code_of = {number: code for number, code, _, _ in IMAGENET_SYNSETS}
    for row, number in enumerate(IMAGENET_TRUTH, start=1):
        path = folder / "val" / code_of[number] / f"ILSVRC2012_val_{row:08d}.JPEG"
        write_image(path, 100 + row, 20, 25)
    _write_devkit(folder / "ILSVRC2012_devkit_t12.tar.gz")
    return folder


def _write_devkit(path: Path) -> None:
    kind = [
        ("ILSVRC2012_ID", "O"),
        ("WNID", "O"),
        ("words", "O"),
        ("gloss", "O"),
        ("num_children", "O"),
    ]
    rows = [
        (number, code, words, "a gloss", children)
        for number, code, words, children in IMAGENET_SYNSETS
    ]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    truth = "".join(f"{number}\n" for number in IMAGENET_TRUTH).encode()
    contents = {"meta.mat": meta.getvalue(), "ILSVRC2012_validation_ground_truth.txt": truth}
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


IMAGE_FOLDER_CLASSES = ("cat", "dog", "owl")


def write_image_folder(folder: Path) -> Path:
    """Writes one folder per class: 10 images each, of different sizes and formats."""
    for label, name in enumerate(IMAGE_FOLDER_CLASSES):
        for number in range(10):
            suffix = ("png", "jpg", "JPEG", "bmp")[number % 4]
            write_image(folder / name / f"{number}.{suffix}", 10 * label + number, 20 + number, 16)
    return folder


# ---- tables

PEOPLE = 60


def people() -> pd.DataFrame:
    """Returns sixty people: two classes, numbers and names with gaps, two sensitive columns."""
    rows = np.arange(PEOPLE)
    return pd.DataFrame(
        {
            "age": [str(20 + row % 37) for row in rows],
            "hours": ["" if row % 10 == 3 else f"{row % 7}.5" for row in rows],
            "job": ["?" if row % 12 == 5 else ("cook", "clerk", "nurse")[row % 3] for row in rows],
            "sex": ["f" if row % 2 else "m" for row in rows],
            "region": [str(row % 4) for row in rows],
            "income": [">50K" if row % 5 < 2 else "<=50K" for row in rows],
        }
    )
