"""One side of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdplatform.predictions import Predictions


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        tables: predictions, one per seed.
        class_names: of class 0, 1, ...; empty if classes have only numbers.
    """

    title: str
    tables: Sequence[Predictions]
    class_names: tuple[str, ...] = ()
