"""Examples as people look at them: a small picture, a text, or the cells of a row."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from kdplatform.data._dataset import inputs_at
from kdplatform.lazy import torch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kdplatform.data._dataset import Dataset

# Pixels of the longer side; a smaller picture keeps its size, which the page draws larger.
_SIDE = 96
# Up to this side PNG is as small as JPEG, and shows every pixel.
_LOSSLESS = 64
_QUALITY = 82
_LONGEST_TEXT = 600
_MOST_CELLS, _LONGEST_CELL = 12, 80
# Special tokens and the mark of a piece within a word, of tokenizers of BERT's kind.
_WITHIN_WORD = "##"


@dataclass(frozen=True)
class Preview:
    """One example; what it is not is empty.

    Attributes:
        image: a PNG or JPEG file.
        cells: names and values of a row.
    """

    image: bytes = b""
    text: str = ""
    cells: tuple[tuple[str, str], ...] = ()


def previews(dataset: Dataset, rows: NDArray[np.int64]) -> list[Preview]:
    """Returns examples of the test split as they are shown.

    Args:
        rows: places in the test split.
    """
    facts, split = dataset.facts(), dataset.test
    if facts.holds_images:
        inputs = inputs_at(split.inputs, rows)
        return [Preview(image=_picture(image)) for image in inputs[torch.arange(len(rows))]]
    if dataset.vocabulary is not None and dataset.vocabulary.tokens:
        ids = inputs_at(split.inputs, rows)
        assert isinstance(ids, torch.Tensor)
        return [Preview(text=_text(own.tolist(), dataset.vocabulary.tokens)) for own in ids]
    cells = split.columns if dataset.cells is None else dataset.cells
    chosen = cells.iloc[rows, :_MOST_CELLS]
    return [
        Preview(cells=tuple((str(n), str(v)[:_LONGEST_CELL]) for n, v in row.items()))
        for row in chosen.to_dict("records")
    ]


def _picture(image: torch.Tensor) -> bytes:
    """Returns a uint8 image [channels, height, width] as a file."""
    pixels = image.permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3])
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    if max(picture.size) <= _LOSSLESS:
        picture.save(file, "PNG", optimize=True)
    else:
        picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _text(ids: Sequence[int], tokens: Sequence[str]) -> str:
    """Returns token ids as text: pieces joined, without the marks around a text."""
    words: list[str] = []
    for number in ids:
        token = tokens[number] if number < len(tokens) else ""
        if token.startswith("[") and token.endswith("]") and token not in ("[", "]", "[UNK]"):
            continue
        if token.startswith(_WITHIN_WORD) and words:
            words[-1] += token.removeprefix(_WITHIN_WORD)
        elif token:
            words.append(token)
    text = " ".join(words)
    return text if len(text) <= _LONGEST_TEXT else f"{text[: _LONGEST_TEXT - 1]}…"
