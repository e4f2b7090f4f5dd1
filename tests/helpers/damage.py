"""What happens to files: a disk that was full, a bit that flipped."""

from pathlib import Path


def cut_short(path: Path, kept: int = -7) -> None:
    """Keeps that many bytes; a negative number is how many are lost."""
    path.write_bytes(path.read_bytes()[:kept])


def flip_a_bit(path: Path, position: int | None = None) -> None:
    """Flips a bit of the byte at the position, or of the middle one."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)
