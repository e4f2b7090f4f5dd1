import os
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
    assert "images.npz is not what was written to it; it is made again" in capsys.readouterr().err


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
    load(root)
    assert "1 files of other kinds than images are left out" in capsys.readouterr().err


def test_no_root_or_no_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^dataset\.root is not given; allowed: a folder with "):
        load_dataset(Config(), tmp_path)
    refused(tmp_path / "nowhere", r"^dataset\.root='.*nowhere' is no folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"has no images; allowed: train/<class>/\*\.jpg")


def test_images_beside_the_class_folders_are_refused(root: Path) -> None:
    write_image(root / "lost.png", 0)
    refused(root, r"'lost\.png' lies in no class folder")


def test_a_single_class_is_refused(root: Path) -> None:
    for name in ("cat", "dog"):
        for path in (root / name).iterdir():
            path.unlink()
    refused(root, r"has only one \('owl'\) class; allowed: at least two")


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
