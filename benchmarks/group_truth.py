"""Checks the group shifts against known truth, by simulation.

    python -m benchmarks.group_truth          # about three minutes on one core

Two sides are models of the same examples, which share part of their luck. Their groups are equally
accurate, or one group of side B has moved by a known amount. Printed is how many groups changed at
p < .05 beside the number that chance gives, how often any group is told that has not moved
(family-wise), how often the one that moved is told to be worse (power), and how often its interval
holds the true change.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from kdplatform.analysis.group_cells import Cells, cells_of
from kdplatform.predictions import Predictions
from kdplatform.study.groups import UNDECIDED, WORSE, compare_groups

STUDIES = 400
SHARED_LUCK = 0.7  # share of an example's luck that all models have in common
ACCURACY = 0.9
# Deviation over seeds of a group's level, on the normal scale: about 1.7 points of accuracy.
SEED_DEVIATION = 0.1


class Line(NamedTuple):
    """One line of the table: groups and their size, seeds of a side, and by what one has moved."""

    groups: int
    per_group: int
    seeds: int
    moved: float


LINES = (
    Line(2, 1000, 1, 0.0),
    Line(10, 200, 1, 0.0),
    Line(10, 30, 1, 0.0),
    Line(2, 1000, 5, 0.0),
    Line(10, 200, 5, 0.0),
    Line(10, 200, 3, 0.0),
    Line(2, 1000, 1, -0.05),
    Line(10, 200, 1, -0.05),
    Line(10, 200, 1, -0.10),
    Line(10, 200, 5, -0.05),
    Line(10, 200, 5, -0.10),
    Line(2, 1000, 5, -0.05),
)


def level(accuracy: float, deviation: float) -> float:
    """The level on the normal scale at which models of all seeds are so accurate in the mean."""
    return float(special.ndtri(accuracy) * np.sqrt(1 + deviation**2))


def examples(line: Line) -> Cells:
    """The examples of all studies of a line: two classes, groups of equal size."""
    n = line.groups * line.per_group
    labels = np.arange(n) % 2
    group = np.repeat(np.arange(line.groups), line.per_group)
    frame = pd.DataFrame({"id": np.arange(n), "label": labels, "prediction": labels, "g": group})
    return cells_of(Predictions.of(frame), ["g"])


def side(
    cells: Cells, luck: np.ndarray, levels: np.ndarray, seeds: int, rng: np.random.Generator
) -> list[Predictions]:
    """Models of one side, whose groups are right at these levels."""
    table, group = cells.table, cells.table.columns["g"].to_numpy()
    deviation = SEED_DEVIATION if seeds > 1 else 0.0
    found = []
    for _ in range(seeds):
        own = np.sqrt(SHARED_LUCK) * luck + np.sqrt(1 - SHARED_LUCK) * rng.normal(size=len(luck))
        right = own < rng.normal(levels, deviation)[group]
        predictions = np.where(right, table.labels, 1 - table.labels)
        found.append(Predictions(table.ids, table.labels, predictions, None, table.columns))
    return found


def studies(line: Line) -> Iterator[tuple[pd.DataFrame, float]]:
    """The groups of every study, and the count that chance gives."""
    rng, cells = np.random.default_rng(11), examples(line)
    deviation = SEED_DEVIATION if line.seeds > 1 else 0.0
    usual, moved = level(ACCURACY, deviation), level(ACCURACY + line.moved, deviation)
    levels_a = np.full(line.groups, usual)
    levels_b = np.where(np.arange(line.groups) == 0, moved, usual)
    for _ in range(STUDIES):
        luck = rng.normal(size=len(cells.table))
        a, b = (side(cells, luck, each, line.seeds, rng) for each in (levels_a, levels_b))
        compared = compare_groups(a, b, cells)
        yield compared.groups, compared.counts.expected_by_chance


def report(line: Line) -> str:
    """One line of the table."""
    counts, chances, false, true, covered = [], [], [], [], []
    for groups, chance in studies(line):
        unmoved = groups.iloc[1 if line.moved else 0 :]
        counts.append(int((unmoved["p_value"] < 0.05).sum()))
        chances.append(chance * len(unmoved) / len(groups))
        false.append(bool((unmoved["verdict"] != UNDECIDED).any()))
        first = groups.iloc[0]
        true.append(first["verdict"] == WORSE)
        covered.append(bool(first["low"] <= line.moved <= first["high"]))
    power = f"{np.mean(true):7.1%}" if line.moved else "      -"
    return (
        f"{line.groups:6}  {line.per_group:9}  {line.seeds:5}  {100 * line.moved:5.0f}  "
        f"{np.mean(counts):7.3f}  {np.mean(chances):9.3f}  {np.mean(false):11.1%}  {power}  "
        f"{np.mean(covered):7.1%}"
    )


def main(lines: Sequence[Line] = LINES) -> None:
    print(f"{STUDIES} studies each; a true 5% comes out between 3.0 and 7.2% in 95% of runs")
    print("groups  per group  seeds  moved  changed  by chance  family-wise    power   covers")
    for line in lines:
        print(report(line), flush=True)


if __name__ == "__main__":
    main()
