"""What the search is measured against: Teacher, NDS and the plain distilled student."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kdplatform.analysis.individual_fairness import Pairs
from kdplatform.config import ProjectConfig
from kdplatform.experiments import records
from kdplatform.experiments.identity import Step, teacher_seed
from kdplatform.experiments.sweep import Study, Unit, study_units
from kdplatform.experiments.tracking import artifact_path
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.measures import Measure, Score, mean_score
from kdplatform.tuning.space import Point

# The hypervolume's reference point lies this far beyond NDS.
_ACCURACY_ROOM = 0.10
_UNFAIRNESS_FACTOR = 2.0

_VALIDATION = records.PREDICTIONS.format(split="val")


def search_seeds(config: ProjectConfig) -> tuple[int, ...]:
    """Returns the seeds of the students that a trial trains."""
    return tuple(range(config.tuning.seeds_per_trial))


def fresh_seeds(config: ProjectConfig) -> tuple[int, ...]:
    """Returns the seeds that the search has not seen, for the chosen points."""
    first = config.tuning.seeds_per_trial
    return tuple(range(first, first + config.tuning.confirm_seeds))


def point_units(
    config: ProjectConfig, point: Point, seeds: Sequence[int], dataset_digest: str
) -> list[Unit]:
    """Returns the units of a point: its distilled students and what they need."""
    at_point = point.config(config)
    alone = {"temperatures": (point.temperature,), "seeds": tuple(seeds)}
    return study_units(at_point.model_copy(update=alone), dataset_digest)


def validation(run_id: str) -> Predictions:
    """Returns a run's predictions of the validation split; the search reads no others."""
    return Predictions.read(artifact_path(run_id, _VALIDATION))


@dataclass(frozen=True)
class References:
    """Teacher, NDS and baseline on the search's seeds.

    Attributes:
        runs: step and run of every model, by key of its step.
        students: the NDS's validation predictions, by key.
        pairs: of the validation split, for individual unfairness.
        baseline: the project's own distilled student.
    """

    runs: Mapping[str, tuple[Step, str]]
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


def read_references(config: ProjectConfig, measure: Measure, study: Study) -> References:
    """Judges the trained references on validation data.

    Args:
        study: as trained from the units of the baseline's point, without failures.
    """
    units = {(unit.step.role, unit.step.seed): unit for unit in study.units}
    runs = {key: (model.step, model.run_id) for key, model in study.models.items()}
    tables = {place: validation(runs[unit.step.key][1]) for place, unit in units.items()}
    pairs = measure.pairs(next(iter(tables.values())))
    scores: dict[Role, list[Score]] = {role: [] for role in Role}
    for seed in search_seeds(config):
        student = tables[Role.STUDENT, seed]
        for role in Role:
            own = teacher_seed(config, seed) if role is Role.TEACHER else seed
            scores[role].append(measure.score(tables[role, own], student, pairs))
    return References(
        runs,
        {unit.step.key: tables[place] for place, unit in units.items() if place[0] is Role.STUDENT},
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
