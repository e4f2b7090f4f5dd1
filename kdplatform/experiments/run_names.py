"""The names of runs in the sides of a comparison."""

import re
from typing import NamedTuple

# A run, or its predictions under one of its conditions.
_RUN = re.compile(r"([0-9a-f]{32})(?:@([A-Za-z0-9_.-]+))?")


class NamedRun(NamedTuple):
    """A run named by a side; `condition` is empty for the unchanged test split."""

    run_id: str
    condition: str


def named_run(name: str) -> NamedRun | None:
    """Returns the run of a name such as `RUN` or `RUN@condition`; None for a file."""
    found = _RUN.fullmatch(name)
    if found is None:
        return None
    return NamedRun(found[1], "" if found[2] in (None, "clean") else found[2])
