"""What a model is trained for: one file per method.

A method is a module of this package, and its name is the module's. It defines one subclass of
`Method`, and a class `Config` with the method's own fields. `Config` is a subclass of
`DistillationConfig` if the method learns from a teacher, otherwise of `MethodConfig`. A method that
also works without a teacher has the fields for that case in a second class `WithoutTeacher`, a
subclass of `MethodConfig`. Reading the fields must not load torch. A method's file therefore takes
`torch` and `functional` from `kdplatform.lazy`.
"""

import importlib
import inspect
import pkgutil
from typing import Any

from kdplatform.errors import MachineError, unknown_name
from kdplatform.methods._interface import Batch, Loss, Method, Needs, Output, Run
from kdplatform.settings.schema import DistillationConfig, MethodConfig

__all__ = [
    "Batch",
    "Loss",
    "Method",
    "Needs",
    "Output",
    "Run",
    "build_method",
    "method_class",
    "method_config_class",
    "method_config_classes",
    "method_names",
]


def method_names() -> tuple[str, ...]:
    """Returns the names of all methods: the modules of this package.

    Raises:
        MachineError: two folders of the package have a method of the same name.
    """
    found: dict[str, str] = {}
    for folder in __path__:
        for module in pkgutil.iter_modules([folder]):
            if module.name.startswith("_"):
                continue
            if module.name in found:
                raise MachineError(
                    f"method {module.name!r} exists twice: in {found[module.name]} and {folder}; "
                    "allowed: one file per name"
                )
            found[module.name] = folder
    return tuple(sorted(found))


def method_config_class(name: str) -> type[MethodConfig]:
    """Returns the class of a method's fields; those with a teacher if it can learn from one.

    Raises:
        UserError: there is no method of this name.
        MachineError: its file has no fields to offer, or belongs to another name.
    """
    classes = method_config_classes(name)
    return classes.get(True) or classes[False]


def method_config_classes(name: str) -> dict[bool, type[MethodConfig]]:
    """Returns the classes of a method's fields, by whether it learns from a teacher.

    Raises:
        UserError: there is no method of this name.
        MachineError: its file has no fields to offer, or belongs to another name.
    """
    module = _module(name)
    classes: dict[bool, type[MethodConfig]] = {}
    for kind in ("Config", "WithoutTeacher"):
        own = getattr(module, kind, None)
        if own is None and classes:
            continue
        if not (inspect.isclass(own) and issubclass(own, MethodConfig)):
            raise MachineError(
                f"{module.__file__} has no class {kind}; allowed: one of MethodConfig"
            )
        if own.model_fields["method"].default != name:
            raise MachineError(
                f"{module.__file__}: the field method of {kind} is "
                f"{own.model_fields['method'].default!r}; allowed: {name!r}, as the file is named"
            )
        classes[issubclass(own, DistillationConfig)] = own
    return classes


def method_class(name: str) -> type[Method[Any]]:
    """Returns the class of a method.

    Raises:
        UserError: there is no method of this name.
        MachineError: its file defines none, or several.
    """
    module = _module(name)
    own = [
        entry
        for entry in vars(module).values()
        if inspect.isclass(entry)
        and issubclass(entry, Method)
        and entry.__module__ == module.__name__
        and not entry.__name__.startswith("_")
    ]
    if len(own) != 1:
        raise MachineError(f"{module.__file__} has {len(own)} subclasses of Method; allowed: one")
    return own[0]


def build_method(config: MethodConfig) -> Method[Any]:
    """Builds the method that a configuration names."""
    return method_class(config.method)(config)


def _module(name: str) -> Any:
    if name not in method_names():
        raise unknown_name("method", name, method_names())
    return importlib.import_module(f"{__name__}.{name}")
