"""Which builds the cache keeps."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kdplatform.kernels import cache

USER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])  # the module alone, for the package takes seconds to import
import cache
cache.hold(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def builds(tmp_path: Path) -> list[Path]:
    """Six builds, the first used longest ago."""
    folders = [tmp_path / "kernels" / f"build{index}" for index in range(6)]
    for age, folder in enumerate(reversed(folders)):
        folder.mkdir(parents=True)
        (folder / "library.so").touch()
        os.utime(folder, times=(1e9 - age, 1e9 - age))
    return folders


def another_process_holding(folder: Path) -> subprocess.Popen[bytes]:
    """Holds a build until its input ends."""
    command = [sys.executable, "-c", USER, str(folder), str(Path(cache.__file__).parent)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


def test_the_last_used_are_kept(builds):
    assert cache.prune(builds[0].parent, keep=4) == [builds[1], builds[0]]
    assert names(builds[0].parent) == {"build2", "build3", "build4", "build5"}
    assert not list(builds[0].parent.glob("build0*"))


def test_use_counts_from_the_last_time(builds):
    with another_process_holding(builds[0]) as user:
        user.communicate()
    assert cache.prune(builds[0].parent, keep=1) == builds[:0:-1]
    assert names(builds[0].parent) == {"build0"}


def test_what_another_process_uses_stays_until_it_ends(builds):
    with another_process_holding(builds[0]) as user:
        assert user.stdout.readline() == b"held\n"
        assert builds[0] not in cache.prune(builds[0].parent, keep=0)
        assert (builds[0] / "library.so").exists()
        user.communicate()
    assert cache.prune(builds[0].parent, keep=0) == [builds[0]]


def test_what_this_process_uses_stays(builds, monkeypatch):
    monkeypatch.setattr(cache, "_held", {})
    cache.hold(builds[1])
    os.utime(builds[1].with_name("build1.users"), times=(0, 0))
    cache.prune(builds[1].parent, keep=0)
    assert names(builds[0].parent) == {"build1"}
    os.close(cache._held.popitem()[1])


def test_a_build_that_begins_is_in_use_before_there_is_a_library(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_held", {})
    folder = tmp_path / "kernels" / "new"
    cache.hold(folder)
    assert cache.prune(folder.parent, keep=0) == []
    assert folder.is_dir()
    os.close(cache._held.popitem()[1])
