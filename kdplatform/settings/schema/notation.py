"""How a list of numbers is written on the command line, as fields of the settings say it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Notation:
    """An annotation of a field whose values are a list in a notation of its own.

    Attributes:
        words: what may be written, with an example.
        bounded: whether the bounds of the single numbers are said too.
    """

    words: str
    bounded: bool


INTEGERS = Notation("numbers and ranges such as 0,2,5-9", bounded=False)
NUMBERS = Notation("numbers and ranges such as 1-10,20,30.5", bounded=True)
