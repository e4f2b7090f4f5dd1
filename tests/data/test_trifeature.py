import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import filelock
import numpy as np
import pandas as pd
import pytest
import torch

from kdplatform.data import Dataset, load_dataset, trifeature
from kdplatform.data._trifeature_factors import COLORS, SHAPES, TEXTURES, draw_factors
from kdplatform.data.trifeature import Config
from kdplatform.errors import MachineError, UserError
from kdplatform.settings.fields import describe_fields
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import DatasetConfig

SMALL = Config(
    image_size=16, values_per_feature=3, versions_train=3, versions_val=1, versions_test=2
)
DRAWN = 3**3 * 6
FACTOR_COLUMNS = ["shape_rotation", "texture_rotation", "position_x", "position_y"]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(SMALL, tmp_path_factory.mktemp("small"))


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one entry for each split that is drawn."""
    calls: list[int] = []
    render = trifeature.render

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return render(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(trifeature, "render", counted)
    return calls


def digest_of(**change: object) -> str:
    config = Config.model_validate(SMALL.model_dump() | change)
    return trifeature._digest(config, trifeature._draw_all_factors(config))


def cache_file(folder: Path) -> Path:
    (path,) = folder.glob("trifeature/*/images.npz")
    return path


def assert_same(one: Dataset, other: Dataset) -> None:
    assert one.digest == other.digest
    for name, split in one.splits().items():
        twin = other.splits()[name]
        assert torch.equal(split.inputs, twin.inputs)
        assert torch.equal(split.labels, twin.labels)
        np.testing.assert_array_equal(split.ids, twin.ids)
        pd.testing.assert_frame_equal(split.columns, twin.columns)


# ----------------------------------------------------------------------------- what the splits hold


def test_splits_have_the_documented_form(small: Dataset) -> None:
    assert small.class_names == SHAPES[:3]
    assert small.attributes == ("color", "texture")
    assert [len(split) for split in small.splits().values()] == [81, 27, 54]
    for split in small.splits().values():
        assert split.inputs.dtype == torch.uint8
        assert split.inputs.shape == (len(split), 3, 16, 16)
        assert split.labels.dtype == torch.int64
        assert list(split.columns) == ["shape", "color", "texture", *FACTOR_COLUMNS]
        assert list(split.columns["shape"]) == [SHAPES[label] for label in split.labels]
        assert set(split.columns["color"]) == set(list(COLORS)[:3])
        assert set(split.columns["texture"]) == set(TEXTURES[:3])
        assert split.columns[FACTOR_COLUMNS[:2]].abs().max().max() <= 45
        assert split.columns[FACTOR_COLUMNS[2:]].min().min() >= 64
        assert split.columns[FACTOR_COLUMNS[2:]].max().max() <= 160


def test_every_split_holds_every_combination_equally_often(small: Dataset) -> None:
    for split, versions in zip(small.splits().values(), (3, 1, 2), strict=True):
        counts = split.columns.value_counts(["shape", "color", "texture"])
        assert len(counts) == 27
        assert set(counts) == {versions}


def test_order_is_mixed(small: Dataset) -> None:
    for column in ("shape", "color", "texture"):
        assert small.train.columns[column].head(27).nunique() == 3


def test_splits_share_neither_ids_nor_factors_nor_images(small: Dataset) -> None:
    splits = small.splits().values()
    assert len(np.unique(np.concatenate([split.ids for split in splits]))) == DRAWN
    columns = pd.concat([split.columns for split in splits])
    for column in FACTOR_COLUMNS:
        assert columns[column].nunique() == DRAWN
    images = torch.cat([split.inputs for split in splits])
    assert len({image.numpy().tobytes() for image in images}) == DRAWN


def test_rotations_and_places_are_independent_and_spread_evenly() -> None:
    factors = draw_factors(0, 0, 10, 4, 0.0)
    drawn = np.stack(
        [
            factors.shape_rotation / 90 + 0.5,
            factors.texture_rotation / 90 + 0.5,
            factors.placement_x,
            factors.placement_y,
        ]
    )
    deciles = np.stack([np.histogram(values, 10, (0, 1))[0] for values in drawn])
    assert np.abs(deciles - 400).max() < 100  # five standard deviations
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 0.08


# ------------------------------------------------------------------------------------- correlation


def color_table(correlation: float) -> pd.DataFrame:
    factors = draw_factors(3, 0, 5, 4, correlation)
    return pd.crosstab(factors.shape, factors.color).reindex(columns=range(5), fill_value=0)


@pytest.mark.parametrize("correlation", [0.0, 0.25, 0.5, 0.813, 1.0])
def test_correlation_is_the_share_tied_to_the_shape(correlation: float) -> None:
    table = color_table(correlation).to_numpy()
    assert list(table.sum(axis=1)) == [100] * 5
    tied = round(100 * correlation)
    free = (100 - tied) / 5
    assert np.abs(np.diag(table) - tied - free).max() < 1
    assert np.abs(table[~np.eye(5, dtype=bool)] - free).max() < 1


@pytest.mark.parametrize("correlation", [0.0, 0.37, 1.0])
def test_correlation_leaves_shape_and_texture_balanced(correlation: float) -> None:
    factors = draw_factors(3, 0, 5, 4, correlation)
    assert (pd.crosstab(factors.shape, factors.texture) == 20).all(axis=None)
    own = factors.color == factors.shape
    shares = pd.Series(own).groupby(factors.texture).mean()
    assert shares.max() - shares.min() <= 0.1


def test_correlation_changes_training_alone(small: Dataset, tmp_path: Path) -> None:
    biased = load_dataset(SMALL.model_copy(update={"correlation": 1.0}), tmp_path)
    color_of_shape = biased.train.columns.groupby("shape")["color"].agg(["nunique", "first"])
    assert list(color_of_shape["nunique"]) == [1, 1, 1]
    assert color_of_shape["first"].to_dict() == dict(zip(SHAPES[:3], list(COLORS)[:3], strict=True))
    for name in ("val", "test"):
        pd.testing.assert_frame_equal(biased.splits()[name].columns, small.splits()[name].columns)
        assert torch.equal(biased.splits()[name].inputs, small.splits()[name].inputs)


# ------------------------------------------------------------------------------------------ digest


def test_digest_is_the_same_on_every_machine(small: Dataset) -> None:
    assert small.digest == digest_of()
    assert digest_of() == "2c73a85655eaf355351ea908ae26285fe5377804974f05bcbe3eb6243ca02c7b"


CHANGES: dict[str, object] = {
    "image_size": 17,
    "values_per_feature": 4,
    "versions_train": 4,
    "versions_val": 2,
    "versions_test": 1,
    "correlation": 0.01,
    "seed": 1,
    "shape_size": 127,
}


@pytest.mark.parametrize(
    "field", [name for name in Config.model_fields if name not in DatasetConfig.model_fields]
)
def test_digest_follows_every_field(field: str) -> None:
    assert digest_of(**{field: CHANGES[field]}) != digest_of()


def test_digest_follows_the_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest_of()
    monkeypatch.setattr(trifeature, "RENDERER_VERSION", trifeature.RENDERER_VERSION + 1)
    assert digest_of() != before


def test_more_training_images_leave_the_test_split_as_it_is(small: Dataset, tmp_path: Path) -> None:
    larger = load_dataset(SMALL.model_copy(update={"versions_train": 4}), tmp_path)
    assert torch.equal(larger.test.inputs, small.test.inputs)


# ------------------------------------------------------------------------------------------- cache


def test_second_load_is_identical_and_draws_nothing(
    tmp_path: Path, drawings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    first = load_dataset(SMALL, tmp_path)
    assert len(drawings) == 3
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"trifeature: drew {DRAWN} images in ")
    assert_same(load_dataset(SMALL, tmp_path), first)
    assert len(drawings) == 3
    assert capsys.readouterr().err == ""


def test_drawing_anew_gives_the_same_bytes(small: Dataset, tmp_path: Path) -> None:
    assert_same(load_dataset(SMALL, tmp_path), small)


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def alter_one_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose_digest(path: Path) -> None:
    path.with_name("images.npz.sha256").unlink()


@pytest.mark.parametrize("damage", [cut_short, alter_one_byte, empty, lose_digest])
def test_damaged_cache_is_said_in_one_line_and_drawn_again(
    damage: Callable[[Path], None],
    small: Dataset,
    tmp_path: Path,
    drawings: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    load_dataset(SMALL, tmp_path)
    damage(cache_file(tmp_path))
    capsys.readouterr()
    assert_same(load_dataset(SMALL, tmp_path), small)
    assert len(drawings) == 6
    complaint, _ = capsys.readouterr().err.splitlines()
    assert str(cache_file(tmp_path)) in complaint
    assert "it is made again" in complaint
    assert_same(load_dataset(SMALL, tmp_path), small)
    assert len(drawings) == 6


KILLED_WHILE_WRITING = textwrap.dedent("""
    import os, signal, sys
    from pathlib import Path
    import numpy as np
    from kdplatform.data.trifeature import Config, load

    whole_savez = np.savez
    def half_savez(file, **arrays):
        whole_savez(file, **arrays)
        file.flush()
        os.truncate(file.name, os.path.getsize(file.name) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

    np.savez = half_savez
    load(Config.model_validate_json(sys.argv[1]), Path(sys.argv[2]))
""")


def test_killed_while_writing_leaves_nothing_that_is_trusted(
    small: Dataset, tmp_path: Path, drawings: list[int]
) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_WHILE_WRITING, SMALL.model_dump_json(), str(tmp_path)],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    (folder,) = tmp_path.glob("trifeature/*")
    assert list(folder.glob(".images.npz.*"))
    assert_same(load_dataset(SMALL, tmp_path), small)
    assert len(drawings) == 3
    assert sorted(path.name for path in folder.iterdir() if path.name != "lock") == [
        "images.npz",
        "images.npz.sha256",
    ]


def test_whoever_comes_second_waits_and_draws_nothing(
    small: Dataset, tmp_path: Path, drawings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "trifeature" / small.digest[:16]
    folder.mkdir(parents=True)
    loaded: list[Dataset] = []
    loaders = [
        threading.Thread(target=lambda: loaded.append(load_dataset(SMALL, tmp_path)))
        for _ in range(2)
    ]
    with filelock.FileLock(folder / "lock"):
        for loader in loaders:
            loader.start()
        loaders[0].join(0.5)
        assert not drawings
    for loader in loaders:
        loader.join(30)
    assert len(drawings) == 3
    assert capsys.readouterr().err.count("waiting for another process") == 2
    for dataset in loaded:
        assert_same(dataset, small)
    assert len(loaded) == 2


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "trifeature").write_text("a file is in the way")
    with pytest.raises(MachineError, match=r"^data_folder='.*trifeature.*cannot be written"):
        load_dataset(SMALL, tmp_path)


def test_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", no_space)
    with pytest.raises(MachineError, match=r"^data_folder=.*No space left on device.*$"):
        load_dataset(SMALL, tmp_path)
    assert not list(tmp_path.glob("trifeature/*/*images*"))


# --------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_size", "225"),
        ("image_size", "7"),
        ("image_size", "48.5"),
        ("values_per_feature", "11"),
        ("values_per_feature", "1"),
        ("versions_train", "0"),
        ("versions_val", "-1"),
        ("versions_test", "many"),
        ("correlation", "1.01"),
        ("correlation", "-0.1"),
        ("correlation", "nan"),
        ("seed", "-1"),
        ("shape_size", "15"),
        ("shape_size", "159"),
    ],
)
def test_bad_value_is_one_line_that_names_field_value_and_range(field: str, value: str) -> None:
    with pytest.raises(UserError) as caught:
        load_project("trifeature", {f"dataset.{field}": value})
    message = str(caught.value)
    allowed = {f.name: f.allowed for f in describe_fields(load_project("trifeature"))}[
        f"dataset.{field}"
    ]
    assert message.startswith(f"dataset.{field}='{value}'")
    assert message.endswith(f"allowed: {allowed}")
    assert "\n" not in message


def test_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"did you mean 'dataset\.correlation'"):
        load_project("trifeature", {"dataset.corelation": "1"})
