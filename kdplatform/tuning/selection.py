"""Chooses the points of a search to train again."""

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
        labels: those of `baseline`, `front`, `knee` and `constrained` that apply.
        found: the search's measurements on validation data.
    """

    point: Point
    labels: tuple[str, ...]
    found: Outcome

    @property
    def name(self) -> str:
        """The labels as one word."""
        return "+".join(self.labels)


def distinct(trials: Sequence[Evaluated]) -> list[Evaluated]:
    """Returns the first trial of every point that satisfies all constraints."""
    first: dict[Point, Evaluated] = {}
    for trial in trials:
        if trial.feasible:
            first.setdefault(trial.point, trial)
    return list(first.values())


def on_front(trials: Sequence[Evaluated]) -> list[Evaluated]:
    """Returns the non-dominated feasible points, from the fairest to the most accurate."""
    usable = distinct(trials)
    return [usable[position] for position in front([trial.outcome for trial in usable])]


def at_knee(trials: Sequence[Evaluated]) -> Evaluated | None:
    """Returns the knee of the front, or None if it has none."""
    usable = distinct(trials)
    position = knee([trial.outcome for trial in usable])
    return None if position is None else usable[position]


def fairest_that_keeps(trials: Sequence[Evaluated], accuracy: float) -> Evaluated | None:
    """Returns the fairest feasible point of at least this accuracy; of ties the more accurate."""
    enough = [trial for trial in distinct(trials) if trial.outcome.accuracy >= accuracy]
    if not enough:
        return None
    return min(enough, key=lambda trial: (trial.outcome.unfairness, -trial.outcome.accuracy))


def least_infeasible(trials: Sequence[Evaluated]) -> Evaluated:
    """Returns the trial with the smallest violation of constraints. A diverged one comes last."""
    return min(trials, key=lambda trial: (trial.diverged, trial.violation, trial.number))


def marked(
    config: ProjectConfig, baseline: Outcome, trials: Sequence[Evaluated]
) -> dict[str, Evaluated]:
    """Returns by label the knee and the fairest point that keeps enough accuracy, if they exist."""
    keeps = fairest_that_keeps(trials, config.tuning.keep * baseline.accuracy)
    found = {KNEE: at_knee(trials), KEEPS: keeps}
    return {label: trial for label, trial in found.items() if trial is not None}


def choose(
    config: ProjectConfig, references: References, trials: Sequence[Evaluated]
) -> list[Choice]:
    """Returns the points to train again: the baseline, then the others, the fairest first.

    If the front has more outcomes than `confirm_points`, its ends and evenly spaced points between
    them are chosen. Of points with equal outcomes, the first found is chosen.
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

    It is the fairest point that keeps enough of the baseline's accuracy, else the knee, else the
    baseline.
    """
    for label in (KEEPS, KNEE):
        for choice in choices:
            if label in choice.labels:
                return choice
    return choices[0]
