"""Fronts against a brute force, areas against a hand's computation."""

import numpy as np
import optuna
import pytest

from kdplatform.tuning.front import (
    Outcome,
    front,
    hypervolume,
    hypervolume_history,
    knee,
)


def dominates(a: Outcome, b: Outcome) -> bool:
    """Tells whether a is at least as good in both and better in one."""
    return a.accuracy >= b.accuracy and a.unfairness <= b.unfairness and a != b


def random_outcomes(seed: int, count: int = 40) -> list[Outcome]:
    # Few distinct values, so that ties and equal outcomes occur.
    values = np.random.default_rng(seed).integers(0, 8, (count, 2)) / 8
    return [Outcome(*map(float, row)) for row in values]


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_what_nothing_dominates(seed: int) -> None:
    outcomes = random_outcomes(seed)
    undominated = {i for i, a in enumerate(outcomes) if not any(dominates(b, a) for b in outcomes)}
    assert set(front(outcomes)) == undominated


@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_optunas(seed: int) -> None:
    outcomes = random_outcomes(seed)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(directions=["maximize", "minimize"])
    study.add_trials([optuna.create_trial(values=list(outcome)) for outcome in outcomes])
    assert set(front(outcomes)) == {trial.number for trial in study.best_trials}


def test_the_front_runs_from_the_fairest_to_the_most_accurate() -> None:
    outcomes = [Outcome(0.9, 0.3), Outcome(0.7, 0.1), Outcome(0.8, 0.2), Outcome(0.7, 0.3)]
    assert front(outcomes) == [1, 2, 0]
    assert front([]) == []


@pytest.mark.parametrize(
    ("outcomes", "area"),
    [
        ([], 0.0),
        ([Outcome(0.8, 0.2)], 0.3 * 0.2),
        # 0.2 wide and 0.3 high up to accuracy 0.7, then 0.1 wide and 0.2, then 0.1 wide and 0.1.
        ([Outcome(0.7, 0.1), Outcome(0.8, 0.2), Outcome(0.9, 0.3)], 0.06 + 0.02 + 0.01),
        # A dominated one and those beyond the reference add nothing.
        ([Outcome(0.8, 0.2), Outcome(0.7, 0.3), Outcome(0.4, 0.0), Outcome(1.0, 0.4)], 0.06),
    ],
)
def test_the_hypervolume_is_the_area_up_to_the_reference(
    outcomes: list[Outcome], area: float
) -> None:
    assert hypervolume(outcomes, Outcome(0.5, 0.4)) == pytest.approx(area)


@pytest.mark.parametrize("seed", range(3))
def test_the_hypervolume_is_the_share_of_a_fine_grid_that_is_dominated(seed: int) -> None:
    outcomes = random_outcomes(seed)
    # 8 x 8 cells of which each is dominated whole or not at all.
    cells = [(a, u) for a in range(8) for u in range(8)]
    covered = sum(
        any(o.accuracy >= (a + 1) / 8 and o.unfairness <= u / 8 for o in outcomes) for a, u in cells
    )
    assert hypervolume(outcomes, Outcome(0.0, 1.0)) == pytest.approx(covered / 64)


def test_the_history_never_falls_and_skips_what_is_unusable() -> None:
    outcomes = [Outcome(0.6, 0.2), None, Outcome(0.55, 0.3), Outcome(0.8, 0.1)]
    history = hypervolume_history(outcomes, Outcome(0.5, 0.4))
    assert history == pytest.approx([0.02, 0.02, 0.02, 0.09])


def test_the_knee_is_farthest_from_the_line_between_the_ends() -> None:
    # Scaled: (0, 0), (0.8, 0.2), (0.9, 0.6), (1, 1): distances 0, .6, .3, 0 (times sqrt 1/2).
    outcomes = [Outcome(0.5, 0.1), Outcome(0.9, 0.2), Outcome(0.95, 0.4), Outcome(1.0, 0.6)]
    assert knee(outcomes) == 1
    assert knee([*outcomes, Outcome(0.6, 0.5)]) == 1


@pytest.mark.parametrize(
    "outcomes",
    [
        [],
        [Outcome(0.9, 0.1)],
        [Outcome(0.5, 0.1), Outcome(0.9, 0.2)],
        # On the line, and behind it.
        [Outcome(0.5, 0.1), Outcome(0.6, 0.2), Outcome(0.7, 0.3)],
        [Outcome(0.5, 0.1), Outcome(0.55, 0.25), Outcome(0.7, 0.3)],
        # Equal outcomes are one point.
        [Outcome(0.5, 0.1), Outcome(0.5, 0.1), Outcome(0.5, 0.1)],
    ],
)
def test_a_front_without_a_bend_has_no_knee(outcomes: list[Outcome]) -> None:
    assert knee(outcomes) is None
