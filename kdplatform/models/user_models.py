"""Models that a user's own function builds, named `module:function`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from kdplatform.data import DataFacts
from kdplatform.errors import UserError, one_line
from kdplatform.lazy import torch

_NAME = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def is_user_model(name: str) -> bool:
    """Tells whether a model's name is one of a user's function."""
    return _NAME.fullmatch(name) is not None


def user_model(name: str, facts: DataFacts) -> torch.nn.Module:
    """Builds the user's model, from the dataset's raw inputs to logits, by what the data are.

    The module of `module:function` is looked for in the working directory too.

    Raises:
        UserError: there is no such function, it fails, or it returns something else than a module.
    """
    function = _function(name)
    try:
        model = function(facts)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"model={name!r} failed: {_reason(error)}") from error
    if not isinstance(model, torch.nn.Module):
        kind = type(model).__name__
        raise UserError(f"model={name!r} returned a {kind}; allowed: a torch.nn.Module")
    return model


def user_model_digest(name: str) -> str:
    """Returns the SHA-256 of the file that holds the function: what it builds may follow from it.

    Raises:
        UserError: there is no such function.
    """
    try:
        source = inspect.getsourcefile(_function(name))
    except TypeError:  # a function of a compiled module
        source = None
    content = Path(source).read_bytes() if source else name.encode()
    return hashlib.sha256(content).hexdigest()


def _function(name: str) -> Callable[[DataFacts], Any]:
    found = _NAME.fullmatch(name)
    assert found, name
    module_name, function_name = found.groups()
    # The `kdplatform` command, unlike `python -m`, does not look in the working directory.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:
        raise UserError(
            f"model={name!r} cannot be imported ({_reason(error)}); allowed: module:function of a "
            "module in the working directory or of an installed package"
        ) from None
    if not callable(function):
        raise UserError(f"model={name!r} is no function; allowed: module:function")
    return cast(Callable[[DataFacts], Any], function)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
