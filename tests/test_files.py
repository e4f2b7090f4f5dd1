"""Files are whole or absent, and a cache is checked before it is believed."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from helpers.damage import cut_short, flip_a_bit

from kdplatform.errors import MachineError, UserError
from kdplatform.files import (
    file_digest,
    home_folder,
    is_whole,
    load_arrays,
    locked,
    not_there,
    remove_left_overs,
    save_arrays,
    scratch_folder,
    use_scratch,
    user_path,
    writable_folder,
    written_atomically,
)

FileLimit = Callable[[int], AbstractContextManager[None]]
ARRAYS = {"images": np.arange(60, dtype=np.uint8).reshape(5, 12), "logits": np.eye(3)}


def in_a_process(code: str, *arguments: object) -> int:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)]).returncode


def test_a_written_file_has_the_content_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with written_atomically(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("name", ["best.yaml", "猫" * 80])
def test_the_next_writer_removes_what_a_killed_one_left_and_nothing_of_a_live_one(
    tmp_path: Path, name: str
) -> None:
    target = tmp_path / name
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from kdplatform.files import written_atomically\n"
        "with written_atomically(Path(sys.argv[1])):\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert in_a_process(code, target) == -signal.SIGKILL
    [left_over] = tmp_path.iterdir()
    with written_atomically(target.with_suffix(".live")) as live:
        assert not left_over.exists()
        with written_atomically(target) as temporary:
            temporary.write_text("new")
        assert live.exists()
    assert sorted(tmp_path.iterdir()) == sorted([target, target.with_suffix(".live")])
    assert target.read_text() == "new"


def test_a_block_that_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")

    def fail() -> None:
        with written_atomically(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    target, other = tmp_path / "file[1].txt", tmp_path / ".file2.txt.abc"
    kill = "import os, signal, sys; from pathlib import Path; "
    kill += "from kdplatform.files import written_atomically as w; "
    kill += "block = w(Path(sys.argv[1])); block.__enter__(); os.kill(os.getpid(), signal.SIGKILL)"
    target.write_text("old")
    other.write_text("another's")
    assert in_a_process(kill, target) == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 3
    remove_left_overs(target)
    assert sorted(tmp_path.iterdir()) == sorted([target, other])


def test_a_process_killed_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from kdplatform.files import written_atomically\n"
        "with written_atomically(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert in_a_process(code, target) == -signal.SIGKILL
    assert target.read_text() == "old"


def test_arrays_come_back_as_they_were_saved(tmp_path: Path) -> None:
    save_arrays(tmp_path / "cache.npz", ARRAYS)
    loaded = load_arrays(tmp_path / "cache.npz")
    assert loaded is not None
    assert loaded.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype


def test_nothing_saved_is_no_error(tmp_path: Path) -> None:
    assert load_arrays(tmp_path / "cache.npz") is None
    assert not is_whole(tmp_path / "cache.npz")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def without_digest(path: Path) -> None:
    path.with_name(path.name + ".sha256").unlink()


def with_foreign_digest(path: Path) -> None:
    path.with_name(path.name + ".sha256").write_bytes(b"\xff\xfe nothing")


@pytest.mark.parametrize(
    "damage", [cut_short, flip_a_bit, emptied, without_digest, with_foreign_digest]
)
def test_a_cache_that_is_not_what_was_written_is_said_and_counts_as_none(
    damage: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "cache.npz"
    save_arrays(path, ARRAYS)
    damage(path)
    assert load_arrays(path) is None
    assert capsys.readouterr().err == f"{path} is damaged or altered; it is made again\n"


def test_a_full_disk_leaves_the_old_cache_and_nothing_beside_it(
    tmp_path: Path, largest_file: FileLimit
) -> None:
    path = tmp_path / "cache.npz"
    save_arrays(path, ARRAYS)
    before = {p.name: file_digest(p) for p in tmp_path.iterdir()}
    with largest_file(10_000), pytest.raises(OSError, match="File too large"):
        save_arrays(path, {"images": np.zeros(50_000, np.uint8)})
    assert {p.name: file_digest(p) for p in tmp_path.iterdir()} == before


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    folder = writable_folder("data_folder", tmp_path / "a" / "b")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("place", ["below_a_file", "proc"])
def test_a_folder_that_cannot_be_written_is_named_with_its_parameter(
    place: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "x" if place == "below_a_file" else Path("/proc/kdplatform")
    with pytest.raises(MachineError) as caught:
        writable_folder("data_folder", folder)
    assert str(caught.value).startswith(f"data_folder={str(folder)!r} cannot be written (")
    assert "; allowed: " in str(caught.value)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"KDPLATFORM_HOME": "/data/kd", "XDG_CACHE_HOME": "/cache"}, "/data/kd"),
        ({"XDG_CACHE_HOME": "/cache"}, "/cache/kdplatform"),
        ({"HOME": "/home/me"}, "/home/me/.cache/kdplatform"),
        ({"HOME": "/home/me", "KDPLATFORM_HOME": "~/kd"}, "/home/me/kd"),
    ],
)
def test_the_home_folder_follows_the_environment(
    variables: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KDPLATFORM_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert home_folder() == Path(folder)


def test_whoever_comes_second_to_a_lock_says_so_and_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, order = tmp_path / "locks" / "key.lock", []

    def second() -> None:
        with locked(path, "somebody is at it; waiting"):
            order.append("second")

    with locked(path, "nobody else is there"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(timeout=0.3)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert capsys.readouterr().err.splitlines() == ["somebody is at it; waiting"]


@pytest.mark.parametrize("kind", ["a link", "a folder"])
def test_what_cannot_be_a_lock_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "key.lock"
    path.symlink_to(tmp_path / "elsewhere") if kind == "a link" else path.mkdir()
    with (
        pytest.raises(MachineError, match=r"^lock '.*/key.lock' cannot be taken \(.+\); allowed: "),
        locked(path, "nobody"),
    ):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_killed_process_made_is_gone_after_the_next_start(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from kdplatform.files import scratch_folder, use_scratch\n"
        "use_scratch(Path(sys.argv[1]))\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'weights.pt').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert in_a_process(code, tmp_path) == -signal.SIGKILL
    assert list(tmp_path.rglob("weights.pt"))
    use_scratch(tmp_path)
    assert list((tmp_path / "scratch").iterdir()) == []
    with scratch_folder() as folder:
        assert folder.parent == tmp_path / "scratch"
    assert not folder.exists()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from kdplatform.files import locked\n"
        "with locked(Path(sys.argv[1]), 'held'):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert in_a_process(code, tmp_path / "lock") == -signal.SIGKILL
    with locked(tmp_path / "lock", "held by the dead"):
        pass


def test_what_is_written_can_be_read_by_whom_the_user_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with written_atomically(tmp_path / "shared") as temporary:
            temporary.write_text("table")
    finally:
        os.umask(before)
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "~nosuchuser/a.csv",
            r"^file='~nosuchuser/a\.csv' cannot be used as a path \(.*\); allowed",
        ),
        (
            "a" * 300,
            r"^file='a{97}\.\.\.' cannot be used as a path \(File name too long\); allowed",
        ),
        ("a\0b", r"^file='a\\x00b' cannot be used as a path \(embedded null"),
    ],
)
def test_a_path_that_no_system_takes_is_refused(value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        user_path("file", value)


def test_a_path_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    for name in ("nowhere/at/all", "file", "file/below"):
        assert user_path("out", f"~/{name}") == tmp_path / name


def test_where_a_relative_path_was_looked_for_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    assert str(not_there("file", str(path), path, "a file")) == (
        f"file={str(path)!r} is no file; allowed: a file"
    )
    assert str(not_there("root", "a", Path("a"), "a folder", kind="folder")) == (
        f"root='a' is no folder (looked at {str(Path.cwd() / 'a')!r}); allowed: a folder"
    )
