"""Texts of the command line and of project files that stand for several values, or for none.

Any other value is returned unchanged, so that the field's own type checks it.
"""

import csv
from math import isfinite

_LONGEST_LIST = 10_000


def parse_integers(text: str) -> list[int]:
    """Parses `0-4`, `3`, `0,2,5-7` or `none` into integers.

    Raises:
        ValueError: a part is not an integer or a rising range, or the list would be very long.
    """
    parsed: list[int] = []
    for part in _parts(text):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"{part!r} is neither a number nor a range such as 0-4")
        if dash and int(high) < int(low):
            raise ValueError(f"{part!r} runs downwards")
        if int(high or low) - int(low) >= _LONGEST_LIST:
            raise ValueError(f"{part!r} is more than {_LONGEST_LIST} numbers")
        parsed.extend(range(int(low), int(high or low) + 1))
    return parsed


def integers(value: object) -> object:
    """Returns the integers of a text such as `0,2,5-7`, and a single integer as a tuple."""
    if isinstance(value, int):
        return (value,)
    return parse_integers(value) if isinstance(value, str) else value


def numbers(value: object) -> object:
    """Returns whole ranges and single numbers of a text such as `1-10,20,30.5`."""
    if isinstance(value, int | float):
        return (value,)
    if not isinstance(value, str):
        return value
    parsed: list[object] = []
    for part in _parts(value):
        parsed.extend(parse_integers(part) if "-" in part else [part])
    return parsed


def names(value: object) -> object:
    """Returns the names of a text such as `color,texture`. A name with a comma is quoted.

    Raises:
        ValueError: a quote is not closed, or text follows it.
    """
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "none":
        return ()
    try:
        [parts] = csv.reader([value], skipinitialspace=True, strict=True) if value else [[]]
    except (csv.Error, ValueError):
        raise ValueError('names are separated by commas; one with a comma: "a, b",c') from None
    return tuple(part.strip() for part in parts if part.strip())


def entries(value: object) -> object:
    """Returns the names of a text, or of a list in which YAML has read some as numbers."""
    if isinstance(value, list | tuple):
        return tuple(str(part) if type(part) is int else part for part in value)
    found = names(str(value) if type(value) is int else value)
    if found == () and str(value).strip().lower() != "none":
        raise ValueError("the list is empty")
    return found


def span(value: object) -> object:
    """Returns the two ends of a text such as `1,40`.

    Raises:
        ValueError: there are not two, or they fall.
    """
    if isinstance(value, str):
        value = tuple(float(part) for part in value.split(",") if part.strip())
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError("a range has two ends, such as 1,40")
    low, high = value
    if low > high:
        raise ValueError(f"the range is empty: {low:g} is above {high:g}")
    return low, high


def searched_fields(value: object) -> object:
    """Returns ranges by the names of their fields, sorted: (low, high, linear or log).

    Args:
        value: a block such as `distillation.beta: [0.5, 8, log]`, or as text
            `distillation.beta=0.5,8,log; distillation.gamma=1,4`.

    Raises:
        ValueError: a name or a range is missing, or a range cannot be searched.
    """
    if isinstance(value, str):
        parts = [] if value.strip().lower() == "none" else value.split(";")
        pairs = [part.partition("=")[::2] for part in parts if part.strip()]
        if len({name.strip() for name, _ in pairs}) != len(pairs):
            raise ValueError("a field is given twice")
        value = {name.strip(): ends for name, ends in pairs}
    if not isinstance(value, dict):
        raise ValueError("not a block of fields and their ranges")
    return {name: _searched_range(name, value[name]) for name in sorted(value, key=str)}


def _searched_range(name: object, ends: object) -> tuple[float, float, str]:
    parts = _parts(ends) if isinstance(ends, str) else ends
    said = f"{name}={ends!r}"
    scale = "linear"
    if isinstance(parts, list | tuple) and len(parts) == 3:
        *parts, scale = parts
    if not isinstance(parts, list | tuple) or len(parts) != 2 or scale not in ("linear", "log"):
        raise ValueError(f"{said} is no range; allowed: two ends, such as 0.5,8 or 0.5,8,log")
    try:
        if any(isinstance(end, bool) for end in parts):
            raise ValueError
        low, high = (float(end) for end in parts)
        if not (isfinite(low) and isfinite(high)):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{said} has an end that is no finite number") from None
    if low > high:
        raise ValueError(f"{said}: the range is empty")
    if scale == "log" and low <= 0:
        raise ValueError(f"{said}: a range on a log scale begins above 0")
    return low, high, scale


def channels(value: object) -> object:
    """Returns the numbers of a text such as `0.5,0.5,0.5`, a single number as a tuple, or None."""
    if isinstance(value, int | float):
        return (value,)
    value = optional(value)
    return tuple(_parts(value)) if isinstance(value, str) else value


def shares(value: object) -> object:
    """Returns the numbers of a text such as `1,2,1`, which may be equal; none of `none`."""
    if isinstance(value, int | float):
        return (value,)
    return tuple(_parts(value)) if isinstance(value, str) else value


def quotient(value: object) -> object:
    """Returns the number of a text such as `8/255`."""
    above, slash, below = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        return float(above) / float(below) if slash else value
    except (ValueError, ZeroDivisionError):
        return value


def optional(value: object) -> object:
    """Returns None for the text `none` or `null`."""
    return None if isinstance(value, str) and value.lower() in {"none", "null"} else value


def _parts(text: str) -> list[str]:
    """Returns the parts between the commas. `none` is an empty list."""
    return [] if text.strip().lower() == "none" else [part.strip() for part in text.split(",")]
