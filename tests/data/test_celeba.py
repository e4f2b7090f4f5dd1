"""CelebA, from a small folder in the layout that torchvision expects."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.dataset_files import CELEBA_COUNT, celeba_split, celeba_values, write_celeba
from helpers.refusals import assert_refused

from kdplatform.data import Dataset, StreamedInputs, load_dataset
from kdplatform.data.celeba import Config
from kdplatform.errors import MachineError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_celeba(tmp_path / "root")


def load(root: Path, **fields: Any) -> Dataset:
    fields = {"root": str(root), "image_size": 8, "workers": 0} | fields
    return load_dataset(Config(**fields), root.parent / "data")


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_images_labels_and_groups_are_those_of_the_lists(root: Path, storage: str) -> None:
    dataset = load(root, storage=storage, undersample=False)
    assert dataset.class_names == ("not Smiling", "Smiling")
    assert dataset.attributes == ("Bald", "Male", "Young")
    assert [len(split) for split in dataset.splits().values()] == [16, 4, 4]
    files = [f"{row + 1:06d}.jpg" for row in range(CELEBA_COUNT)]
    images = StreamedInputs(root / "celeba" / "img_align_celeba", files, size=8, workers=0)
    for number, split in enumerate(dataset.splits().values()):
        for row, known in enumerate(split.ids):
            bald, male, smiling, young = celeba_values(int(known))
            assert celeba_split(int(known)) == number
            assert split.labels[row] == smiling
            assert (split.inputs[row] == images[int(known)]).all()
            assert split.columns.iloc[row].tolist() == [
                "Bald" if bald else "not Bald",
                "Male" if male else "not Male",
                "Young" if young else "not Young",
            ]


def test_any_attribute_may_be_the_label(root: Path) -> None:
    dataset = load(root, label="Young", undersample=False)
    assert dataset.class_names == ("not Young", "Young")
    assert dataset.attributes == ("Bald", "Male", "Smiling")


def test_undersampling_evens_training_out_and_leaves_the_rest(root: Path) -> None:
    whole, even = load(root, undersample=False), load(root)
    assert np.bincount(whole.train.labels).tolist() == [4, 12]
    assert np.bincount(even.train.labels).tolist() == [4, 4]
    assert set(even.train.ids) < set(whole.train.ids)
    for name in ("val", "test"):
        assert even.splits()[name].ids.tolist() == whole.splits()[name].ids.tolist()
    assert load(root, seed=1).train.ids.tolist() != even.train.ids.tolist()
    assert len({whole.digest, even.digest, load(root, seed=1).digest}) == 3


def test_the_inner_folder_may_be_given_too(root: Path) -> None:
    assert load(root / "celeba").digest == load(root).digest


def as_kaggle(root: Path) -> Path:
    """Turns torchvision's layout into that of Kaggle's archive."""
    own, target = root / "celeba", root.with_name("kaggle")
    images = target / "img_align_celeba" / "img_align_celeba"
    images.parent.mkdir(parents=True)
    (own / "img_align_celeba").rename(images)
    _, names, *rows = (own / "list_attr_celeba.txt").read_text().splitlines()
    lines = [",".join(line.split()) for line in (f"image_id {names}", *rows)]
    (target / "list_attr_celeba.csv").write_text("\n".join(lines) + "\n")
    parts = (own / "list_eval_partition.txt").read_text().replace(" ", ",")
    (target / "list_eval_partition.csv").write_text(f"image_id,partition\n{parts}")
    return target


def as_authors(root: Path) -> Path:
    """Turns torchvision's layout into that of the authors' drive."""
    target = root.with_name("drive")
    for name, place in (
        ("list_attr_celeba.txt", "Anno"),
        ("list_eval_partition.txt", "Eval"),
        ("img_align_celeba", "Img"),
    ):
        (target / place).mkdir(parents=True)
        (root / "celeba" / name).rename(target / place / name)
    return target


@pytest.mark.parametrize("layout", [as_kaggle, as_authors])
def test_the_layouts_of_kaggle_and_of_the_authors_give_the_same(
    root: Path, layout: Callable[[Path], Path]
) -> None:
    expected = load(root)
    found = load(layout(root))
    assert found.class_names == expected.class_names
    for name, split in expected.splits().items():
        own = found.splits()[name]
        assert (own.inputs == split.inputs).all()
        assert own.labels.tolist() == split.labels.tolist()
        assert own.columns.equals(split.columns)


def test_lists_of_kaggle_that_do_not_fit_are_refused(root: Path) -> None:
    target = as_kaggle(root)
    refused(target, r"^dataset\.label='Smiles' does not exist; did you mean 'Smi", label="Smiles")
    path = target / "list_attr_celeba.csv"
    text = path.read_text()
    path.write_text(text.replace("000002.jpg,-1", "000002.jpg,0"))
    refused(
        target,
        r"list_attr_celeba\.csv', line 3: not as published; allowed: a file name and 4 times 1 ",
    )
    path.write_text(text[: text.index("000020")])
    refused(target, r"list_attr_celeba\.csv' lacks '000020\.jpg', one of 5 images of list_eval_par")


def test_what_is_not_in_the_list_is_counted(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "celeba" / "img_align_celeba" / "x.jpg").write_bytes(b"x")
    load(root)
    said = "celeba: left out: 1 images that are not in list_attr_celeba.txt\n"
    assert said in capsys.readouterr().err


def test_attributes_that_say_nothing_are_left_out_with_the_reason(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "celeba" / "list_attr_celeba.txt"
    count, names, *rows = path.read_text().splitlines()
    values = [row.split() for row in rows]
    lines = [f"{file} -1 {smiling} {smiling} {young}" for file, _, _, smiling, young in values]
    path.write_text("\n".join([count, names, *lines]))
    assert load(root).attributes == ("Young",)
    said = capsys.readouterr().err
    assert "celeba: left out: Bald, which has one group ('not Bald')\n" in said
    assert "celeba: left out: Male, which is the label under another name\n" in said


refused = partial(assert_refused, load)


def test_an_attribute_that_does_not_exist_is_refused(root: Path) -> None:
    refused(
        root, r"^dataset\.label='Smiles' does not exist; did you mean 'Smiling'", label="Smiles"
    )


@pytest.mark.parametrize("name", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_a_missing_list_is_named_with_what_is_expected(root: Path, name: str) -> None:
    (root / "celeba" / name).unlink()
    refused(root, rf"lacks {name}; allowed: a folder with celeba/list_attr_celeba\.txt, .*http")


def test_a_missing_image_is_named(root: Path) -> None:
    (root / "celeba" / "img_align_celeba" / "000003.jpg").unlink()
    refused(root, r"000003\.jpg' is missing, one of 1 images .*img_align_celeba\.zip")


def test_a_list_that_is_cut_short_is_refused(root: Path) -> None:
    path = root / "celeba" / "list_attr_celeba.txt"
    text = path.read_text()
    path.write_text(text[: text.index("000020")])
    refused(root, r"says '24' images and has 19 lines of them; allowed: the whole file")
    path.write_text(text[:-8])
    refused(root, r"line 26: not as published; allowed: a file name and 4 times 1 or -1")


def test_a_partition_that_does_not_fit_is_refused(root: Path) -> None:
    path = root / "celeba" / "list_eval_partition.txt"
    text = path.read_text()
    path.write_text(text.replace("000002.jpg 0", "000002.jpg 7"))
    refused(
        root,
        r"list_eval_partition\.txt', line 2: not as published; allowed: a file name and 0, 1 or 2",
    )
    path.write_text(text.replace("000002.jpg 0\n", ""))
    refused(root, r"list_eval_partition\.txt' lacks '000002\.jpg', one of 1 images")


def test_a_drive_that_refuses_says_which_files_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise RuntimeError("Too many users have\nviewed this file")

    monkeypatch.setattr("torchvision.datasets.utils.download_file_from_google_drive", refuse)
    message = (
        r"^CelebA's list_attr_celeba\.txt on Google Drive cannot be downloaded \(Too many users "
        r"have viewed this file\); allowed: .* or list_attr_celeba\.txt, list_eval_partition\.txt "
        r"and img_align_celeba\.zip of http.* put into '.*celeba/celeba', or dataset\.root"
    )
    with pytest.raises(MachineError, match=message):
        load_dataset(Config(), tmp_path)
