"""What the search is measured against: Teacher, NDS and the plain distilled student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdplatform.analysis.individual_fairness import Pairs
from kdplatform.experiments.graph import Step, study_steps
from kdplatform.experiments.scheduler import Trained
from kdplatform.experiments.trained import TrainedModel
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.measures import Measure, Score, mean_score
from kdplatform.tuning.space import Point

# The hypervolume's reference point lies this far beyond NDS.
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


@dataclass(frozen=True)
class References:
    """Teacher, NDS and baseline on the search's seeds; the search reads validation data alone.

    Attributes:
        models: every model, by key of its step.
        students: the NDS's validation predictions, by key.
        pairs: of the validation split, for individual unfairness.
        baseline: the project's own distilled student.
    """

    models: dict[str, TrainedModel]
    students: Mapping[str, Predictions]
    pairs: Pairs | None
    teacher: Score
    nds: Score
    baseline: Score

    def reference_point(self, measure: Measure) -> Outcome:
        """Returns the hypervolume's reference point, which no search has a part in.

        Ten points of accuracy below NDS and twice its unfairness; where NDS has none, as in n_sc,
        the largest unfairness there can be.
        """
        unfairness = _UNFAIRNESS_FACTOR * self.nds.unfairness
        if unfairness == 0:
            unfairness = measure.largest or 1.0
        return Outcome(max(0.0, self.nds.accuracy - _ACCURACY_ROOM), unfairness)


def read_references(config: ProjectConfig, measure: Measure, trained: Trained) -> References:
    """Judges the trained references on validation data.

    Args:
        trained: from the steps of the baseline's point, without failures.
    """
    tables = {
        (model.step.role, model.step.seed): model.predictions("val")
        for model in trained.models.values()
    }
    pairs = measure.pairs(next(iter(tables.values())))
    scores: dict[Role, list[Score]] = {role: [] for role in Role}
    for seed in search_seeds(config):
        student = tables[Role.STUDENT, seed]
        for role in Role:
            own = config.teacher_seed(seed) if role is Role.TEACHER else seed
            scores[role].append(measure.score(tables[role, own], student, pairs))
    return References(
        trained.models,
        {m.step.key: tables[Role.STUDENT, m.step.seed] for m in trained.of_role(Role.STUDENT)},
        pairs,
        mean_score(scores[Role.TEACHER]),
        mean_score(scores[Role.STUDENT]),
        mean_score(scores[Role.DISTILLED]),
    )


def floors(config: ProjectConfig, references: References) -> dict[str, float]:
    """Returns the least that the constraints ask for, by name; a name that is absent asks nothing.

    In mode constrained accuracy is at least `keep` of the baseline's. `accuracy_margin` asks for
    NDS's accuracy minus the margin; of the two the larger one holds.
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
    floors: Mapping[str, float], accuracy: float, worst_group_accuracy: float, *, diverged: bool
) -> dict[str, float]:
    """Returns what Optuna is told of the constraints: above 0 is a violation.

    Every trial has all of them, as samplers that model constraints need; `diverged` is 0 or 1.
    """
    values = {"accuracy": accuracy, "worst_group_accuracy": worst_group_accuracy}
    constraints = {name: floor - values[name] for name, floor in floors.items()}
    return {"diverged": float(diverged), **constraints}
