"""The chosen points on fresh seeds and test data: did tuning help, or was it luck?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdplatform.analysis.individual_fairness import Pairs
from kdplatform.analysis.intervals import (
    LEVEL,
    Difference,
    Interval,
    mean_over_seeds,
    paired_difference,
)
from kdplatform.analysis.significance import holm
from kdplatform.experiments.graph import Step, with_needs
from kdplatform.experiments.scheduler import Trained
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.tuning.measures import Measure, Score
from kdplatform.tuning.references import fresh_seeds, point_steps
from kdplatform.tuning.selection import Choice
from kdplatform.tuning.space import Point

MEASURES = ("accuracy", "unfairness", "worst_group_accuracy")


@dataclass(frozen=True)
class Confirmed:
    """One arm on fresh seeds.

    Attributes:
        title: Teacher, NDS, or the point.
        choice: None for Teacher and NDS.
        scores: on test, by seed.
        again: on validation, by seed: what the search would have seen with these seeds.
        differences: by measure, this arm minus the baseline, of the seeds both have.
        p_holm: by measure, corrected for the number of points compared with the baseline.
    """

    title: str
    choice: Choice | None
    scores: Mapping[int, Score]
    again: Mapping[int, Score]
    differences: Mapping[str, Difference]
    p_holm: Mapping[str, float]

    def estimate(self, measure: str) -> Interval:
        """Returns a measure's mean over the fresh seeds on test, with its interval."""
        values = [getattr(score, measure) for score in self.scores.values()]
        # Of what may be searched, some count classes: no upper end is known here.
        highest = np.inf if measure == "unfairness" else 1.0
        return mean_over_seeds(values, lowest=0.0, highest=highest)

    def again_mean(self, measure: str) -> float:
        """Returns a measure's mean over the fresh seeds on validation."""
        return float(np.mean([getattr(score, measure) for score in self.again.values()]))


def confirmation_steps(
    config: ProjectConfig, choices: Sequence[Choice], dataset_digest: str
) -> list[Step]:
    """Returns the steps of all chosen points on fresh seeds, each once, needed ones first."""
    seeds = fresh_seeds(config)
    points = (point_steps(config, c.point, seeds, dataset_digest) for c in choices)
    return with_needs(step for steps in points for step in steps)


def confirm(
    workspace: Workspace, measure: Measure, choices: Sequence[Choice], trained: Trained
) -> list[Confirmed]:
    """Judges Teacher, NDS and the chosen points on test, each point against the baseline.

    Args:
        choices: the baseline first.
        trained: from `confirmation_steps`, as far as they did not fail.
    """
    judge = _Judge(workspace, measure, trained)
    own = Point.of(workspace.config)
    arms = [
        judge.arm("Teacher", own, Role.TEACHER),
        judge.arm("NDS", own, Role.STUDENT),
        *(judge.arm(c.point.title(workspace.config), c.point, Role.DISTILLED, c) for c in choices),
    ]
    arms = [arm for arm in arms if arm.scores]
    baseline = next((arm for arm in arms if arm.choice is choices[0]), None)
    return arms if baseline is None else compared(arms, baseline)


class _Judge:
    """Scores the models of a study, with the pairs of each split drawn once."""

    def __init__(self, workspace: Workspace, measure: Measure, trained: Trained) -> None:
        self._workspace = workspace
        self._measure = measure
        self._models = trained.models
        self._pairs: dict[str, Pairs | None] = {}

    def arm(self, title: str, point: Point, role: Role, choice: Choice | None = None) -> Confirmed:
        """Scores the models of a role at a point, on test and on validation."""
        config = self._workspace.config
        seeds = fresh_seeds(config)
        steps = point_steps(config, point, seeds, self._workspace.dataset.digest)
        models = {(step.role, step.seed): step.key for step in steps}
        test: dict[int, Score] = {}
        again: dict[int, Score] = {}
        for seed in seeds:
            own = config.teacher_seed(seed) if role is Role.TEACHER else seed
            model = self._models.get(models[role, own])
            student = self._models.get(models[Role.STUDENT, seed])
            if model is None or student is None:
                continue
            test[seed] = self._score("test", model, student)
            again[seed] = self._score("val", model, student)
        return Confirmed(title, choice, test, again, {}, {})

    def _score(self, split: str, model: TrainedModel, student: TrainedModel) -> Score:
        tables = [model.predictions(split), student.predictions(split)]
        if split not in self._pairs:
            self._pairs[split] = self._measure.pairs(tables[0])
        return self._measure.score(tables[0], tables[1], self._pairs[split])


def compared(arms: Sequence[Confirmed], baseline: Confirmed) -> list[Confirmed]:
    """Returns the arms, the chosen points among them with their differences from the baseline."""
    others = [arm for arm in arms if arm.choice is not None and arm is not baseline]
    differences = [{name: _difference(arm, baseline, name) for name in MEASURES} for arm in others]
    corrected = {name: holm([found[name].p_value for found in differences]) for name in MEASURES}
    found = {
        id(arm): (differences[i], {name: float(corrected[name][i]) for name in MEASURES})
        for i, arm in enumerate(others)
    }
    return [
        Confirmed(arm.title, arm.choice, arm.scores, arm.again, *found.get(id(arm), ({}, {})))
        for arm in arms
    ]


def _difference(arm: Confirmed, baseline: Confirmed, measure: str) -> Difference:
    seeds = [seed for seed in arm.scores if seed in baseline.scores]
    return paired_difference(
        [getattr(arm.scores[seed], measure) for seed in seeds],
        [getattr(baseline.scores[seed], measure) for seed in seeds],
    )


def verdict(arm: Confirmed, measure: str) -> str:
    """Says whether an arm differs from the baseline: `lower`, `higher`, `not told apart`.

    At p < .05 after Holm's correction over the points compared. Where all seeds differ by the same
    amount there is no p, and nothing is claimed.
    """
    p_value = arm.p_holm.get(measure, float("nan"))
    if not p_value < LEVEL:
        return "not told apart"
    return "lower" if arm.differences[measure].interval.estimate < 0 else "higher"
