"""Models that a user's own function builds, named `module:function` or `file.py:function`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from kdplatform.data import DataFacts
from kdplatform.errors import UserError, one_line
from kdplatform.files import not_there, user_path
from kdplatform.lazy import torch

_NAME = re.compile(r"(.+\.py|[A-Za-z_][\w.]*):([A-Za-z_]\w*)")
_ALLOWED = (
    "module:function of a module in the working directory or of an installed package, or the path "
    "of a file, /folder/mine.py:function (`mlflow run` works in the platform's folder)"
)


def is_user_model(name: str) -> bool:
    """Returns whether a model's name names a user's function."""
    return _NAME.fullmatch(name) is not None


def by_content(name: str) -> str:
    """Returns a name without the folder of its file: the location of code decides no numbers."""
    place, _, function = name.rpartition(":")
    return f"{Path(place).stem}:{function}" if place.endswith(".py") else name


def with_absolute_file(name: str) -> str:
    """Returns a name that means the same function from any working directory, if it has a file."""
    place, _, function = name.rpartition(":")
    return f"{_file(name, place).resolve()}:{function}" if place.endswith(".py") else name


def user_model(name: str, facts: DataFacts) -> torch.nn.Module:
    """Builds the user's model, from the dataset's raw inputs to logits, for these data.

    The module of `module:function` may also be in the working directory.

    Raises:
        UserError: there is no such function, it fails, or it does not return a module.
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
    """Returns the SHA-256 of the function's file, on which the model that it builds may depend.

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
    place, function_name = found.groups()
    file = _file(name, place) if place.endswith(".py") else None
    # The `kdplatform` command, unlike `python -m`, does not search the working directory.
    here = str(Path.cwd() if file is None else file.resolve().parent)
    if here not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(place) if file is None else _module(file)
        function = getattr(module, function_name)
    except Exception as error:
        raise UserError(
            f"model={name!r} cannot be imported ({_reason(error)}); allowed: {_ALLOWED}"
        ) from None
    if not callable(function):
        raise UserError(f"model={name!r} is no function; allowed: module:function")
    return cast(Callable[[DataFacts], Any], function)


def _file(name: str, place: str) -> Path:
    path = user_path("model", place)
    if not path.is_file():
        raise not_there("model", name, path, _ALLOWED)
    return path


def _module(path: Path) -> ModuleType:
    """Imports a file as a module, under a name that no other module has."""
    name = f"file {path.resolve()}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
