"""What is checked before anything slow loads: the same errors as loading gives, at once."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.dataset_files import write_image

from kdplatform.data import check_dataset, dataset_config_class, load_dataset
from kdplatform.errors import UserError

SLOW = ("torch", "pandas", "mlflow", "sklearn", "scipy", "torchvision")
TABLE = "age,sex,label\n" + "".join(f"{row},{'fm'[row // 2 % 2]},{row % 2}\n" for row in range(40))


def config_of(name: str, **fields: Any) -> Any:
    return dataset_config_class(name).model_validate({"name": name, **fields})


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    for number in range(8):
        write_image(tmp_path / "images" / "ab"[number % 2] / f"{number}.png", number)
    return tmp_path / "images"


def test_importing_and_checking_every_dataset_loads_no_slow_library(
    table: Path, images: Path
) -> None:
    typed = table.with_suffix(".parquet")
    pd.read_csv(table).to_parquet(typed)
    code = (
        "import sys\n"
        "from kdplatform.data import check_dataset, dataset_config_class, dataset_names\n"
        "made = {name: dataset_config_class(name)(name=name) for name in dataset_names()}\n"
        "table, typed, images = sys.argv[1:]\n"
        "for file in (table, typed):\n"
        "    check_dataset(made['table'].model_copy(update={'file': file}))\n"
        "check_dataset(made['imagefolder'].model_copy(update={'root': images}))\n"
        f"print(*set({SLOW}) & set(sys.modules))\n"
    )
    words = [sys.executable, "-c", code, str(table), str(typed), str(images)]
    ran = subprocess.run(words, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == []


def refusal(config: Any, tmp_path: Path) -> str:
    """Returns the message of the check, after seeing that loading gives the same."""
    with pytest.raises(UserError) as checked:
        check_dataset(config)
    with pytest.raises(UserError) as loaded:
        load_dataset(config, tmp_path / "data")
    assert str(checked.value) == str(loaded.value)
    assert "\n" not in str(checked.value)
    return str(checked.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn", "tiny_imagenet", "hatexplain"])
def test_what_is_downloaded_needs_no_root_and_is_refused_for_a_wrong_one(
    tmp_path: Path, name: str
) -> None:
    check_dataset(config_of(name))
    said = refusal(config_of(name, root=str(tmp_path / "nowhere")), tmp_path)
    assert f"dataset.root='{tmp_path / 'nowhere'}' " in said


def test_a_folder_that_may_not_be_listed_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    said = refusal(config_of("imagefolder", root=str(images)), tmp_path)
    assert said.endswith("cannot be read (Permission denied); allowed: a folder this user may read")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"file": ""}, "dataset.file is not given"),
        ({"file": "nowhere.csv"}, "dataset.file='nowhere.csv' is no file"),
        ({"label": "labels"}, "dataset.label='labels' does not exist; did you mean 'label'?"),
        ({"attributes": "sex,race"}, "dataset.attributes='race' does not exist"),
        ({"attributes": "label"}, "dataset.attributes='label' is not allowed"),
        ({"separator": ";"}, "has one column ('age,sex,label') when split at dataset.separator="),
    ],
)
def test_the_head_of_a_csv_file_is_checked(
    table: Path, tmp_path: Path, fields: dict[str, str], said: str
) -> None:
    fields = {"file": str(table), "attributes": "sex"} | fields
    assert said in refusal(config_of("table", **fields), tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no lines of data"),
        (b"age,label\n", "has no lines of data"),
        (b"age,age\n1,x\n", "has column 'age' twice"),
        (b"age,label\n1\n", "line 2: 1 cells; allowed: 2"),
        (b"age,\xe9\n1,x\n", "line 1: not UTF-8 (byte 0xe9)"),
    ],
)
def test_a_file_that_begins_like_no_table_is_refused(
    table: Path, tmp_path: Path, content: bytes, said: str
) -> None:
    table.write_bytes(content)
    assert said in refusal(config_of("table", file=str(table)), tmp_path)


def test_the_head_of_a_parquet_file_is_checked(table: Path, tmp_path: Path) -> None:
    typed = tmp_path / "people.parquet"
    pd.read_csv(table).iloc[::2].to_parquet(typed)  # which writes an index without a name
    check_dataset(config_of("table", file=str(typed)))
    said = refusal(config_of("table", file=str(typed), label="age_"), tmp_path)
    assert said.endswith("known: age, label, sex")
    pd.read_csv(table).iloc[:0].to_parquet(typed)
    assert "has no rows" in refusal(config_of("table", file=str(typed)), tmp_path)
    typed.write_bytes(b"PAR1")
    assert "cannot be read as Parquet (" in refusal(config_of("table", file=str(typed)), tmp_path)


def test_only_the_head_of_a_table_is_read(table: Path) -> None:
    table.write_bytes(TABLE.encode() + b"1,f,1\n" * 10_000 + b"\xff")
    check_dataset(config_of("table", file=str(table)))


def test_class_folders_and_the_list_of_attributes_are_checked(images: Path, tmp_path: Path) -> None:
    config = config_of("imagefolder", root=str(images), image_size=8, workers=0)
    check_dataset(config)
    (images / "attributes.csv").write_text("name,place\na/0.png,x\n")
    assert "has no column 'file' (its columns: name, place)" in refusal(config, tmp_path)
    (images / "attributes.csv").write_text("file,label\na/0.png,x\n")
    assert "attribute 'label' has a name that predictions use" in refusal(config, tmp_path)
    (images / "attributes.csv").unlink()
    (images / "b").rename(images / ".b")
    assert "has only one class ('a')" in refusal(config, tmp_path)
    (images / "a").rename(images / ".a")
    assert "has no images; allowed: train/<class>/*.jpg" in refusal(config, tmp_path)
    (images / ".a" / "0.png").rename(images / "0.png")
    assert "'0.png' is in no class folder, one of 1 such images" in refusal(config, tmp_path)


def test_imagenets_folders_and_devkit_are_checked(tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert "is no folder" in refusal(config_of("imagenet", root=str(root)), tmp_path)
    (root / "train").mkdir(parents=True)
    assert "has neither ILSVRC2012" in refusal(config_of("imagenet", root=str(root)), tmp_path)
    (root / "meta.bin").touch()
    assert "has no val/" in refusal(config_of("imagenet", root=str(root)), tmp_path)
    (root / "val").mkdir()
    check_dataset(config_of("imagenet", root=str(root)))


def test_celebas_lists_and_label_are_checked(tmp_path: Path) -> None:
    check_dataset(config_of("celeba"))
    own = tmp_path / "celeba"
    (own / "img_align_celeba").mkdir(parents=True)
    config = config_of("celeba", root=str(tmp_path))
    assert "lacks list_attr_celeba.txt, list_eval_partition.txt" in refusal(config, tmp_path)
    (own / "list_eval_partition.txt").touch()
    (own / "list_attr_celeba.txt").write_text("1\nYoung Smiling\n1.jpg 1 1\n")
    check_dataset(config)
    config = config_of("celeba", root=str(tmp_path), label="Old")
    assert "dataset.label='Old' does not exist" in refusal(config, tmp_path)
