"""What a user sees while work goes on: bars on a terminal, single lines anywhere else."""

import sys
from typing import Any

from tqdm import tqdm


def say(message: str) -> None:
    """Prints one line to stderr without tearing a progress bar that is being drawn."""
    tqdm.write(message, file=sys.stderr)


def progress_bar(total: int, description: str, unit: str) -> "tqdm[Any]":
    """Returns a progress bar over `total` units that stays silent away from a terminal."""
    return tqdm(
        total=total,
        desc=description,
        unit=unit,
        unit_scale=True,
        disable=None,
        leave=False,
        dynamic_ncols=True,
    )
