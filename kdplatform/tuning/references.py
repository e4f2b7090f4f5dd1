"""The references of a search: Teacher, NDS and the plain distilled student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kdplatform.experiments.graph import Step, study_steps
from kdplatform.experiments.scheduler import Trained
from kdplatform.experiments.trained import TrainedModel
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.metrics import Similarity
from kdplatform.study.study import NDS, TEACHER, Arm
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.measures import Measure, means
from kdplatform.tuning.space import Point

# The distance of the hypervolume's reference point from NDS.
_ACCURACY_ROOM = 0.10
_UNFAIRNESS_FACTOR = 2.0


def search_seeds(config: ProjectConfig) -> tuple[int, ...]:
    """Returns the seeds of the students that a trial trains."""
    return tuple(range(config.tuning.seeds_per_trial))


def fresh_seeds(config: ProjectConfig) -> tuple[int, ...]:
    """Returns the seeds that the search has not seen, for the chosen points."""
    first = config.tuning.seeds_per_trial
    return tuple(range(first, first + config.tuning.confirm_seeds))


def point_steps(
    config: ProjectConfig, point: Point, seeds: Sequence[int], dataset_digest: str
) -> list[Step]:
    """Returns the steps of a point: its distilled students and what they need."""
    at_point = point.config(config).model_copy(update={"seeds": tuple(seeds)})
    return study_steps(at_point, dataset_digest)


def arms_at(
    models: Mapping[str, TrainedModel],
    config: ProjectConfig,
    point: Point,
    seeds: Sequence[int],
    dataset_digest: str,
) -> dict[Arm, dict[int, TrainedModel]]:
    """Returns Teacher, NDS and the students of a point by arm and seed.

    A teacher shared by all seeds is listed under each of them. A seed without its NDS is omitted.

    Args:
        models: by key of their step; those that failed are absent.
    """
    keys = {
        (step.role, step.seed): step.key
        for step in point_steps(config, point, seeds, dataset_digest)
    }
    arms: dict[Arm, dict[int, TrainedModel]] = {}
    for arm in (TEACHER, NDS, point.arm):
        arms[arm] = {}
        for seed in seeds:
            own = config.teacher_seed(seed) if arm == TEACHER else seed
            model = models.get(keys[arm.role, own])
            if model is not None and keys[Role.STUDENT, seed] in models:
                arms[arm][seed] = model
    return arms


@dataclass(frozen=True)
class References:
    """Teacher, NDS and baseline on the search's seeds. The search reads only validation data.

    Attributes:
        models: every model, by key of its step.
        students: the NDS's validation predictions, by key.
        similar: pairs of the validation split, for individual unfairness.
        baseline: the project's own distilled student.
    """

    models: dict[str, TrainedModel]
    students: Mapping[str, Predictions]
    similar: Similarity | None
    teacher: Outcome
    nds: Outcome
    baseline: Outcome

    def reference_point(self, measure: Measure) -> Outcome:
        """Returns the hypervolume's reference point, which does not depend on the search.

        It is ten points of accuracy below NDS at twice its unfairness, or at the largest possible
        unfairness if that is less. If NDS has none, as in n_sc, it is the largest possible.
        """
        unfairness = min(_UNFAIRNESS_FACTOR * self.nds.unfairness, measure.largest)
        if unfairness == 0:
            unfairness = measure.largest if np.isfinite(measure.largest) else 1.0
        return Outcome(max(0.0, self.nds.accuracy - _ACCURACY_ROOM), unfairness)


def read_references(
    config: ProjectConfig, measure: Measure, trained: Trained, dataset_digest: str
) -> References:
    """Judges the trained references on validation data.

    Args:
        trained: from the steps of the baseline's point, without failures.
    """
    seeds, own = search_seeds(config), Point.of(config)
    arms = arms_at(trained.models, config, own, seeds, dataset_digest)
    read = {key: model.predictions("val") for key, model in trained.models.items()}
    tables = {
        arm: {seed: read[model.step.key] for seed, model in models.items()}
        for arm, models in arms.items()
    }
    similar = measure.similarity(next(iter(read.values())))
    scores = measure.scores(tables, similar)
    by_role = (means(scores[scores["role"] == role.value]) for role in Role)
    students = {m.step.key: read[m.step.key] for m in trained.of_role(Role.STUDENT)}
    return References(trained.models, students, similar, *(Outcome(*own[:2]) for own in by_role))


def floors(config: ProjectConfig, references: References) -> dict[str, float]:
    """Returns the lower bounds of the constraints by name. An absent name has no bound.

    In mode constrained, accuracy is at least `keep` of the baseline's. `accuracy_margin` requires
    NDS's accuracy minus the margin. The larger of the two bounds holds.
    """
    tuning = config.tuning
    accuracy = []
    if tuning.mode == "constrained":
        accuracy.append(tuning.keep * references.baseline.accuracy)
    if tuning.accuracy_margin is not None:
        accuracy.append(references.nds.accuracy - tuning.accuracy_margin)
    asked = {"accuracy": max(accuracy)} if accuracy else {}
    if tuning.worst_group_floor is not None:
        asked["worst_group_accuracy"] = tuning.worst_group_floor
    return asked


def violations(
    floors: Mapping[str, float],
    accuracy: float,
    worst_group_accuracy: float,
    *,
    diverged: bool,
    collapsed: int = 0,
) -> dict[str, float]:
    """Returns the constraint values for Optuna: a value above 0 is a violation.

    Every trial has all of them, as samplers that model constraints need; `diverged` is 0 or 1.

    Args:
        collapsed: as `Measure.collapsed` counts it.
    """
    values = {"accuracy": accuracy, "worst_group_accuracy": worst_group_accuracy}
    constraints = {name: floor - values[name] for name, floor in floors.items()}
    return {"diverged": float(diverged), "collapsed": float(collapsed), **constraints}
