import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.damage import cut_short
from helpers.dataset_files import IMAGE_FOLDER_CLASSES, write_image, write_image_folder
from helpers.refusals import assert_refused
from PIL import Image

from kdplatform.data import Dataset, StreamedInputs, _image_files, load_dataset
from kdplatform.data.imagefolder import Config
from kdplatform.errors import UserError
from kdplatform.settings.project import load_project


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_image_folder(tmp_path / "images")


def with_splits(root: Path, *names: str) -> None:
    """Turns `<class>/` into `train/<class>/` and the splits named, which take two images each."""
    for name in IMAGE_FOLDER_CLASSES:
        files = sorted((root / name).iterdir())
        for split in names:
            (root / split / name).mkdir(parents=True)
            for _ in range(2):
                file = files.pop()
                file.rename(root / split / name / file.name)
        (root / "train").mkdir(exist_ok=True)
        (root / name).rename(root / "train" / name)


def write_attributes(root: Path, text: str | None = None, **columns: Callable[[int], str]) -> Path:
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    lines = [",".join(["file", *columns])]
    lines += [",".join([f, *(c(row) for c in columns.values())]) for row, f in enumerate(files)]
    path = root / "attributes.csv"
    path.write_text(text if text is not None else "\n".join(lines) + "\n")
    return path


def load(root: Path, **fields: Any) -> Dataset:
    config = Config(**{"root": str(root), "image_size": 8, "workers": 0} | fields)
    return load_dataset(config, root.parent / "data")


refused = partial(assert_refused, load)


def test_one_folder_is_split_by_fractions_of_every_class(root: Path) -> None:
    dataset = load(root, val_fraction=0.1, test_fraction=0.3)
    assert dataset.class_names == IMAGE_FOLDER_CLASSES
    for split, count in (("train", 6), ("val", 1), ("test", 3)):
        assert np.bincount(dataset.splits()[split].labels).tolist() == [count] * 3
    ids = np.concatenate([split.ids for split in dataset.splits().values()])
    assert sorted(ids) == list(range(30))


@pytest.mark.parametrize("given", [(), ("test",), ("val",), ("val", "test")])
def test_splits_that_have_folders_are_theirs(root: Path, given: tuple[str, ...]) -> None:
    with_splits(root, *given)
    dataset = load(root, val_fraction=0.1, test_fraction=0.2)
    sizes = {"val": 3, "test": 6} | dict.fromkeys(given, 6)
    for name, count in sizes.items():
        assert len(dataset.splits()[name]) == count
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    for name in given:
        assert {files[row].parts[0] for row in dataset.splits()[name].ids} == {name}


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_pixels_are_those_of_the_file_with_the_id(root: Path, storage: str) -> None:
    dataset = load(root, storage=storage)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    expected = StreamedInputs(root, files, size=8, workers=0)
    for split in dataset.splits().values():
        assert isinstance(split.inputs, StreamedInputs) == (storage == "stream")
        assert torch.equal(split.inputs[:], expected[torch.from_numpy(split.ids)])
        assert [files[row].split("/")[0] for row in split.ids] == [
            IMAGE_FOLDER_CLASSES[label] for label in split.labels
        ]


