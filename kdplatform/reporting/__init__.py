"""A study, a comparison or a search made visible: text, pages, tables and figures."""

import os
import sys
from contextlib import suppress

# Figures go to files, so the backend that MPLBACKEND names is never needed. A notebook sets this
# variable for all of its processes, and matplotlib does not load if the backend's package is
# missing.
if "MPLBACKEND" in os.environ and "matplotlib" not in sys.modules:
    _screen = os.environ.pop("MPLBACKEND")
    import matplotlib as mpl

    os.environ["MPLBACKEND"] = _screen
    with suppress(ValueError):
        mpl.rcParams["backend"] = _screen
