"""A side of a comparison, as it is read."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdplatform.predictions import Predictions


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        tables: predictions, one per seed.
        class_names: of class 0, 1, ...; empty where classes are known by their numbers.
    """

    title: str
    tables: Sequence[Predictions]
    class_names: tuple[str, ...] = ()
