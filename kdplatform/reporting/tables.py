"""Tables as plain text."""

from collections.abc import Sequence

import pandas as pd

from kdplatform.text import visible, without_formula

EMPTY = "-"


def percent(values: Sequence[float], digits: int = 2, scale: float = 100.0) -> str:
    """Returns fractions in per cent: the value, or mean ± standard deviation of several."""
    known = scale * pd.Series(values, dtype=float).dropna()
    if known.empty:
        return EMPTY
    spread = f" ± {known.std(ddof=1):.{digits}f}" if len(known) > 1 else ""
    return f"{known.mean():.{digits}f}{spread}"


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table whose first column is aligned left and whose numbers are aligned right."""
    cells = [[visible(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in cells
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def csv_text(frame: pd.DataFrame) -> str:
    """Returns a table as CSV in which every name is text, in a terminal and in a spreadsheet."""

    def cell(value: object) -> object:
        return without_formula(visible(value)) if isinstance(value, str) else value

    return frame.map(cell).rename(columns=cell).to_csv(index=False)
