"""Names that the modules of a package register for what they define."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from kdplatform.errors import unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """The things a package's modules define, by name; a new one is a new file and nothing else.

    Args:
        parameter: what a user calls such a name, for the error about one that does not exist.
        package: dotted name of the package whose modules are imported on the first question.
    """

    def __init__(self, parameter: str, package: str) -> None:
        self._parameter = parameter
        self._package = package
        self._entries: dict[str, T] = {}
        self._complete = False

    def register(self, *names: str) -> Callable[[T], T]:
        """Returns a decorator that registers what it decorates under each of the names.

        Raises:
            ValueError: a name is already taken.
        """

        def decorate(entry: T) -> T:
            for name in names:
                if name in self._entries:
                    raise ValueError(f"{self._parameter} {name!r} is registered twice")
                self._entries[name] = entry
            return entry

        return decorate

    def names(self) -> tuple[str, ...]:
        """Returns all names in alphabetical order."""
        return tuple(sorted(self._all()))

    def get(self, name: str) -> T:
        """Returns what is registered under the name.

        Raises:
            UserError: nothing is; the message has the nearest names and all of them.
        """
        entries = self._all()
        if name not in entries:
            raise unknown_name(self._parameter, name, entries)
        return entries[name]

    def _all(self) -> dict[str, T]:
        if not self._complete:
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
            self._complete = True
        return self._entries
