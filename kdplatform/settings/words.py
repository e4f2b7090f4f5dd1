"""Configuration fields in words, for `--help` and error messages."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kdplatform.settings.schema.notation import Notation


def plain_text(value: object) -> str:
    """Returns a value in the form of the command line."""
    if isinstance(value, tuple | list):
        return ",".join(_quoted(plain_text(part)) for part in value) or "none"
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        return "; ".join(f"{name}: {_fields_text(part)}" for name, part in value.items())
    if isinstance(value, dict):
        return "; ".join(f"{name}={plain_text(part)}" for name, part in value.items()) or "none"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        levels = round(255 * value)
        # A distance between images: the short form would be another number.
        exact = float(f"{value:g}") == value or levels / 255 != value
        return f"{value:g}" if exact else f"{levels}/255"
    return str(value)


def _fields_text(fields: dict[str, object]) -> str:
    return ", ".join(f"{name}={plain_text(value)}" for name, value in fields.items())


def in_ranges(values: Sequence[float]) -> str:
    """Returns numbers as they are given, with ranges where whole ones follow each other.

    >>> in_ranges((1, 2, 3, 4, 10, 30.5))
    '1-4,10,30.5'
    """
    runs: list[list[float]] = []
    for value in values:
        follows = runs and value == runs[-1][-1] + 1 and float(value).is_integer()
        if follows:
            runs[-1].append(value)
        else:
            runs.append([value])
    parts = []
    for run in runs:
        long = len(run) > 2
        parts += [f"{run[0]:g}-{run[-1]:g}"] if long else [f"{value:g}" for value in run]
    return ",".join(parts)


def _quoted(text: str) -> str:
    """Returns a part of a list, in quotes if its plain text would be read as something else."""
    if "," in text or text.startswith('"') or text.lower() == "none":
        return '"' + text.replace('"', '""') + '"'
    return text


def allowed(field: FieldInfo) -> str:
    """Describes the values of a field, such as `integer >= 1` or `sgd | adamw`."""
    for own in field.metadata:
        if isinstance(own, Notation):
            bounds = _bounds(get_args(get_args(field.annotation)[0])[1:]) if own.bounded else ""
            return f"{own.words}, each {bounds}" if bounds else own.words
    return _type_words(field.annotation, field.metadata)


def _type_words(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *extra = get_args(annotation)
        return _type_words(inner, [*metadata, *extra])
    if origin is Literal:
        return " | ".join(str(choice) for choice in get_args(annotation))
    if origin in (Union, UnionType):
        return " | ".join(_type_words(part) for part in get_args(annotation))
    if origin is dict and isinstance(get_args(annotation)[1], type):
        return "name: field=value, ...; one or several"
    if origin is dict:
        return "field=low,high or field=low,high,log; one or several"
    if origin is tuple:
        return f"list of {_type_words(get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "name"
    words = {int: "integer", float: "number", bool: "true | false", str: "text", Path: "path"}
    base = words.get(annotation, "none" if annotation is type(None) else str(annotation))
    return f"{base} {_bounds(metadata)}".strip()


def _bounds(metadata: Sequence[Any]) -> str:
    signs = {
        annotated_types.Gt: (">", "gt"),
        annotated_types.Ge: (">=", "ge"),
        annotated_types.Lt: ("<", "lt"),
        annotated_types.Le: ("<=", "le"),
    }
    # Inside a list or an optional value the bounds are one level deeper.
    flat = [
        m for item in metadata for m in (item.metadata if isinstance(item, FieldInfo) else [item])
    ]
    bounds = [(*signs[type(m)], m) for m in flat if type(m) in signs]
    return " and ".join(f"{sign} {in_digits(getattr(bound, name))}" for sign, name, bound in bounds)


def in_digits(number: float) -> str:
    """Returns a number without an exponent.

    >>> [in_digits(number) for number in (1e-6, 1e6, 0.5, 3)]
    ['0.000001', '1000000', '0.5', '3']
    """
    text = f"{Decimal(str(number)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
