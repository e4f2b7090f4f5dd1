"""The search: Optuna's loop with one thread per worker, and the record of trials."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import isnan, nan

import optuna
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from kdplatform.experiments.graph import STUDENT
from kdplatform.experiments.scheduler import InterruptedGraphError, Scheduler, Trained
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import Workspace
from kdplatform.predictions import Predictions
from kdplatform.processes import this_process
from kdplatform.progress import say
from kdplatform.redaction import redacted
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.study.metrics import in_metric_name
from kdplatform.study.study import NDS, Arm
from kdplatform.tuning import trials as books
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.measures import Measure, means
from kdplatform.tuning.references import (
    References,
    floors,
    point_steps,
    search_seeds,
    violations,
)
from kdplatform.tuning.space import Point, draw
from kdplatform.tuning.storage import GRACE_SECONDS
from kdplatform.tuning.trial_runs import TrialFailedError, TrialRuns, log_result
from kdplatform.tuning.trials import Result

_LOOK_EVERY_SECONDS = 0.1
_WAIT_SECONDS = 1.0
# How long a trial that has not published its point delays later trials.
_CHOOSING = timedelta(seconds=60)


@dataclass
class Search:
    """One driver of a study.

    Attributes:
        scheduler: open for the whole search; knows the references' models.
        runs: opens trials' runs.
        heartbeats: whether the storage detects dead drivers.
        stop: set to end the search.
    """

    study: optuna.Study
    workspace: Workspace
    measure: Measure
    references: References
    scheduler: Scheduler
    runs: TrialRuns
    heartbeats: bool
    stop: threading.Event
    _interrupted: list[int] = field(default_factory=list)
    _error: list[BaseException] = field(default_factory=list)
    _ended: threading.Event = field(default_factory=threading.Event)

    @property
    def config(self) -> ProjectConfig:
        """The project's configuration."""
        return self.workspace.config

    def run(self, threads: int) -> None:
        """Runs trials until the study has the requested number.

        A KeyboardInterrupt ends the running trials, which return to the queue.
        """
        loop = threading.Thread(target=self._guarded, args=(threads,), name="tuner")
        loop.start()
        try:
            # Not join: after Ctrl-C during join, Python 3.11 treats the thread as ended.
            while not self._ended.wait(_WAIT_SECONDS):
                pass
        except BaseException:
            self.stop.set()
            self._ended.wait()
            for number in sorted(self._interrupted):
                books.give_back(self.study, number)
            raise
        if self._error:
            raise self._error[0]

    def _guarded(self, threads: int) -> None:
        try:
            self._loop(threads)
        except InterruptedGraphError:
            pass
        except BaseException as error:
            self._error.append(error)
        finally:
            self._ended.set()

    def _loop(self, threads: int) -> None:
        waited = False
        while not self.stop.is_set():
            counted = self._books()
            need = self.config.tuning.trials - counted.begun
            if need > 0:
                self.study.optimize(
                    self._objective,
                    n_trials=need,
                    n_jobs=min(threads, need),
                    catch=(TrialFailedError,),
                    callbacks=[self._after_trial],
                )
            elif counted.running and self.heartbeats:
                if not waited:
                    say(
                        f"tune: other drivers are running {counted.running} trials; waiting (a "
                        f"trial whose driver is dead is tried again after {GRACE_SECONDS} s)"
                    )
                    waited = True
                self.stop.wait(_WAIT_SECONDS)
                fail_stale_trials(self.study)
                # A driver that was killed before its first heartbeat never looks dead.
                books.recover(self.study)
            else:
                return

    def _books(self) -> books.Books:
        return books.keep_books(self.study.get_trials(deepcopy=False))

    # ---- one trial

    def _objective(self, trial: Trial) -> Sequence[float]:
        try:
            return self._tried(trial)
        except InterruptedGraphError:
            self._interrupted.append(trial.number)
            self.study.stop()
            raise
        except Exception as error:
            trial.set_user_attr(books.REASON, redacted(" ".join(str(error).split())))
            raise

    def _tried(self, trial: Trial) -> Sequence[float]:
        if self.stop.is_set():
            raise InterruptedGraphError
        trial.set_user_attr(books.DRIVER, this_process())
        point = draw(trial, self.config)
        trial.set_user_attr(books.POINT, point.as_dict())
        others = self.study.get_trials(deepcopy=False)
        if books.keep_books(others, trial.number).begun >= self.config.tuning.trials:
            trial.set_user_attr(books.SURPLUS, True)
            self.study.stop()
            raise TrialFailedError("not needed: enough trials are there or under way")
        with self.runs.open(trial.number, point.title(self.config), point.as_dict()) as run_id:
            trial.set_user_attr(books.RUN, run_id)
            known = self._taken_over(trial.number, point, others)
            result = known or self._measured(point, run_id)
            self._log(run_id, point, result)
        trial.set_user_attr(books.RESULT, result.as_dict())
        for name, value in result.constraints.items():
            trial.set_constraint(name, value)
        if self.config.tuning.mode == "constrained":
            return [result.outcome.unfairness]
        return list(result.outcome)

    def _taken_over(
        self, number: int, point: Point, others: Sequence[FrozenTrial]
    ) -> Result | None:
        """Returns the result of a trial of the same point, waiting for it if it is running.

        Of running trials the lower number goes first. A trial waits until all earlier ones have
        published their points, so that two drivers on two machines never train the same point.
        """
        while True:
            for other in others:
                known = books.evaluated(other)
                if known is not None and known.point == point:
                    return replace(known, same_as=known.number)
            if not any(_goes_first(other, number, point) for other in others):
                return None
            if self.stop.wait(_LOOK_EVERY_SECONDS):
                raise InterruptedGraphError
            if self.heartbeats:
                fail_stale_trials(self.study)
            others = self.study.get_trials(deepcopy=False)

    def _measured(self, point: Point, run_id: str) -> Result:
        steps = point_steps(
            self.config, point, search_seeds(self.config), self.workspace.dataset.digest
        )
        asked = floors(self.config, self.references)
        trained = self.scheduler.run(steps, run_id, stop=self.stop)
        for failure in trained.failures:
            # A crash is more informative than a divergence.
            if not failure.diverged:
                raise TrialFailedError(failure.reason)
        if trained.failures:
            worst = self.references.reference_point(self.measure)
            constraints = violations(asked, worst.accuracy, 0.0, diverged=True)
            return Result(
                outcome=worst, worst_group_accuracy=nan, constraints=constraints, diverged=True
            )
        distilled = trained.of_role(Role.DISTILLED)
        judged, collapsed = self._judged(point, distilled, trained)
        accuracy, unfairness, worst_group = judged
        return Result(
            outcome=Outcome(accuracy, unfairness),
            worst_group_accuracy=worst_group,
            constraints=violations(
                asked, accuracy, worst_group, diverged=False, collapsed=collapsed
            ),
            run_ids=tuple(model.run_id for model in distilled),
        )

    def _judged(
        self, point: Point, distilled: Sequence[TrainedModel], trained: Trained
    ) -> tuple[list[float], int]:
        """Returns the means of `MEASURES` on validation data over the students of a point.

        And how much shows that they collapsed.
        """
        tables: dict[Arm, dict[int, Predictions]] = {NDS: {}, point.arm: {}}
        for model in distilled:
            seed, key = model.step.seed, model.step.needs[STUDENT].key
            student = self.references.students.get(key)
            if student is None:
                student = trained.models[key].predictions("val")
            tables[NDS][seed], tables[point.arm][seed] = student, model.predictions("val")
        scores = self.measure.scores(tables, self.references.similar)
        found = means(scores[scores["role"] == Role.DISTILLED.value])
        if isnan(found[1]):
            why = self.measure.notes(tables[point.arm].values())
            raise TrialFailedError(
                f"{self.measure.label} is undefined on validation data ({why or 'NaN'})"
            )
        own = tables[point.arm]
        return found, self.measure.collapsed(own.values(), tables[NDS].values())

    def _log(self, run_id: str, point: Point, result: Result) -> None:
        metrics = {
            "val/worst_group_accuracy": result.worst_group_accuracy,
            **{f"constraint/{name}": value for name, value in result.constraints.items()},
        }
        if not result.diverged:
            metrics |= {
                "val/accuracy": result.outcome.accuracy,
                f"val/{in_metric_name(self.measure.slug)}": result.outcome.unfairness,
            }
        feasible = str(result.feasible).lower()
        tags = {"kd.feasible": feasible, "kd.models": ",".join(result.run_ids)}
        if result.same_as is not None:
            tags["kd.same_as_trial"] = str(result.same_as)
        log_result(run_id, point.as_dict(), metrics, tags)

    # ---- after a trial

    def _after_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        counted = self._books()
        if counted.begun >= self.config.tuning.trials:
            study.stop()
        if books.SURPLUS not in trial.user_attrs:
            say(f"[{counted.spent}/{self.config.tuning.trials}] {self._line(trial)}")

    def _line(self, trial: FrozenTrial) -> str:
        known = books.evaluated(trial)
        if known is None:
            return f"trial {trial.number}: failed: {trial.user_attrs.get(books.REASON, '')}"
        title = f"trial {trial.number} {known.point.title(self.config)}: "
        if known.diverged:
            return title + "its training diverged"
        value = self.measure.shown(known.outcome.unfairness)
        broken = [name for name, violated in known.constraints.items() if violated > 0]
        notes = f", violates a constraint ({', '.join(broken)})" if broken else ""
        notes += "" if known.same_as is None else f", as trial {known.same_as}"
        accuracy = f"{100 * known.outcome.accuracy:.2f}"
        return f"{title}validation accuracy {accuracy}, {self.measure.label} {value}{notes}"


def _goes_first(other: FrozenTrial, number: int, point: Point) -> bool:
    """Returns whether a running trial may train this same point, now or soon."""
    if other.state is not TrialState.RUNNING or other.number >= number:
        return False
    if books.POINT in other.user_attrs:
        return Point.read(other.user_attrs[books.POINT]) == point
    return other.datetime_start is None or datetime.now() - other.datetime_start < _CHOOSING
