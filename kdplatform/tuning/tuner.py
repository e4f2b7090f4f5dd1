"""One call of `tune`: references, search, results, and confirmation of the chosen points."""

import shlex
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import mlflow
import optuna
from optuna.storages import fail_stale_trials

from kdplatform.arguments import Arguments
from kdplatform.errors import InfeasibleError, UnfinishedError
from kdplatform.experiments.commands import report_failures
from kdplatform.experiments.executors import Executor, open_executor
from kdplatform.experiments.graph import Step
from kdplatform.experiments.scheduler import Failure, Scheduler, Trained, run_graph
from kdplatform.experiments.steps import check_steps
from kdplatform.experiments.tracking import close_abandoned_children
from kdplatform.experiments.workspace import Workspace, build_loss_kernels
from kdplatform.progress import say
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig
from kdplatform.stores import absolute_uri, told_apart
from kdplatform.study.metrics import in_metric_name
from kdplatform.tuning import trials as books
from kdplatform.tuning.confirmation import confirm, confirmation_steps
from kdplatform.tuning.dimensions import searched_methods
from kdplatform.tuning.measures import Measure
from kdplatform.tuning.references import (
    References,
    fresh_seeds,
    point_steps,
    read_references,
    search_seeds,
)
from kdplatform.tuning.results import (
    Found,
    log_confirmed,
    log_found,
    save_choices,
)
from kdplatform.tuning.search import Search
from kdplatform.tuning.selection import Choice, choose
from kdplatform.tuning.space import Point, first_points, parameters
from kdplatform.tuning.storage import storage_url
from kdplatform.tuning.text import (
    confirmation_text,
    infeasible_line,
    methods_notes,
    search_text,
    unsearched_note,
)
from kdplatform.tuning.trial_runs import TrialRuns, close_lost

_QUEUED = "kd.queued"
# How long a second driver waits until the first has queued the paper's grid.
_QUEUE_SECONDS = 10.0
_RUNS = "mlflow.run_ids"


