"""Libraries that only some models and datasets need."""

import importlib
from typing import Any

from kdplatform.errors import UserError


def optional_module(module: str, *, needed_by: str, extra: str) -> Any:
    """Imports a library of one of the package's extras.

    Args:
        needed_by: the parameter that asks for it, with its value.
        extra: name of the extra that installs it.

    Raises:
        UserError: the library is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise UserError(
            f"{needed_by} needs the package {missing!r}; install it with: "
            f"pip install 'kdplatform[{extra}]'"
        ) from None
