"""Texts of the command line that stand for several values, or for none.

The functions leave everything that is no such text as it is, for the field's own type to judge.
"""

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
    """Returns the integers of a text such as `0,2,5-7`, and a single one as a tuple."""
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
    """Returns the names of a text such as `color,texture`."""
    if not isinstance(value, str):
        return value
    return tuple(part for part in _parts(value) if part)


def optional(value: object) -> object:
    """Returns None for the text `none` or `null`."""
    return None if isinstance(value, str) and value.lower() in {"none", "null"} else value


def _parts(text: str) -> list[str]:
    """Returns what stands between the commas; nothing for `none`, which is an empty list."""
    return [] if text.strip().lower() == "none" else [part.strip() for part in text.split(",")]
