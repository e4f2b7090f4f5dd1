"""Synthetic studies, whose truth is known."""

import sys
from pathlib import Path

# Tests are no package.
sys.path.insert(0, str(Path(__file__).parent.parent))

from synthetic_studies import generator, synthetic

__all__ = ["generator", "synthetic"]
