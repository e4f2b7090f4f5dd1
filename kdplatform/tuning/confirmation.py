"""The chosen points on fresh seeds and test data: did tuning help, or was it luck?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

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
from kdplatform.study.groups import GroupComparison, compare_groups
from kdplatform.study.metrics import GROUP_REFERENCES, Similarity
from kdplatform.study.study import Arm
from kdplatform.tuning.measures import MEASURES, Measure
from kdplatform.tuning.references import arms_at, fresh_seeds, point_steps
from kdplatform.tuning.selection import Choice
from kdplatform.tuning.space import Point


@dataclass(frozen=True, eq=False)
class Confirmed:
    """One arm on fresh seeds.

    Attributes:
        title: Teacher, NDS, or the point.
        choice: None for Teacher and NDS.
        scores: `MEASURES` on test, by seed.
        again: on validation, by seed: what the search would have seen with these seeds.
        differences: by measure, this arm minus the baseline, over the seeds that both have.
        p_holm: by measure, corrected for the number of points compared with the baseline.
        largest: by measure, the largest value there can be, 1 where it is not given.
        groups: of a point, its groups on test compared with those of Teacher and NDS.
    """

    title: str
    choice: Choice | None
    scores: pd.DataFrame
    again: pd.DataFrame
    differences: Mapping[str, Difference] = field(default_factory=dict)
    p_holm: Mapping[str, float] = field(default_factory=dict)
    largest: Mapping[str, float] = field(default_factory=dict)
    groups: Mapping[Role, GroupComparison] = field(default_factory=dict)

    def estimate(self, measure: str) -> Interval:
        """Returns a measure's mean over the fresh seeds on test, with its interval."""
        return mean_over_seeds(self.scores[measure]).within(0.0, self.largest.get(measure, 1.0))


def confirmation_steps(
    config: ProjectConfig, choices: Sequence[Choice], dataset_digest: str
) -> list[Step]:
    """Returns the steps of all chosen points on fresh seeds, each once, dependencies first."""
    seeds = fresh_seeds(config)
    points = (point_steps(config, c.point, seeds, dataset_digest) for c in choices)
    return with_needs(step for steps in points for step in steps)


def confirm(
    workspace: Workspace, measure: Measure, choices: Sequence[Choice], trained: Trained
) -> list[Confirmed]:
    """Judges Teacher, NDS and the chosen points on test, each point against the baseline.

    Args:
        choices: the baseline first.
        trained: the results of `confirmation_steps` that did not fail.
    """
    config, digest, baseline = workspace.config, workspace.dataset.digest, choices[0]
    seeds, points = fresh_seeds(config), [choice.point for choice in choices]
    arms = {point: arms_at(trained.models, config, point, seeds, digest) for point in points}
    test, val = (_scores(measure, arms, split) for split in ("test", "val"))

    def judged(role: Role, choice: Choice) -> Confirmed:
        distilled = role is Role.DISTILLED
        title = choice.point.title(config) if distilled else role.label
        key = choice.point, role
        largest = {"unfairness": measure.largest}
        chosen = choice if distilled else None
        groups = _group_changes(measure, arms[choice.point], choice.point) if distilled else {}
        return Confirmed(title, chosen, test[key], val[key], largest=largest, groups=groups)

    found = [
        judged(Role.TEACHER, baseline),
        judged(Role.STUDENT, baseline),
        *(judged(Role.DISTILLED, choice) for choice in choices),
    ]
    return compared([arm for arm in found if len(arm.scores)], baseline)


def _scores(
    measure: Measure, arms: Mapping[Point, Mapping[Arm, Mapping[int, TrainedModel]]], split: str
) -> dict[tuple[Point, Role], pd.DataFrame]:
    """Returns `MEASURES` by seed for Teacher, NDS and the students of every point."""
    found: dict[tuple[Point, Role], pd.DataFrame] = {}
    similar: Similarity | None = None
    for point, models in arms.items():
        tables = {
            arm: {seed: model.predictions(split) for seed, model in own.items()}
            for arm, own in models.items()
        }
        every = [table for own in tables.values() for table in own.values()]
        if every:
            similar = similar or measure.similarity(every[0])
        scores = measure.scores(tables, similar).set_index("seed")
        for role in Role:
            found[point, role] = scores.loc[scores["role"] == role.value, [*MEASURES]]
    return found


def _group_changes(
    measure: Measure, arms: Mapping[Arm, Mapping[int, TrainedModel]], point: Point
) -> dict[Role, GroupComparison]:
    """Returns the groups of a point's students on test, compared with Teacher and NDS.

    Seeds that a reference lacks are left out; one teacher of all seeds is compared with each.
    """
    if measure.attribute is None:
        return {}
    found = {}
    own = arms.get(point.arm, {})
    for role in GROUP_REFERENCES:
        others = arms.get(Arm(role), {})
        seeds = sorted(own.keys() & others.keys())
        if seeds:
            shared = len({others[seed].run_id for seed in seeds}) == 1
            found[role] = compare_groups(
                [others[seed].test for seed in (seeds[:1] if shared else seeds)],
                [own[seed].test for seed in seeds],
                [measure.attribute],
                min_group_size=measure.min_group_size,
            )
    return found


def compared(arms: Sequence[Confirmed], baseline: Choice) -> list[Confirmed]:
    """Returns the arms. Points have their differences from the baseline, if it was trained.

    Args:
        baseline: the arm that the others are compared with.
    """
    own = next((arm for arm in arms if arm.choice is baseline), None)
    others = [arm for arm in arms if arm.choice is not None and arm is not own]
    if own is None:
        return list(arms)
    differences = [{name: _difference(arm, own, name) for name in MEASURES} for arm in others]
    corrected = [holm([each[name].p_value for each in differences]) for name in MEASURES]
    found = [
        replace(arm, differences=each, p_holm=dict(zip(MEASURES, map(float, p), strict=True)))
        for arm, each, p in zip(others, differences, np.transpose(corrected), strict=True)
    ]
    return [arm for arm in arms if arm not in others] + found


def _difference(arm: Confirmed, baseline: Confirmed, measure: str) -> Difference:
    seeds = arm.scores.index.intersection(baseline.scores.index)
    found = paired_difference(arm.scores.loc[seeds, measure], baseline.scores.loc[seeds, measure])
    largest = arm.largest.get(measure, 1.0)
    return found._replace(interval=found.interval.within(-largest, largest))


def verdict(arm: Confirmed, measure: str) -> str:
    """Says whether an arm differs from the baseline: `lower`, `higher` or `undecided`.

    The threshold is p < .05 after Holm's correction over the points compared. If all seeds differ
    by the same amount there is no p, and nothing is claimed.
    """
    p_value = arm.p_holm.get(measure, float("nan"))
    if not p_value < LEVEL:
        return "undecided"
    return "lower" if arm.differences[measure].interval.estimate < 0 else "higher"
