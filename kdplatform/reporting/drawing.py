"""Drawing of all figures: in the platform's style, with names as plain text."""

import io
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font

from kdplatform.text import visible

DPI = 100
_FONT = "DejaVu Sans"  # part of matplotlib
_LONGEST_NAME = 24
_LONGEST_TITLE = 160


@contextmanager
def own_style() -> Iterator[None]:
    """Draws in matplotlib's default style without formulas, whatever files and scripts have set.

    A name with two dollar signs stays a name. Use it around both building and drawing a figure.
    """
    # Only parameters that differ are set, because matplotlib takes 30 ms to check all of them.
    changed: dict[Any, Any] = {
        name: value
        for name, value in dict.items(mpl.rcParamsDefault)
        if name != "backend" and dict.__getitem__(mpl.rcParams, name) != value
    }
    with mpl.rc_context(changed | {"text.parse_math": False}):
        yield


@own_style()
def figure_png(figure: Figure, dpi: int = DPI) -> bytes:
    """Returns a figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def figure_text(text: str, longest: int = _LONGEST_TITLE) -> str:
    r"""Returns a text that a figure can show.

    Characters without a glyph in the font become their code, such as `\u732b`.
    """
    plain = "".join(
        char if ord(char) in _glyphs() else char.encode("unicode_escape").decode()
        for char in visible(text)
    )
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def figure_names(names: Sequence[object], kind: str) -> list[str]:
    """Returns distinct names of classes, groups or attributes that a figure can show.

    Names without glyphs in the font, and names that are equal after they are cut to fit, become
    their kind and number. `names_by_number` is the legend.
    """
    return [
        f"{kind} #{number}" if text is None else text for number, text in enumerate(_drawn(names))
    ]


def names_by_number(names: Sequence[object], kind: str) -> str:
    """Returns a sentence with the names that figures show by number, empty without any."""
    found = [
        f"{kind} #{number}: {names[number]}"
        for number, text in enumerate(_drawn(names))
        if text is None
    ]
    return (
        (f"Names shown by number, because they lack glyphs or room: {'; '.join(found)}.")
        if found
        else ""
    )


def _drawn(names: Sequence[object]) -> list[str | None]:
    """Returns names as they are drawn; None for a name that only its number can distinguish."""
    shown = [figure_text(str(name), _LONGEST_NAME) for name in names]
    count = Counter(shown)
    has_glyphs = (all(ord(char) in _glyphs() for char in visible(name)) for name in names)
    return [
        text if known and count[text] == 1 else None
        for text, known in zip(shown, has_glyphs, strict=True)
    ]


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(_FONT)).get_charmap())