def test_storage_and_workers_change_neither_digest_nor_channel_statistics(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer than there are training images, so that both measure a part of them.
    monkeypatch.setattr("kdplatform.data.imagefolder.MEASURED_IMAGES", 5)
    memory, stream = load(root), load(root, storage="stream", workers=1)
    assert memory.digest == stream.digest
    for ours, theirs in zip(memory.channel_statistics, stream.channel_statistics, strict=True):
        assert torch.equal(ours, theirs)


def test_what_is_too_large_for_memory_is_streamed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(load(root).train.inputs, torch.Tensor)
    monkeypatch.setattr(_image_files, "MOST_BYTES_IN_MEMORY", 30 * 3 * 64 - 1)
    assert isinstance(load(root).train.inputs, StreamedInputs)


def test_the_second_load_decodes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(root)
    monkeypatch.setattr(StreamedInputs, "decode", None)
    second = load(root)
    assert second.digest == first.digest
    assert torch.equal(torch.as_tensor(second.train.inputs), torch.as_tensor(first.train.inputs))


def test_a_damaged_cache_is_made_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = load(root)
    [cache] = (root.parent / "data").rglob("images.npz")
    cut_short(cache)
    second = load(root)
    assert torch.equal(torch.as_tensor(second.train.inputs), torch.as_tensor(first.train.inputs))
    assert "images.npz is damaged or altered; it is made again" in capsys.readouterr().err


def test_the_digest_follows_the_files_and_the_configuration_and_not_the_place(root: Path) -> None:
    first = load(root)
    assert load(root, seed=1).digest != first.digest
    assert load(root, image_size=16).digest != first.digest
    assert load(root, skip_bad=True).digest == first.digest
    root.rename(root.with_name("moved"))
    assert load(root.with_name("moved")).digest == first.digest
    moved = root.with_name("moved")
    (moved / "cat" / "0.png").write_bytes((moved / "cat" / "4.png").read_bytes())
    assert load(moved).digest != first.digest


def test_another_way_of_decoding_is_another_digest(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(root)
    monkeypatch.setattr(_image_files, "DECODER_VERSION", _image_files.DECODER_VERSION + 1)
    assert load(root).digest != first.digest


def test_of_very_many_bytes_a_sample_of_contents_enters_the_digest(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_image_files, "MOST_BYTES_HASHED", 0)
    monkeypatch.setattr(_image_files, "_SAMPLED_FILES", 2)  # the first and the last
    files = [f"cat/{number}.png" for number in (0, 4, 8)]
    digest = _image_files.files_digest(root, files)
    size = (root / files[1]).stat().st_size
    (root / files[1]).write_bytes(b"x" * size)
    assert _image_files.files_digest(root, files) == digest
    (root / files[1]).write_bytes(b"x" * (size + 1))
    assert _image_files.files_digest(root, files) != digest
    (root / files[2]).write_bytes(b"x" * (root / files[2]).stat().st_size)
    assert _image_files.files_digest(root, files[::2]) != digest


def test_attributes_are_the_groups_of_the_file(root: Path) -> None:
    write_attributes(
        root, place=lambda row: "in" if row % 2 else "out", lit=lambda row: "ab"[row % 3 // 2]
    )
    dataset = load(root)
    assert dataset.attributes == ("place", "lit")
    for split in dataset.splits().values():
        assert split.columns["place"].tolist() == ["in" if row % 2 else "out" for row in split.ids]
    (root / "attributes.csv").unlink()
    without = load(root)
    assert without.attributes == ()
    assert without.digest != dataset.digest


def test_an_empty_cell_is_a_group_of_its_own(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_attributes(root, place=lambda row: "" if row == 7 else "ab"[row % 2])
    dataset = load(root)
    groups = {
        int(row): group
        for split in dataset.splits().values()
        for row, group in zip(split.ids, split.columns["place"], strict=True)
    }
    assert groups[7] == "missing"
    assert "place is empty for 1 images" in capsys.readouterr().err


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_images_that_do_not_decode_are_refused_by_name_or_left_out(
    root: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "cat" / "0.png").write_bytes(b"")
    cut_short(root / "owl" / "1.jpg", 200)
    refused(
        root,
        r"^image '.*cat/0\.png' cannot be decoded \(.*\), the first of 2 such images; "
        r"allowed: .*skip_bad=true",
        storage=storage,
    )
    dataset = load(root, storage=storage, skip_bad=True)
    assert sum(map(len, dataset.splits().values())) == 28
    assert "2 of 30 images do not decode and are left out" in capsys.readouterr().err
    for split in dataset.splits().values():
        assert (split.inputs[:].flatten(1).amax(1) > 0).all()


@pytest.mark.parametrize("storage", ["memory", "stream"])
def test_images_whose_values_have_no_known_range_are_refused_or_left_out(
    root: Path, storage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(np.ones((16, 16), np.float32)).save(root / "cat" / "f.tif")
    Image.fromarray(np.ones((16, 16), np.int32)).save(root / "cat" / "i.tif")
    refused(
        root, r"/f\.tif' cannot be decoded \(mode 'F': .*first of 2 such images", storage=storage
    )
    dataset = load(root, storage=storage, skip_bad=True)
    assert sum(map(len, dataset.splits().values())) == 30
    assert "2 of 32 images do not decode and are left out" in capsys.readouterr().err


def test_files_of_other_kinds_are_counted_and_hidden_ones_ignored(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_attributes(root, place=lambda row: "ab"[row % 2])
    (root / "cat" / "notes.heic").write_text("x")
    (root / "cat" / ".DS_Store").write_text("x")
    (root / "cat" / "._0.png").write_text("x")
    (root / "cat" / ".0.png").write_text("x")
    (root / "__MACOSX" / "cat").mkdir(parents=True)
    load(root)
    assert f"dataset.root='{root}': left out: 1 .heic, 1 hidden images\n" in capsys.readouterr().err


def test_no_root_or_no_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset\.root is not given; allowed: a folder with "):
        load_dataset(Config(), tmp_path)
    refused(tmp_path / "nowhere", r"^dataset\.root='.*nowhere' is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"has no images; allowed: train/<class>/\*\.jpg")


def test_images_beside_the_class_folders_are_refused(root: Path) -> None:
    write_image(root / "lost.png", 0)
    refused(root, r"'lost\.png' is in no class folder")


def test_a_single_class_is_refused(root: Path) -> None:
    write_image_folder(root.parent / "others")
    for name in ("cat", "dog"):
        shutil.rmtree(root / name)
    refused(root, r"has only one class \('owl'\); allowed: at least two")
    with_splits(root.parent / "others", "test")
    shutil.rmtree(root)
    (root / "train").mkdir(parents=True)
    shutil.copytree(root.parent / "others" / "train" / "cat", root / "train" / "cat")
    refused(root, r"has only one class \('cat'\); allowed: at least two")


def test_the_folder_around_the_class_folders_names_the_one_that_is_meant(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "outer" / "images").parent
    refused(
        root,
        r"has only one class \('images'\); did you mean dataset\.root='.*/images', which has the "
        r"folders 'cat', 'dog', 'owl'\?$",
    )


@pytest.mark.parametrize("kinds", [(), (".heic", ".HEIC", ".txt")])
def test_a_class_whose_images_cannot_be_read_is_refused(root: Path, kinds: tuple[str, ...]) -> None:
    (root / "emu").mkdir()
    for number, kind in enumerate(kinds):
        (root / "emu" / f"{number}{kind}").write_bytes(b"x")
    said = r"only 2 \.heic, 1 \.txt" if kinds else "is empty"
    message = rf"class folder 'emu' has no image \({said}\); allowed: images \(png, jpg"
    refused(root, message)
    with_splits(root, "test")
    (root / "emu").rename(root / "train" / "emu")
    refused(root, message)


@pytest.mark.parametrize(
    "names",
    [
        {"train": "Train", "test": "Test"},
        {"train": "Training", "test": "Testing"},
        {"train": "train", "val": "valid", "test": "test"},
        {"train": "TRAIN", "val": "validation"},
        {"train": "train", "val": "Dev", "test": "test"},
    ],
)
def test_splits_are_known_by_their_usual_names(
    root: Path, names: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    with_splits(root, *(name for name in names if name != "train"))
    for split, name in names.items():
        (root / split).rename(root / name)
    dataset = load(root)
    assert dataset.class_names == IMAGE_FOLDER_CLASSES
    files = sorted(path.relative_to(root) for path in root.rglob("*.*"))
    for split, name in names.items():
        assert {files[row].parts[0] for row in dataset.splits()[split].ids} == {name}
    said = capsys.readouterr().err
    assert all(f"{split} is {name}/" in said for split, name in names.items())
    if "test" not in names:
        assert "test is 0.2 of every class of train" in said


def test_where_the_splits_of_one_folder_come_from_is_said(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load(root)
    assert (
        f"dataset.root='{root}': val is 0.1 of every class of all images, test is 0.2 of every "
        "class of all images\n" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("test", "Val"), r"has 'Val' and 'test' and no folder for training; allowed: train/<cla"),
        (("train", "Train"), r"has 'Train' and 'train', which are one split; allowed: one of them"),
        (("seg_train", "seg_test"), r"'seg_test' and 'seg_train' sound like splits and would be"),
        (("training_set", "test_set"), r"'test_set' and 'training_set' sound like splits and woul"),
        (("cat/train", "dog/test"), r"'cat/train/cat/\d\.\w+' is of a split inside a class folder"),
    ],
)
def test_folders_that_are_neither_splits_nor_classes_are_refused(
    root: Path, folders: tuple[str, ...], message: str
) -> None:
    images = root.rename(root.with_name("unsorted"))
    for folder in folders:
        shutil.copytree(images, root / folder)
    refused(root, message)


def test_what_lies_beside_the_splits_is_named_with_its_count(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_splits(root, "val", "test")
    write_image(root / "train_extra" / "cat" / "1.png", 1)
    (root / "train_extra" / "notes.txt").write_text("x")
    write_image(root / "overview.png", 1)
    (root / "val" / "cat" / "labels.TXT").write_text("x")
    load(root)
    said = capsys.readouterr().err
    assert "left out: folder 'train_extra' (2 files), 1 .png, 1 .txt\n" in said


def test_folders_inside_class_folders_are_of_the_class_and_counted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in (1, 2):
        write_image(root / "cat" / f"session {number}" / "1.png", 90 + number)
    assert sum(map(len, load(root).splits().values())) == 32
    assert "images of 2 folders inside class folders belong to the" in capsys.readouterr().err


def test_linked_folders_are_read_and_endless_ones_are_not(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = load(root)
    (root / "cat").rename(root.parent / "elsewhere")
    (root / "cat").symlink_to(root.parent / "elsewhere")
    assert load(root).digest == expected.digest
    (root / "dog" / "again").symlink_to(root)
    capsys.readouterr()
    assert load(root).digest == expected.digest
    assert "left out: 1 endless links\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train", "train/cat/inner"])
def test_a_folder_that_may_not_be_read_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    with_splits(root, "test")
    (root / "train" / "cat" / "inner").mkdir()
    for function in ("scandir", "listdir"):
        listing = getattr(os, function)

        def refuse(path: Any, listing: Any = listing) -> Any:
            if Path(path) == root / name:
                raise PermissionError(13, "Permission denied", str(path))
            return listing(path)

        monkeypatch.setattr(os, function, refuse)
    refused(root, rf"{name}' cannot be read \(Permission denied\); allowed: folders this user may")


def test_a_class_folder_that_is_a_link_to_nothing_is_refused(root: Path) -> None:
    (root / "emu").symlink_to(root.parent / "gone")
    refused(root, r"images/emu' is a link to '.*/gone', which does not exist")
    with_splits(root, "test")
    (root / "emu").rename(root / "train" / "emu")
    refused(root, r"train/emu' is a link to '.*/gone', which does not exist")


def test_classes_are_equal_however_their_letters_are_composed(root: Path) -> None:
    with_splits(root, "test")
    write_attributes(root, place=lambda row: "ab"[row % 2])
    for split, name in (("train", "bébé"), ("test", "be\u0301be\u0301")):
        (root / split / "cat").rename(root / split / name)
    path = root / "attributes.csv"
    path.write_text(path.read_text().replace("/cat/", "/bébé/"))
    assert load(root).class_names == ("bébé", "dog", "owl")


def test_class_names_that_look_alike_are_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "owl").rename(root / "Dog ")
    assert load(root).class_names == ("Dog ", "cat", "dog")
    assert "classes: 'Dog ' and 'dog' look alike and stay separate" in capsys.readouterr().err


def test_an_image_of_the_test_split_that_training_has_too_is_named(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_splits(root, "val", "test")
    load(root)
    assert "are in train too" not in capsys.readouterr().err
    shutil.copy(root / "train" / "cat" / "0.png", root / "test" / "cat" / "copy.png")
    load(root)
    said = (
        "imagefolder: 1 images of test are in train too: 'test/cat/copy.png' is 'train/cat/0.png'"
    )
    assert f"{said}\n" in capsys.readouterr().err


def test_groups_have_one_spelling_and_an_index_is_none(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_attributes(root, lit=lambda row: ("0", "1", "0.0", "1.0")[row % 4])
    expected = load(root)
    groups = {group for split in expected.splits().values() for group in split.columns["lit"]}
    assert groups == {"0", "1"}
    lines = path.read_text().splitlines()
    lines = [f"{'' if row == 0 else row - 1},{line}" for row, line in enumerate(lines)]
    path.write_text("\n".join(lines))
    assert load(root).attributes == ("lit",)
    said = capsys.readouterr().err
    assert "lit: '0' = '0.0', '1' = '1.0' are read as one value\n" in said
    assert "left out, an index as pandas writes it: Unnamed: 0\n" in said


def test_lines_of_files_that_are_no_images_are_counted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "cat" / "x.heic").write_bytes(b"x")
    write_attributes(root, place=lambda row: "ab"[row % 2])
    load(root)
    assert "1 lines name no image that is read: 'cat/x.heic'" in capsys.readouterr().err


@pytest.mark.parametrize("wide", [False, True])
def test_white_is_white_in_a_tiff_file_in_which_it_is_0(root: Path, wide: bool) -> None:
    kind = np.uint16 if wide else np.uint8
    grey = np.full((16, 16), 10 * (256 if wide else 1), kind)
    plain = load(root).digest
    Image.fromarray(grey).save(root / "cat" / "w.tif", tiffinfo={262: 0})
    # Pillow inverts what it writes with 8 bits, and not what it writes with 16.
    stored = np.array(list((root / "cat" / "w.tif").read_bytes())).astype(np.uint8)
    dark = (stored == 10).sum() > (stored == 245).sum()
    dataset = load(root)
    files = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.*"))
    row = files.index("cat/w.tif")
    [pixels] = [
        split.inputs[split.ids.tolist().index(row)]
        for split in dataset.splits().values()
        if row in split.ids
    ]
    assert (pixels == (245 if dark else 10)).all()
    assert dataset.digest != plain


def test_a_class_without_training_or_test_images_is_named(root: Path) -> None:
    with_splits(root, "test")
    for path in (root / "test" / "dog").iterdir():
        path.unlink()
    refused(root, r"1 of 3 classes have fewer than 1 test examples \('dog'\)")
    (root / "train" / "cat").rename(root / "test" / "cow")
    refused(root, r"fewer than 2 train, val examples \('cat', 'cow'\); allowed: at least 2 of")


@pytest.mark.parametrize(
    ("given", "kept", "message"),
    [
        ((), 2, r"fewer than 3 train, val, test examples \('cat'\)"),
        (("test",), 1, r"fewer than 2 train, val examples \('cat'\)"),
        (("val",), 1, r"fewer than 2 train, test examples \('cat'\)"),
    ],
)
def test_a_class_too_small_for_the_splits_held_out_is_named(
    root: Path, given: tuple[str, ...], kept: int, message: str
) -> None:
    with_splits(root, *given) if given else None
    for path in sorted((root / "train" / "cat" if given else root / "cat").iterdir())[kept:]:
        path.unlink()
    refused(root, r"1 of 3 classes have " + message)


def test_shares_that_leave_a_class_without_validation_are_refused(root: Path) -> None:
    for path in sorted((root / "cat").iterdir())[3:]:
        path.unlink()
    refused(root, r"fewer than 1 val examples \('cat'\)", test_fraction=0.5)


def test_a_class_folder_that_is_not_named_in_utf8_is_refused(root: Path) -> None:
    (root / "owl").rename(root / os.fsdecode(b"\xff"))
    refused(root, r"the class folder b'\\xff' has a name that is not UTF-8")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,place\na,b\n", r"has no column 'file' \(its columns: name, place\)"),
        ("file,place\ncat/0.png,a\nfox/1.png,b\n", r"names 'fox/1\.png', one of 1 files"),
        ("file,place\ncat/0.png,a\n", r"no line for 'cat/1\.jpg', one of 29 images without"),
        ("file,place\ncat/0.png,a\ncat/0.png,b\n", r"has 'cat/0\.png' twice"),
        ("file,place\ncat/0.png,a\ncat//0.png,b\n", r"has 'cat/0\.png' twice"),
        ("file,place\ncat/0.png,a\n./dog/../cat/0.png,b\n", r"has 'cat/0\.png' twice"),
        (
            "file,place\n../images/cat/0.png,b\n",
            r"'\.\./images/cat/0\.png', one of 1 files outside",
        ),
        ("file,place\n/images/cat/0.png,b\n", r"'/images/cat/0\.png', one of 1 files outside the"),
        ("file,place\ncat/0.png\n", r"line 2: 1 cells; allowed: 2, one per column"),
        ("file,place,place\n", r"has column 'place' twice"),
        ("file,\na,b\n", r"has a column without a name"),
        ("file,place\n", r"has no lines of data"),
        ('file,place\n"cat', r"line 2: no valid CSV"),
    ],
)
def test_an_attribute_file_that_does_not_fit_is_refused(
    root: Path, text: str, message: str
) -> None:
    write_attributes(root, text)
    refused(root, r"attributes\.csv'.*" + message)


def test_attributes_are_found_however_their_path_is_spelled(root: Path) -> None:
    path = write_attributes(root, place=lambda row: "ab"[row % 2])
    expected = load(root)
    path.write_text(path.read_text().replace("cat/", "./cat//").replace("dog/", "dog\\\\"))
    assert load(root).train.columns.equals(expected.train.columns)


def test_a_folder_in_place_of_the_attribute_file_is_refused(root: Path) -> None:
    (root / "attributes.csv").mkdir()
    refused(root, r"attributes\.csv' is no file; allowed: a CSV file of this name, or nothing")


def test_an_attribute_file_that_is_not_utf8_is_refused(root: Path) -> None:
    (root / "attributes.csv").write_bytes("file,place\ncat/0.png,Köln\n".encode("latin-1"))
    refused(
        root, r"attributes\.csv', line 2: not UTF-8 \(byte 0xf6\); allowed: text saved as UTF-8"
    )


@pytest.mark.parametrize(
    ("name", "group", "message"),
    [
        ("kind", lambda row: "cdo"[row // 10], r"'kind' is the label under another name"),
        ("place", lambda row: "here", r"'place' has one group \('here'\)"),
        ("label", lambda row: "ab"[row % 2], r"'label' has a name that predictions use"),
    ],
)
def test_an_attribute_that_says_nothing_is_refused(
    root: Path, name: str, group: Callable[[int], str], message: str
) -> None:
    write_attributes(root, **{name: group})
    refused(root, message)


def test_a_disk_without_room_for_the_cache_is_said_in_one_line(
    root: Path, largest_file: Any
) -> None:
    from kdplatform.errors import MachineError

    with largest_file(1000), pytest.raises(MachineError, match=r"cannot hold the decoded .*stream"):
        load(root)


def test_a_centre_larger_than_the_resized_image_is_refused() -> None:
    with pytest.raises(UserError, match=r"resize=16 is not allowed; .* at least image_size=32"):
        load_project("imagefolder", {"dataset.resize": "16"})
