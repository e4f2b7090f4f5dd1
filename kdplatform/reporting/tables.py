"""Tables as plain text."""

import math
from collections.abc import Sequence

import pandas as pd

EMPTY = "-"


def percent(values: Sequence[float]) -> str:
    """Returns fractions in per cent: the value, or mean ± standard deviation of several."""
    known = [100 * value for value in values if not math.isnan(value)]
    if not known:
        return EMPTY
    series = pd.Series(known)
    if len(known) == 1:
        return f"{known[0]:.2f}"
    return f"{series.mean():.2f} ± {series.std(ddof=1):.2f}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose first column is aligned left and whose numbers are aligned right."""
    cells = [list(header), *map(list, rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in cells
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])
