"""Compression of the data and scripts of a page, as base64 text.

A browser unpacks them in a few hundredths of a second, and nothing in them can end a tag of the
page.
"""

import base64
import gzip
import hashlib
from functools import cache
from typing import NamedTuple


class Bundle(NamedTuple):
    """Plotly's script.

    Attributes:
        packed: compressed, as in the page.
        digest: digest of its text, in the form of a content security policy.
    """

    packed: str
    digest: str


def packed(content: bytes) -> str:
    """Returns bytes compressed, as text; equal bytes give equal text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


@cache
def plotly_bundle() -> Bundle:
    """Returns the bundle that draws all figures of a page, with its licence at the top."""
    from plotly.offline import get_plotlyjs

    script = get_plotlyjs().encode()
    digest = base64.b64encode(hashlib.sha256(script).digest()).decode()
    return Bundle(packed(script), f"sha256-{digest}")
