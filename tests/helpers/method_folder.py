"""Methods in a folder of a test's own."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdplatform import methods


@contextlib.contextmanager
def method_folder(folder: Path, **files: str) -> Iterator[None]:
    """Has the package of methods look into one more folder, which holds these files."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
        for name in files:
            patch.delitem(sys.modules, f"{methods.__name__}.{name}", raising=False)
        yield
