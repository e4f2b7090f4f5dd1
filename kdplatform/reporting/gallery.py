"""Examples that a page shows: images, texts or rows of a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Shown:
    """The shown content of one example, as far as it is known.

    Attributes:
        image: a `data:` URL of a checked image; empty for other examples.
        text: a text; empty for other examples.
        cells: names and values of a row.
    """

    image: str = ""
    text: str = ""
    cells: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Changed:
    """An example whose prediction changed.

    Attributes:
        direction: one of the gallery's directions.
        label: name of its class.
        predicted: the most frequent wrong prediction.
        groups: by attribute.
        models: number of pairs of models that show the change.
        pairs: number of pairs of models.
    """

    id: str
    shown: Shown
    direction: str
    label: str
    predicted: str
    groups: Mapping[str, str]
    models: int
    pairs: int

    def cell(self, name: str) -> str:
        """The example's value of a column."""
        return dict(self.shown.cells).get(name, "")

    @property
    def agreement(self) -> str:
        """How many pairs of models agree, in words."""
        return f"{self.models} of {self.pairs}" if self.pairs > 1 else ""


@dataclass(frozen=True)
class Gallery:
    """Examples that changed, with the directions that a reader can choose.

    Attributes:
        examples: those with the most agreement first.
        directions: the possible directions of a change, in the order of the page.
        counts: total number of changed examples, by direction.
        notes: text below them.
    """

    examples: Sequence[Changed]
    directions: Sequence[str]
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def columns(self) -> list[str]:
        """The names of the cells, if the examples are rows; none for others."""
        if any(not example.shown.cells for example in self.examples):
            return []
        return list(dict.fromkeys(name for e in self.examples for name, _ in e.shown.cells))

    @property
    def classes(self) -> list[str]:
        """The classes of the examples that are shown."""
        return sorted({example.label for example in self.examples})

    @property
    def groups(self) -> list[str]:
        """The groups of the examples that are shown, with their attribute."""
        return sorted(
            {f"{name}: {group}" for e in self.examples for name, group in e.groups.items()}
        )

    def sign(self, example: Changed) -> str:
        """Whether the change is a loss or a gain, as the page's style sheet calls it."""
        return "bad" if example.direction == self.directions[0] else "good"

    def group_numbers(self, example: Changed) -> list[int]:
        """The positions of an example's groups in `groups`."""
        groups = self.groups
        return [groups.index(f"{name}: {group}") for name, group in example.groups.items()]
