"""Trade-offs between two objectives: the Pareto front, its hypervolume and its knee.

An outcome is (accuracy, unfairness). High accuracy and low unfairness are better.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# As a share of the front's ranges. A smaller bend is no knee.
_SMALLEST_BEND = 1e-9


class Outcome(NamedTuple):
    """What a point gives; fractions, or a count for n_sc and n_sg."""

    accuracy: float
    unfairness: float


def front(outcomes: Sequence[Outcome]) -> list[int]:
    """Returns the positions of non-dominated outcomes, from the fairest to the most accurate."""
    order = sorted(
        range(len(outcomes)), key=lambda i: (-outcomes[i].accuracy, outcomes[i].unfairness, i)
    )
    kept: list[int] = []
    for position in order:
        last = outcomes[kept[-1]] if kept else None
        here = outcomes[position]
        if last is None or here.unfairness < last.unfairness or here == last:
            kept.append(position)
    return kept[::-1]


def hypervolume(outcomes: Sequence[Outcome], reference: Outcome) -> float:
    """The area that the outcomes dominate, up to the reference point (Zitzler and Thiele 1998).

    An outcome that is not better than the reference in both objectives adds nothing.
    """
    area, highest = 0.0, reference.accuracy
    for position in front(outcomes):
        accuracy, unfairness = outcomes[position]
        if accuracy > highest and unfairness < reference.unfairness:
            area += (accuracy - highest) * (reference.unfairness - unfairness)
            highest = accuracy
    return area


def hypervolume_history(outcomes: Sequence[Outcome | None], reference: Outcome) -> list[float]:
    """Returns the hypervolume after each trial. None stands for one without a usable outcome."""
    known: list[Outcome] = []
    history: list[float] = []
    for outcome in outcomes:
        if outcome is not None:
            known.append(outcome)
            known = [known[position] for position in front(known)]
        history.append(hypervolume(known, reference))
    return history


def knee(outcomes: Sequence[Outcome]) -> int | None:
    """Returns the position of the front's knee, or None if there is none.

    The knee is the point farthest from the straight line between the front's two ends, on its
    better side, with both objectives scaled to the front's own ranges (Das 1999, Structural
    Optimization 18, 107-115). Moving away from it costs more of the other objective than moving
    towards it. A front of fewer than three points, or on the worse side of the line, has no knee.
    """
    chosen = front(outcomes)
    if len(chosen) < 3:
        return None
    values = np.array([outcomes[position] for position in chosen])
    ranges = np.ptp(values, axis=0)
    if not ranges.all():
        return None
    scaled = (values - values.min(axis=0)) / ranges
    # The ends are (0, 0) and (1, 1). Above that line accuracy rises faster than unfairness.
    bend = scaled[:, 0] - scaled[:, 1]
    best = int(bend.argmax())
    return chosen[best] if bend[best] > _SMALLEST_BEND else None
