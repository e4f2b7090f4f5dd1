"""A study, a comparison or a search made visible: text, pages, tables and figures."""

import os
from contextlib import suppress

# Figures go to files, so the screen that MPLBACKEND names is never needed. A notebook sets it for
# all of its processes, and matplotlib does not load where that screen's package is missing.
_screen = os.environ.pop("MPLBACKEND", None)
import matplotlib as mpl  # noqa: E402

if _screen is not None:
    os.environ["MPLBACKEND"] = _screen
    with suppress(ValueError):
        mpl.rcParams["backend"] = _screen
