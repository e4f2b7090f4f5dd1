"""The size of change that could have hidden from the tests, and what would show it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdplatform.analysis.group_cells import GROUP
from kdplatform.analysis.mcnemar import detectable_change
from kdplatform.analysis.seed_changes import noncentrality
from kdplatform.predictions import FloatArray
from kdplatform.study.class_verdicts import class_verdicts
from kdplatform.study.evidence import Evidence
from kdplatform.study.groups import UNDECIDED

# The change that a plan should detect, as a fraction.
WANTED = 0.02
_MOST_SEEDS = 200
_MOST_TIMES = 1000
_PLURAL = {"group": "groups", "class": "classes"}


class _Unseen(NamedTuple):
    """Tests whose result is undecided.

    Attributes:
        detectable: change that the test finds with power .8; infinite if there is none.
        n: examples.
        discordant: examples that only one of two models gets right.
        seeds: number of seeds of the side with fewer; 1 for one pair of models.
    """

    detectable: FloatArray
    n: FloatArray
    discordant: FloatArray
    seeds: int


def what_would_decide(evidence: Sequence[Evidence]) -> str:
    """Says what change of an undecided group could have hidden, and what would show two points.

    Without groups the sentence is about classes. It is empty if nothing is undecided.
    """
    for noun, found in (
        ("group", [_groups(each) for each in evidence if each.groups is not None]),
        ("class", [_classes(each) for each in evidence if each.classes is not None]),
    ):
        known = [unseen for unseen in found if len(unseen.detectable)]
        if known:
            return _words(noun, known)
    return ""


def _groups(evidence: Evidence) -> _Unseen:
    assert evidence.groups is not None
    table = evidence.groups.table
    chosen = table[(table["kind"] == GROUP) & (table["verdict"] == UNDECIDED)]
    chosen = chosen[chosen["detectable"].notna()]
    detectable, n, only_a, only_b = (
        chosen[name].to_numpy(dtype=float) for name in ("detectable", "n", "only_a", "only_b")
    )
    return _Unseen(detectable, n, only_a + only_b, _fewer(evidence))


def _classes(evidence: Evidence) -> _Unseen:
    assert evidence.classes is not None
    table, shift = evidence.classes.table, evidence.classes.detectable_shift
    undecided = table["p_value"].notna() & (class_verdicts(evidence.classes) == UNDECIDED)
    if not undecided.any():
        nothing = np.empty(0)
        return _Unseen(nothing, nothing, nothing, 1)
    if evidence.classes.permutation is not None:
        one = np.array([shift] if np.isfinite(shift) else [])
        return _Unseen(one, one, one, _fewer(evidence))
    chosen = table[undecided]
    n, only_a, only_b, detectable = (
        chosen[name].to_numpy(dtype=float)
        for name in ("n", "only_a_right", "only_b_right", "detectable")
    )
    return _Unseen(detectable, n, only_a + only_b, 1)


def _fewer(evidence: Evidence) -> int:
    """Number of seeds for a plan: that of the smaller side, unless it is one shared model."""
    a, b = evidence.seeds
    return max(a, b) if 1 in (a, b) else min(a, b)


def _words(noun: str, unseen: Sequence[_Unseen]) -> str:
    sizes = np.concatenate([each.detectable for each in unseen])
    words = size_words(noun, sizes)
    return f"{words[0].upper()}{words[1:]} could have hidden (power .8){_plan(noun, unseen)}."


def size_words(noun: str, sizes: FloatArray) -> str:
    """Puts changes of the given sizes into words, from the smallest to the largest.

    Args:
        noun: the thing that changes, such as `group`.
        sizes: fractions, at least one; above 1 where no change can be seen.
    """
    sizes = np.where(sizes > 1, np.inf, sizes)  # an accuracy cannot change by more than 1
    least, most = 100 * sizes.min(), 100 * sizes.max()
    if np.isinf(least):
        return f"a change of a {noun} by any size"
    if np.isinf(most):
        return f"changes of a {noun} by {least:.1f} points, and of some by any size"
    if f"{least:.1f}" == f"{most:.1f}":
        return f"a change of a {noun} by {least:.1f} points"
    return f"changes of a {noun} by {least:.1f} to {most:.1f} points"


def _plan(noun: str, unseen: Sequence[_Unseen]) -> str:
    """Says what number of seeds, or multiple of the examples, shows two points in half of them."""
    sizes = np.concatenate([each.detectable for each in unseen])
    half = "" if len(sizes) == 1 else f" in half of these {_PLURAL[noun]}"
    points = f"{100 * WANTED:.0f} points"
    if np.median(sizes) <= WANTED:
        return ""
    if unseen[0].seeds > 1:
        seeds = _seeds_needed(unseen)
        if seeds is None:
            return f"; more than {_MOST_SEEDS} seeds would be needed to show {points}{half}"
        return f"; {seeds} seeds in place of {unseen[0].seeds} would show {points}{half}"
    times = _times_needed(unseen)
    if times is None:
        return f"; more than {_MOST_TIMES} times the examples would be needed for {points}{half}"
    return f"; {times} times as many examples would show {points}{half}"


def _seeds_needed(unseen: Sequence[_Unseen]) -> int | None:
    """Number of seeds at which the detectable change is small enough, with the same deviation."""
    for seeds in range(2, _MOST_SEEDS + 1):
        sizes = [
            each.detectable
            * np.sqrt(each.seeds / seeds)
            * float(noncentrality(seeds - 1) / noncentrality(each.seeds - 1))
            for each in unseen
        ]
        if np.median(np.concatenate(sizes)) <= WANTED:
            return seeds
    return None


def _times_needed(unseen: Sequence[_Unseen]) -> int | None:
    """The multiple of the examples that is needed if the same share differs."""
    n = np.concatenate([each.n for each in unseen])
    discordant = np.concatenate([each.discordant for each in unseen])

    def enough(times: int) -> bool:
        sizes = detectable_change(np.round(discordant * times), n * times)
        return bool(np.median(sizes) <= WANTED)

    if not enough(_MOST_TIMES):
        return None
    low, high = 1, _MOST_TIMES  # low is not enough, high is
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
