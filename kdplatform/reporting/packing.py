"""What a page holds beside its text, packed so that it stays small: compressed, as base64.

A browser unpacks it in a few hundredths of a second, and nothing in it can end a tag of the page.
"""

import base64
import gzip
import hashlib
from functools import cache
from typing import NamedTuple


class Bundle(NamedTuple):
    """Plotly's script.

    Attributes:
        packed: as the page holds it.
        digest: of its text, as a content security policy names it.
    """

    packed: str
    digest: str


def packed(content: bytes) -> str:
    """Returns bytes compressed, as text; equal bytes give equal text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


@cache
def plotly_bundle() -> Bundle:
    """Returns the one bundle that draws every figure of a page, its licence on top."""
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs().encode()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return Bundle(packed(script), f"sha256-{digest}")
