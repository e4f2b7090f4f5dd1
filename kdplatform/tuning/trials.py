"""The trials of a study: their results, and the count of each kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isnan
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from kdplatform.processes import is_dead_here
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.space import Point
from kdplatform.tuning.storage import GRACE_SECONDS, retry

# Names of a trial's attributes.
POINT = "kd.point"
RESULT = "kd.result"
REASON = "kd.reason"
DRIVER = "kd.driver"
RUN = "mlflow.run_id"
SURPLUS = "kd.surplus"

# A trial without a driver's name this long after its start is lost: its driver was killed between
# two statements, before a heartbeat.
_NAMELESS = timedelta(seconds=GRACE_SECONDS)
# A trial from the queue has its former driver's name until it gets a new one.
_SETTLED = timedelta(seconds=2)

_KINDS = {
    TrialState.COMPLETE: "completed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of a trial.

    Attributes:
        worst_group_accuracy: NaN without an attribute.
        constraints: by name; above 0 is a violation.
        run_ids: of the distilled students, one per seed; empty if their training diverged.
        same_as: number of the trial whose value it took over.
    """

    outcome: Outcome
    worst_group_accuracy: float
    constraints: dict[str, float]
    run_ids: tuple[str, ...] = ()
    same_as: int | None = None
    diverged: bool = False

    def as_dict(self) -> dict[str, object]:
        """Returns the result as plain values. Optuna stores the constraints itself."""
        worst = self.worst_group_accuracy
        return {
            **self.outcome._asdict(),
            "worst": None if isnan(worst) else worst,
            "runs": list(self.run_ids),
            "same_as": self.same_as,
            "diverged": self.diverged,
        }

    @property
    def feasible(self) -> bool:
        """Whether all constraints are satisfied."""
        return all(value <= 0 for value in self.constraints.values())

    @property
    def violation(self) -> float:
        """The sum of the violations of constraints."""
        return sum(max(0.0, value) for value in self.constraints.values())


@dataclass(frozen=True, kw_only=True)
class Evaluated(Result):
    """A completed trial.

    Attributes:
        run_id: of the trial's own run.
    """

    number: int
    point: Point
    run_id: str


def evaluated(trial: FrozenTrial) -> Evaluated | None:
    """Returns the result of a completed trial, or None for any other."""
    if trial.state is not TrialState.COMPLETE or RESULT not in trial.user_attrs:
        return None
    result: dict[str, Any] = trial.user_attrs[RESULT]
    return Evaluated(
        number=trial.number,
        point=Point.read(trial.user_attrs[POINT]),
        outcome=Outcome(result["accuracy"], result["unfairness"]),
        worst_group_accuracy=float("nan" if result["worst"] is None else result["worst"]),
        constraints=dict(trial.constraints),
        run_ids=tuple(result["runs"]),
        run_id=trial.user_attrs.get(RUN, ""),
        same_as=result["same_as"],
        diverged=result["diverged"],
    )


def all_evaluated(study: optuna.Study) -> list[Evaluated]:
    """Returns the completed trials in the order of their numbers."""
    found = [evaluated(trial) for trial in study.get_trials(deepcopy=False)]
    return [trial for trial in found if trial is not None]


@dataclass(frozen=True)
class Books:
    """The number of trials of each kind.

    Attributes:
        completed: with their own value or another trial's; infeasible trials included.
        failed: without a value, and not tried again.
        retried: lost or interrupted; another trial took their place.
        running: at this moment, of any driver.
        waiting: in the queue.
        surplus: begun when other trials had used the budget, and ended at once.
    """

    completed: int
    failed: int
    retried: int
    running: int
    waiting: int
    surplus: int

    @property
    def spent(self) -> int:
        """Trials that count against the budget."""
        return self.completed + self.failed

    @property
    def begun(self) -> int:
        """Trials that count against the budget, now or later."""
        return self.spent + self.running


def keep_books(trials: Sequence[FrozenTrial], before: int | None = None) -> Books:
    """Counts the trials of a study.

    Args:
        before: only those with a lower number than this.
    """
    again = _tried_again(trials)
    counts = dict.fromkeys(("completed", "failed", "retried", "running", "waiting", "surplus"), 0)
    for trial in trials:
        if before is None or trial.number < before:
            counts[_kind(trial, again)] += 1
    return Books(**counts)


def _kind(trial: FrozenTrial, again: frozenset[int]) -> str:
    if trial.state in _KINDS:
        return _KINDS[trial.state]
    if SURPLUS in trial.user_attrs:
        return "surplus"
    return "retried" if trial.number in again else "failed"


def _tried_again(trials: Sequence[FrozenTrial]) -> frozenset[int]:
    # Optuna's own way to read this is experimental, and warns.
    return frozenset(n for trial in trials for n in trial.system_attrs.get("retry_history", []))


def failures(trials: Sequence[FrozenTrial]) -> list[tuple[int, str]]:
    """Returns number and reason of each trial that has no value and was not tried again."""
    again = _tried_again(trials)
    return [
        (trial.number, trial.user_attrs.get(REASON, "lost, and retried too often"))
        for trial in trials
        if trial.state is TrialState.FAIL and _kind(trial, again) == "failed"
    ]


def give_back(study: optuna.Study, number: int) -> None:
    """Returns a trial that ended without a value to the queue."""
    retry(study, study.trials[number])


def recover(study: optuna.Study) -> list[FrozenTrial]:
    """Marks trials that dead drivers of this machine left running, and returns them to the queue.

    Optuna's heartbeats do the same for drivers of other machines, after their grace period.
    """
    lost = [trial for trial in study.get_trials() if _is_lost(trial)]
    for trial in lost:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        give_back(study, trial.number)
    return lost


def _is_lost(trial: FrozenTrial) -> bool:
    if trial.state is not TrialState.RUNNING:
        return False
    driver = trial.user_attrs.get(DRIVER)
    age = datetime.now() - (trial.datetime_start or datetime.now())
    if driver is None or age < _SETTLED:
        return age > _NAMELESS
    return is_dead_here(driver)
