"""The cells that two models are compared in: every group, and every group within every class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.tables import Attribute, Groups, attribute_groups
from kdplatform.predictions import FloatArray, IntArray, Predictions

GROUP, INTERSECTION, WITHIN_CLASS = "group", "intersection", "group within class"


class _Block(NamedTuple):
    """Cells of one attribute: its groups, and for single attributes also its groups within classes.

    Attributes:
        codes: row of `members` of every example, or -1. With several classes, that row times their
            number plus the example's class.
        members: as in `Groups`. [codes, groups]
        classes: 1 if only whole groups are cells.
    """

    codes: IntArray
    members: npt.NDArray[np.bool_]
    classes: int

    def sums(self, values: npt.NDArray[np.number]) -> FloatArray:
        """Sums values by cell; an example in several groups counts in each. [cells]."""
        inside = self.codes >= 0
        by_code = np.bincount(
            self.codes[inside], values[inside], minlength=len(self.members) * self.classes
        )
        cells = self.members.T.astype(float) @ by_code.reshape(-1, self.classes)
        within = [cells.ravel()] if self.classes > 1 else []
        return np.concatenate([cells.sum(axis=1), *within])


@dataclass(frozen=True)
class Cells:
    """The cells of every example.

    Attributes:
        table: a table of the examples; other tables are sorted into its order.
        frame: a row per cell: `kind`, `attribute`, `group`, `class` (-1 for a whole group), `n`.
    """

    table: Predictions
    frame: pd.DataFrame
    blocks: tuple[_Block, ...]
    occurring: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.frame)

    def sums(self, values: npt.NDArray[np.number]) -> FloatArray:
        """Adds values up by cell.

        Args:
            values: one per example, for every table. [tables, examples]

        Returns:
            Sums. [tables, cells]
        """
        rows = [np.concatenate([block.sums(row) for block in self.blocks]) for row in values]
        return np.stack(rows)[:, self.occurring]


def cells_of(table: Predictions, attributes: Sequence[Attribute]) -> Cells:
    """Returns the cells that have an example.

    These are the groups of every attribute and every intersection, and the groups of single
    attributes within every class. The share of correct predictions there is that group's true
    positive rate.

    Args:
        attributes: columns, and several of them for their intersection.

    Raises:
        ValueError: there is no attribute, or one is not in the table or has no group.
    """
    if not attributes:
        raise ValueError("attributes are empty; allowed: at least one")
    frames: list[pd.DataFrame] = []
    blocks: list[_Block] = []
    for attribute in attributes:
        frame, block = _cells_by(table, attribute)
        frames.append(frame)
        blocks.append(block)
    frame = pd.concat(frames, ignore_index=True)
    ones = np.ones(len(table))
    n = np.concatenate([block.sums(ones) for block in blocks]).round().astype(np.int64)
    frame = frame.assign(n=n)
    occurring = np.asarray(n > 0)
    return Cells(table, frame[occurring].reset_index(drop=True), tuple(blocks), occurring)


def _cells_by(table: Predictions, attribute: Attribute) -> tuple[pd.DataFrame, _Block]:
    groups = attribute_groups(table, attribute)
    classes = np.unique(table.labels)
    if not (isinstance(attribute, str) or len(attribute) == 1):
        return _rows(INTERSECTION, groups, [-1]), _Block(groups.codes, groups.members, 1)
    whole = _rows(GROUP, groups, [-1])
    if len(classes) == 1:  # its groups within the one class are its groups
        return whole, _Block(groups.codes, groups.members, 1)
    places = np.searchsorted(classes, table.labels)
    codes = np.where(groups.codes < 0, -1, groups.codes * len(classes) + places)
    frame = pd.concat([whole, _rows(WITHIN_CLASS, groups, classes.tolist())], ignore_index=True)
    return frame, _Block(codes, groups.members, len(classes))


def _rows(kind: str, groups: Groups, classes: Sequence[int]) -> pd.DataFrame:
    """A row per group and class, the classes of a group together, as `_Block.sums` orders them."""
    return pd.DataFrame(
        {
            "kind": kind,
            "attribute": groups.attribute,
            "group": np.repeat(np.array(groups.names, dtype=object), len(classes)),
            "class": np.tile(np.array(classes, dtype=np.int64), len(groups.names)),
        }
    )
