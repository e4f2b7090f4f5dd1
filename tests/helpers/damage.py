"""What happens to files: a disk that was full, a bit that flipped, somebody who means harm."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.path}'",)


def with_records(source: Path, target: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """Copies an archive, every record changed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return target


def cut_short(path: Path, kept: int = -7) -> None:
    """Keeps that many bytes; a negative number is how many are lost."""
    path.write_bytes(path.read_bytes()[:kept])


def flip_a_bit(path: Path, position: int | None = None) -> None:
    """Flips a bit of the byte at the position, or of the middle one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)
