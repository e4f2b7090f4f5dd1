"""The two sides of a comparison."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdplatform.predictions import Predictions


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        tables: predictions, one per seed.
        attributes: columns whose groups may be compared.
        class_names: of class 0, 1, ...; empty where classes are known by their numbers.
    """

    title: str
    tables: Sequence[Predictions]
    attributes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    def class_name(self, number: int) -> str:
        """Returns a class as it is shown."""
        return self.class_names[number] if self.class_names else str(number)


@dataclass(frozen=True)
class Sides:
    """Both sides on the same examples, in the same order of rows."""

    a: Side
    b: Side

    @property
    def over_seeds(self) -> bool:
        """Whether there are enough models for tests over seeds."""
        return min(len(self.a.tables), len(self.b.tables)) > 1

    @property
    def logits(self) -> bool:
        """Whether every table of both sides has logits."""
        return all(t.logits is not None for side in (self.a, self.b) for t in side.tables)

    @property
    def single(self) -> bool:
        """Whether each side is one model."""
        return max(len(self.a.tables), len(self.b.tables)) == 1
