"""How every figure is drawn: in a style of its own, with names as they are written."""

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
_FONT = "DejaVu Sans"  # comes with matplotlib
_LONGEST_NAME = 24
_LONGEST_TITLE = 160


@contextmanager
def own_style() -> Iterator[None]:
    """Draws in matplotlib's own style, whatever files and scripts have set, and without formulas.

    A name with two dollars is a name. Around both the making of a figure and its drawing.
    """
    # Only what differs: matplotlib takes 30 ms to check all of its parameters.
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
    r"""Returns a text as a figure can show it.

    Characters without a glyph in the font become their code, such as `\u732b`.
    """
    plain = "".join(
        char if ord(char) in _glyphs() else char.encode("unicode_escape").decode()
        for char in visible(text)
    )
    return plain if len(plain) <= longest else f"{plain[: longest - 1]}…"


def figure_names(names: Sequence[object], kind: str) -> list[str]:
    """Returns names of classes, groups or attributes as a figure shows them: all different.

    Some names become their kind and number: names without glyphs in the font, and names that are
    equal once cut to fit. `names_by_number` is the legend.
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
    return f"By number, for want of glyphs or room: {'; '.join(found)}." if found else ""


def _drawn(names: Sequence[object]) -> list[str | None]:
    """Returns names as they are drawn, None for one that can only be told by its number."""
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
