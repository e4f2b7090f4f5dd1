"""Rates of the groups within one class, which the reader of a page chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kdplatform.analysis.rate_changes import MEASURES, Limits, RateChanges
from kdplatform.reporting.report_table import Table

_DECIMALS = 5


@dataclass(frozen=True)
class ClassRates:
    """The rates of every class and group under two sides.

    Attributes:
        key: stem of the file that has all of them.
        sides: names of side A and side B.
        class_names: of the classes in `changes.classes`.
        first: position of the class that is shown first.
    """

    key: str
    title: str
    sides: tuple[str, str]
    class_names: Sequence[str]
    changes: RateChanges
    first: int = 0

    @property
    def table(self) -> Table:
        """All numbers, for the file."""
        frame = rates_frame(self.changes, self.class_names)
        return Table(self.key, self.title, frame, frame.head(0))

    def data(self) -> dict[str, Any]:
        """The data from which the page's script makes a table and a figure of a class.

        Numbers are in per cent. A class has one list per measure: A, B, and the difference with its
        limits for every group.
        """
        changes = self.changes
        values = {
            name: np.stack(
                [
                    cells.a.value,
                    cells.b.value,
                    *cells.difference,
                    cells.a.low,
                    cells.a.high,
                    cells.b.low,
                    cells.b.high,
                ],
                axis=-1,
            )
            for name, cells in changes.rates.items()
        }
        return {
            "sides": list(self.sides),
            "first": self.first,
            "measures": [MEASURES[name] for name in values],
            "classes": list(self.class_names),
            "groups": list(changes.groups),
            "n": changes.n.tolist(),
            "positives": changes.positives.T.tolist(),
            # [measures, classes, groups, numbers]
            "values": [_rounded(each.transpose(1, 0, 2)) for each in values.values()],
            "parity": [
                _rounded(np.stack([whole.a.value[0], whole.b.value[0]], axis=-1))
                for whole in (changes.overall[name] for name in values)
            ],
        }


def _rounded(values: np.ndarray) -> Any:
    """Returns percentages for JSON, null for a missing one."""
    rounded = np.round(100 * values, 2).astype(object)
    rounded[~np.isfinite(values)] = None
    return rounded.tolist()


def rates_frame(changes: RateChanges, class_names: Sequence[str]) -> pd.DataFrame:
    """One row per class and group: sizes, both sides and differences with their limits."""
    n_groups, n_classes = len(changes.groups), len(changes.classes)
    columns: dict[str, Any] = {
        "attribute": changes.attribute,
        "class": np.repeat(np.asarray(class_names, dtype=object), n_groups),
        "group": list(changes.groups) * n_classes,
        "n": np.tile(changes.n, n_classes),
        "positives": changes.positives.T.ravel(),
    }
    for name, cells in changes.rates.items():
        columns |= _limit_columns(f"{name}_a", cells.a) | _limit_columns(f"{name}_b", cells.b)
        columns |= _limit_columns(f"{name}_difference", cells.difference)
    return pd.DataFrame(columns)


def _limit_columns(name: str, limits: Limits) -> dict[str, np.ndarray]:
    ends = zip(("", "_low", "_high"), limits, strict=True)
    return {f"{name}{end}": values.T.ravel().round(_DECIMALS) for end, values in ends}
