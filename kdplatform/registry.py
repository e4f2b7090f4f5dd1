"""Names that the modules of a package register, and optional libraries of some of them."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from kdplatform.errors import UserError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """The entries that a package's modules define, by name. A new entry is only a new file.

    Names are read from the source of the modules. A module is imported at the first request for one
    of its entries, so listing names loads no library that a module needs.

    Args:
        parameter: the user's word for such a name, for errors.
        package: dotted name of the package.
        functions: the functions whose calls in the package's modules register names. All their
            positional arguments are names, as string literals. Default: `register_<parameter>`.
    """

    def __init__(self, parameter: str, package: str, *functions: str) -> None:
        self._parameter = parameter
        self._package = package
        self._functions = functions or (f"register_{parameter}",)
        self._entries: dict[str, T] = {}

    def register(self, *names: str) -> Callable[[T], T]:
        """Returns a decorator that registers its object under each of the names.

        Raises:
            UserError: a name is already taken.
        """

        def decorate(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise UserError(f"{self._parameter} {name!r} is registered twice")
                self._entries[name] = entry
            return entry

        return decorate

    def names(self) -> tuple[str, ...]:
        """Returns all names in alphabetical order.

        Raises:
            UserError: two modules register the same name, or one is not valid Python; names the
                files.
        """
        return tuple(sorted({*self._modules(), *self._entries}))

    def get(self, name: str) -> T:
        """Returns the entry of the name.

        Raises:
            UserError: there is none; the message lists the nearest names, then all.
        """
        if name not in self._entries:
            modules = self._modules()
            if name not in modules:
                raise unknown_name(self._parameter, name, self.names())
            importlib.import_module(f"{self._package}.{modules[name]}")
        return self._entries[name]

    def _modules(self) -> dict[str, str]:
        folders = tuple(importlib.import_module(self._package).__path__)
        return _registering_modules(self._parameter, folders, self._functions)


@cache
def _registering_modules(
    parameter: str, folders: tuple[str, ...], functions: tuple[str, ...]
) -> dict[str, str]:
    """Returns the module that registers each name."""
    files: dict[str, Path] = {}
    for file in sorted(file for folder in folders for file in Path(folder).glob("*.py")):
        for name in _registered_names(file, functions):
            if name in files:
                raise UserError(
                    f"{parameter} {name!r} is registered twice, in {str(files[name])!r} and "
                    f"{str(file)!r}; allowed: once"
                )
            files[name] = file
    return {name: file.stem for name, file in files.items()}


def _registered_names(file: Path, functions: tuple[str, ...]) -> Iterator[str]:
    try:
        tree = ast.parse(file.read_bytes())
    except SyntaxError as error:
        raise UserError(f"{str(file)!r}, line {error.lineno}: {error.msg}") from None
    for call in _calls_at_import(tree):
        if not (isinstance(call.func, ast.Name) and call.func.id in functions):
            continue
        for argument in call.args:
            if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
                raise UserError(
                    f"{str(file)!r}, line {argument.lineno}: {call.func.id} takes names as string "
                    "literals, so that they are known without importing the file"
                )
            yield argument.value


def _calls_at_import(tree: ast.AST) -> Iterator[ast.Call]:
    """Yields the calls that run at the import of the module, in no particular order."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call):
            yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending += node.decorator_list
        else:
            pending += ast.iter_child_nodes(node)


def optional_module(module: str, *, needed_by: str, extra: str) -> Any:
    """Imports a library of one of the package's extras.

    Args:
        needed_by: the parameter that needs it, with its value.
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
