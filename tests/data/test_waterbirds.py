"""Waterbirds, from a small folder in its official layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dataset_files import WATERBIRDS_COUNTS, write_waterbirds
from helpers.refusals import assert_refused

from kdplatform.data import Dataset, StreamedInputs, load_dataset
from kdplatform.data.waterbirds import Config


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_waterbirds(tmp_path / "birds", side=12)


def load(root: Path, **fields: Any) -> Dataset:
    fields = {"root": str(root), "image_size": 8, "resize": 9, "workers": 0} | fields
    return load_dataset(Config(**fields), root.parent / "data")


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_images_labels_places_and_splits_are_those_of_the_list(root: Path, storage: str) -> None:
    dataset = load(root, storage=storage)
    assert dataset.class_names == ("landbird", "waterbird")
    assert dataset.attributes == ("place", "group")
    lines = (root / "metadata.csv").read_text().splitlines()[1:]
    files = [line.split(",")[1] for line in lines]
    images = StreamedInputs(root, files, size=8, resize=9, workers=0)
    for counts, split in zip(WATERBIRDS_COUNTS.values(), dataset.splits().values(), strict=True):
        groups = split.columns["group"].value_counts()
        names = [
            f"{bird} on {place}" for bird in dataset.class_names for place in ("land", "water")
        ]
        assert tuple(groups[names]) == counts
        for row, known in enumerate(split.ids):
            _, file, label, _, place, _ = lines[known].split(",")
            assert split.names is not None
            assert split.names[row] == file
            assert split.labels[row] == int(label)
            assert split.columns["place"][row] == ("land", "water")[int(place)]
            assert (split.inputs[row] == images[int(known)]).all()


def test_the_folder_around_may_be_given(root: Path, tmp_path: Path) -> None:
    around = tmp_path / "around"
    around.mkdir()
    digest = load(root).digest
    root.rename(around / "waterbird_complete95_forest2water2")
    assert load(around).digest == digest


def test_another_label_gives_another_digest(root: Path) -> None:
    before = load(root).digest
    path = root / "metadata.csv"
    path.write_text(path.read_text().replace(",0,0,0,", ",0,0,1,", 1))
    assert load(root).digest != before


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (",split,", ",part,", ["no column 'split'", "img_filename"]),
        (",0,0,0,", ",2,0,0,", ["line 2", "y is '2'", "0, 1"]),
        ("001.Bird_0", "../001.Bird_0", ["leads out of its folder"]),
        ("Bird_0001", "Bird_9999", ["Bird_9999.jpg' is missing", "one of 1"]),
        ("002.Bird_0/Bird_0002", "001.Bird_0/Bird_0001", ["names 1 images more", "Bird_0001"]),
    ],
)
def test_a_list_of_another_kind_is_refused(
    root: Path, old: str, new: str, words: list[str]
) -> None:
    path = root / "metadata.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    assert_refused(load, root, ".*".join(words))


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    assert_refused(load, tmp_path, "lacks metadata.csv")


def test_ids_are_unique_over_the_splits(root: Path) -> None:
    ids = np.concatenate([split.ids for split in load(root).splits().values()])
    assert len(set(ids.tolist())) == sum(map(sum, WATERBIRDS_COUNTS.values()))
