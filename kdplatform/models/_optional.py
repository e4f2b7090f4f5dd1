"""Libraries that only some families need."""

import importlib
from typing import Any

from kdplatform.errors import UserError


def optional_module(module: str, *, model: str, extra: str) -> Any:
    """Imports a library of one of the package's extras.

    Args:
        model: who needs it.
        extra: name of the extra that installs it.

    Raises:
        UserError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise UserError(
            f"model={model!r} needs the package {missing!r}; install it with: "
            f"pip install 'kdplatform[{extra}]'"
        ) from None