class Tuner:
    """Carries out a study, or continues it.

    Args:
        run_id: the command's run.
        heartbeats: whether the storage detects dead drivers.
    """

    def __init__(
        self,
        workspace: Workspace,
        arguments: Arguments,
        measure: Measure,
        study: optuna.Study,
        run_id: str,
        heartbeats: bool,
    ) -> None:
        self._workspace = workspace
        self._config: ProjectConfig = workspace.config
        self._arguments = arguments
        self._measure = measure
        self._study = study
        self._run_id = run_id
        self._heartbeats = heartbeats
        self._failures: list[Failure] = []
        self._found: Found | None = None

    def run(self) -> str:
        """Runs every part of the study and returns the results as text."""
        for note in (unsearched_note(self._config), *methods_notes(self._config)):
            if note:
                say(f"tune: {note}")
        self._check_methods()
        build_loss_kernels()
        tuning = self._config.tuning
        most = max(tuning.trials * tuning.seeds_per_trial, tuning.confirm_seeds)
        with open_executor(self._arguments, most) as executor:
            references = self._references(executor)
            if references is None:
                return "no search: its references could not be trained"
            self._prepare()
            try:
                self._search(executor, references)
            except KeyboardInterrupt:
                self._log_found(references)
                raise
            found, choices = self._log_found(references)
            text = [search_text(found, self._books(), choices)]
            if len(choices) > 1 and self._config.tuning.confirm_seeds:
                text.append(self._confirm(executor, choices))
            if choices:
                path = shlex.quote(str(save_choices(found, choices, self._folder())))
                text.append(f"distil with the best point: kdplatform distill --config {path}")
        return "\n\n".join(text)

    def _check_methods(self) -> None:
        """Tries the methods that the references do not train, before anything is trained.

        Raises:
            UserError: one cannot learn from these data.
        """
        config, digest = self._config, self._workspace.dataset.digest
        others = (m for m in searched_methods(config) if m != config.distillation.method)
        points = [Point.of(config, method) for method in others]
        check_steps(
            self._workspace,
            [
                step
                for point in points
                for step in point_steps(config, point, search_seeds(config)[:1], digest)
                if step.role is Role.DISTILLED
            ],
        )

    def _folder(self) -> Path:
        """Returns the folder of the results, which no other study of the same name shares."""
        name = told_apart(
            # The name must be valid on every system and must not leave the folder.
            in_metric_name(self._study.study_name),
            self._workspace.dataset.digest,
            absolute_uri(mlflow.get_tracking_uri()),
            absolute_uri(storage_url(self._arguments.storage)),
        )
        return self._workspace.folder / "tuning" / name

    def report(self) -> None:
        """Raises the error for missing results, if any.

        Raises:
            UnfinishedError: models could not be trained, or no trial has a value.
            InfeasibleError: no trial satisfies the constraints.
        """
        report_failures(self._failures)
        assert self._found is not None
        if not self._found.trials:
            failed = books.failures(self._study.get_trials(deepcopy=False))
            why = f"; trial {failed[-1][0]}: {failed[-1][1]}" if failed else ""
            raise UnfinishedError(f"no trial of study {self._study.study_name} has a value{why}")
        if not any(trial.feasible for trial in self._found.trials):
            raise InfeasibleError(infeasible_line(self._found))

    def _books(self) -> books.Books:
        return books.keep_books(self._study.get_trials(deepcopy=False))

    def _train(self, executor: Executor, steps: Sequence[Step], title: str) -> Trained:
        try:
            trained = run_graph(
                self._workspace,
                steps,
                self._arguments.device,
                self._run_id,
                lambda count: nullcontext(executor),
                title,
            )
        finally:
            close_abandoned_children(self._run_id)
        self._failures.extend(trained.failures)
        return trained

    def _references(self, executor: Executor) -> References | None:
        """Trains or finds Teacher, NDS and baseline. Returns None if one of them failed."""
        digest = self._workspace.dataset.digest
        steps = point_steps(
            self._config, Point.of(self._config), search_seeds(self._config), digest
        )
        trained = self._train(executor, steps, "references")
        if trained.failures:
            return None
        return read_references(self._config, self._measure, trained, digest)

    # ---- search

    def _prepare(self) -> None:
        """Recovers the trials of dead drivers, and queues the first points."""
        for trial in books.recover(self._study):
            say(f"trial {trial.number}: its driver died; it is tried again")
            if run_id := trial.user_attrs.get(books.RUN):
                close_lost(run_id)
        if self._heartbeats:
            fail_stale_trials(self._study)
        self._study.set_user_attr(_RUNS, [*self._study.user_attrs.get(_RUNS, []), self._run_id])
        self._queue()
        counted = self._books()
        say(
            f"tune: study {self._study.study_name}, {counted.spent} of "
            f"{self._config.tuning.trials} trials are done"
        )

    def _queue(self) -> None:
        """Queues the paper's grid, once per study."""
        if not self._config.tuning.grid:
            return
        trials = self._study.get_trials(deepcopy=False)
        deadline = time.monotonic() + (_QUEUE_SECONDS if trials else 0.0)
        while _QUEUED not in self._study.user_attrs and time.monotonic() < deadline:
            time.sleep(0.1)
        if _QUEUED in self._study.user_attrs:
            return
        there = [t.system_attrs.get("fixed_params", t.params) for t in self._study.trials]
        for point in first_points(self._config):
            values = parameters(point, self._config)
            if values not in there:
                self._study.enqueue_trial(values)
        self._study.set_user_attr(_QUEUED, True)

    def _search(self, executor: Executor, references: References) -> None:
        stop = threading.Event()
        device = self._arguments.device
        experiment_id = mlflow.get_run(self._run_id).info.experiment_id
        search = Search(
            self._study,
            self._workspace,
            self._measure,
            references,
            Scheduler(self._workspace, device, executor, dict(references.models)),
            TrialRuns(experiment_id, self._run_id, self._config.name, self._study.study_name),
            self._heartbeats,
            stop,
        )
        search.run(executor.slots)

    # ---- afterwards

    def _log_found(self, references: References) -> tuple[Found, list[Choice]]:
        trials = books.all_evaluated(self._study)
        found = Found(self._config, self._measure, references, self._study, trials)
        self._found = found
        if not found.trials:
            return found, []
        log_found(found)
        if not any(trial.feasible for trial in found.trials):
            return found, []
        return found, choose(self._config, references, found.trials)

    def _confirm(self, executor: Executor, choices: Sequence[Choice]) -> str:
        steps = confirmation_steps(self._config, choices, self._workspace.dataset.digest)
        trained = self._train(executor, steps, "confirmation")
        arms = confirm(self._workspace, self._measure, choices, trained)
        log_confirmed(self._measure, arms)
        return confirmation_text(self._measure, arms, fresh_seeds(self._config))
