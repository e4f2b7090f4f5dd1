"""Which points of a search are worth training again."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdplatform.settings.schema import ProjectConfig
from kdplatform.tuning.front import Outcome, front, knee
from kdplatform.tuning.references import References
from kdplatform.tuning.space import Point
from kdplatform.tuning.trials import Evaluated

BASELINE, FRONT, KNEE, KEEPS = "baseline", "front", "knee", "constrained"


@dataclass(frozen=True)
class Choice:
    """A point and why it was chosen.

    Attributes:
        labels: of `baseline`, `front`, `knee` and `constrained` those that it is.
        found: what the search measured on validation data.
    """

    point: Point
    labels: tuple[str, ...]
    found: Outcome

    @property
    def name(self) -> str:
        """The labels as one word."""
        return "+".join(self.labels)


def distinct(trials: Sequence[Evaluated]) -> list[Evaluated]:
    """Returns the first trial of every point that keeps all constraints."""
    first: dict[Point, Evaluated] = {}
    for trial in trials:
        if trial.feasible:
            first.setdefault(trial.point, trial)
    return list(first.values())


def on_front(trials: Sequence[Evaluated]) -> list[Evaluated]:
    """Returns the feasible points that none dominates, from the fairest to the most accurate."""
    usable = distinct(trials)
    return [usable[position] for position in front([trial.outcome for trial in usable])]


def at_knee(trials: Sequence[Evaluated]) -> Evaluated | None:
    """Returns the knee of the front, None where it has none."""
    usable = distinct(trials)
    position = knee([trial.outcome for trial in usable])
    return None if position is None else usable[position]


def fairest_that_keeps(trials: Sequence[Evaluated], accuracy: float) -> Evaluated | None:
    """Returns the fairest feasible point of at least this accuracy; of equals the more accurate."""
    enough = [trial for trial in distinct(trials) if trial.outcome.accuracy >= accuracy]
    if not enough:
        return None
    return min(enough, key=lambda trial: (trial.outcome.unfairness, -trial.outcome.accuracy))


def least_infeasible(trials: Sequence[Evaluated]) -> Evaluated:
    """Returns the trial whose constraints are violated by the least; one that diverged is last."""
    return min(trials, key=lambda trial: (trial.diverged, trial.violation, trial.number))


def marked(
    config: ProjectConfig, baseline: Outcome, trials: Sequence[Evaluated]
) -> dict[str, Evaluated]:
    """Returns by label the knee, and the fairest point that keeps enough accuracy, if there."""
    keeps = fairest_that_keeps(trials, config.tuning.keep * baseline.accuracy)
    found = {KNEE: at_knee(trials), KEEPS: keeps}
    return {label: trial for label, trial in found.items() if trial is not None}


def choose(
    config: ProjectConfig, references: References, trials: Sequence[Evaluated]
) -> list[Choice]:
    """Returns the points to be trained again: the baseline, then the others, the fairest first.

    Of a front with more outcomes than `confirm_points` its ends and points evenly between; of
    points with equal outcomes the one found first.
    """
    baseline, own = references.baseline, Point.of(config)
    different: dict[Outcome, Evaluated] = {}
    for trial in sorted(on_front(trials), key=lambda trial: trial.number):
        different.setdefault(trial.outcome, trial)
    ends = sorted(different.values(), key=lambda trial: trial.outcome.unfairness)
    chosen = [(trial, FRONT) for trial in _spread(ends, config.tuning.confirm_points)]
    chosen += [(trial, label) for label, trial in marked(config, baseline, trials).items()]
    labels: dict[Point, list[str]] = {own: [BASELINE]}
    found = {own: baseline}
    for trial, label in chosen:
        labels.setdefault(trial.point, []).append(label)
        found.setdefault(trial.point, trial.outcome)
    choices = [Choice(point, tuple(names), found[point]) for point, names in labels.items()]
    return [choices[0], *sorted(choices[1:], key=lambda choice: choice.found.unfairness)]


def _spread(trials: Sequence[Evaluated], most: int) -> list[Evaluated]:
    if len(trials) <= most:
        return list(trials)
    if most == 1:
        return [trials[len(trials) // 2]]
    positions = {round(i * (len(trials) - 1) / (most - 1)) for i in range(most)}
    return [trials[position] for position in sorted(positions)]


def best(config: ProjectConfig, choices: Sequence[Choice]) -> Choice:
    """Returns the choice that `best.yaml` holds.

    The fairest that keeps enough of the baseline's accuracy; without one the knee, without a knee
    the baseline.
    """
    for label in (KEEPS, KNEE):
        for choice in choices:
            if label in choice.labels:
                return choice
    return choices[0]
