import hashlib
import io
from pathlib import Path

import pytest
import torch
from helpers.damage import Touch, cut_short, flip_a_bit

from kdplatform.errors import MachineError
from kdplatform.training.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint

CONTENT = {"weights": {"w": torch.arange(1000.0)}, "epoch": 3, "records": [{"loss": 0.5}]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "deeper" / "run.checkpoint"
    save_checkpoint(path, "this run", CONTENT)
    return path


def test_what_was_saved_is_loaded(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = load_checkpoint(path, "this run")
    assert content is not None
    assert torch.equal(content["weights"]["w"], CONTENT["weights"]["w"])
    assert content["epoch"] == 3
    assert content["records"] == [{"loss": 0.5}]
    assert capsys.readouterr().err == ""


def test_nothing_but_the_checkpoint_is_left_beside_it(path: Path) -> None:
    save_checkpoint(path, "this run", CONTENT)
    assert [file.name for file in path.parent.iterdir()] == ["run.checkpoint"]


def test_absent_is_no_news(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_checkpoint(tmp_path / "none", "this run") is None
    assert capsys.readouterr().err == ""


def test_checkpoint_of_another_run_is_ignored(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_checkpoint(path, "another run") is None
    assert "is of another run: ignored, training starts again" in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0, 10, 32, 1000, -1])
def test_cut_short_is_ignored_and_said_in_one_line(
    path: Path, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    cut_short(path, kept)
    assert load_checkpoint(path, "this run") is None
    said = capsys.readouterr().err
    assert "is cut short or altered: ignored, training starts again" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("position", [0, 31, 32, 2000, -1])
def test_an_altered_byte_is_noticed(path: Path, position: int) -> None:
    flip_a_bit(path, position)
    assert load_checkpoint(path, "this run") is None


def test_one_of_other_objects_is_set_aside_unopened(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(path, "this run", {"planted": Touch(tmp_path / "ran")})
    assert load_checkpoint(path, "this run") is None
    assert not (tmp_path / "ran").exists()
    [line] = capsys.readouterr().err.splitlines()
    assert "is refused (it holds posix.system" in line
    assert [file.name for file in path.parent.iterdir()] == ["run.checkpoint.refused"]
    save_checkpoint(path, "this run", CONTENT)
    assert load_checkpoint(path, "this run") is not None


@pytest.mark.parametrize("content", [[1, 2], {"format": 1}, torch.zeros(2)])
def test_one_that_is_no_checkpoint_is_set_aside(path: Path, content: object) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    path.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    assert load_checkpoint(path, "this run") is None
    assert not path.exists()


def test_where_it_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(MachineError, match=r"checkpoint '.*' cannot be written \(.+\); allowed"):
        save_checkpoint(tmp_path / "file" / "run.checkpoint", "this run", CONTENT)


def test_a_write_that_fails_keeps_the_last_checkpoint(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(MachineError, match="No space left on device"):
        save_checkpoint(path, "this run", {"epoch": 4})
    content = load_checkpoint(path, "this run")
    assert content is not None
    assert content["epoch"] == 3


# ---- large tensors, in files of their own


BANK = torch.arange(5000.0)


def test_a_large_tensor_lies_beside_the_checkpoint(path: Path) -> None:
    save_checkpoint(path, "this run", CONTENT, {"method/bank": BANK[:2000]})
    [part] = path.parent.glob("*.part")
    assert 8000 < part.stat().st_size < 12_000
    assert path.stat().st_size < part.stat().st_size
    content = load_checkpoint(path, "this run")
    assert content is not None
    assert torch.equal(content["references"]["method/bank"], BANK[:2000])


def test_one_that_stays_is_not_written_again_and_a_former_one_is_removed(path: Path) -> None:
    save_checkpoint(path, "this run", CONTENT, {"bank": BANK})
    [part] = path.parent.glob("*.part")
    written = part.stat().st_mtime_ns, part.stat().st_ino
    save_checkpoint(path, "this run", {"epoch": 4}, {"bank": BANK.clone()})
    assert (part.stat().st_mtime_ns, part.stat().st_ino) == written
    save_checkpoint(path, "this run", {"epoch": 5}, {"bank": BANK + 1})
    [other] = path.parent.glob("*.part")
    assert other != part
    remove_checkpoint(path)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("damage", ["removed", "altered"])
def test_a_checkpoint_whose_large_tensor_is_not_there_is_not_used(
    path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(path, "this run", CONTENT, {"bank": BANK})
    [part] = path.parent.glob("*.part")
    part.unlink() if damage == "removed" else flip_a_bit(part, 3000)
    assert load_checkpoint(path, "this run") is None
    assert "its bank is missing or altered, training starts again" in capsys.readouterr().err
