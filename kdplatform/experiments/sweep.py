"""A study over temperatures and seeds as a list of units, of which only what is missing is trained.

A unit is one model. Which units there are follows from the configuration alone, and each has its
step's key, so that the same command started again finds what is done.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow

from kdplatform.config import ProjectConfig
from kdplatform.experiments.executors import Assignment, Executor, Outcome
from kdplatform.experiments.identity import (
    Step,
    distilled_step,
    student_step,
    teacher_seed,
    teacher_step,
)
from kdplatform.experiments.steps import TrainedModel, find_trained, load_trained
from kdplatform.experiments.sweep_progress import SweepProgress
from kdplatform.experiments.workspace import Workspace
from kdplatform.progress import say
from kdplatform.roles import Role

# Opens an executor for this many units.
OpenExecutor = Callable[[int], AbstractContextManager[Executor]]

# How often the display is brought up to date while no unit ends.
_LOOK_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Unit:
    """One model of a study.

    Attributes:
        config: the project's, with the unit's temperature.
        needs: keys of the units whose models it needs, by role.
    """

    config: ProjectConfig
    step: Step
    needs: Mapping[Role, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A unit that could not be trained.

    Attributes:
        reason: one line.
        trace: where in the program an unexpected error came from; empty for expected ones.
    """

    unit: Unit
    reason: str
    trace: str = ""


@dataclass(frozen=True)
class Study:
    """The trained models of a study, by key of their unit, and the units that failed."""

    units: Sequence[Unit]
    models: Mapping[str, TrainedModel]
    failures: Sequence[Failure]

    def arm(self, role: Role, temperature: float | None = None) -> list[TrainedModel]:
        """Returns the models of a role, those of one temperature for distilled students."""
        return [
            self.models[unit.step.key]
            for unit in self.units
            if unit.step.key in self.models
            and unit.step.role is role
            and (temperature is None or unit.config.distillation.temperature == temperature)
        ]


def study_units(config: ProjectConfig, dataset_digest: str) -> list[Unit]:
    """Returns the study's units, each once, those first that others need."""
    seeds = config.seeds
    teachers = [
        Unit(config, teacher_step(config, own, dataset_digest))
        for own in dict.fromkeys(teacher_seed(config, seed) for seed in seeds)
    ]
    students = [Unit(config, student_step(config, seed, dataset_digest)) for seed in seeds]
    teacher_of = {unit.step.seed: unit.step.key for unit in teachers}
    distilled = [
        Unit(
            at_temperature,
            distilled_step(at_temperature, seed, dataset_digest),
            {
                Role.TEACHER: teacher_of[teacher_seed(config, seed)],
                Role.STUDENT: student.step.key,
            },
        )
        for at_temperature in (_at_temperature(config, t) for t in config.temperatures)
        for seed, student in zip(seeds, students, strict=True)
    ]
    return [*teachers, *students, *distilled]


def _at_temperature(config: ProjectConfig, temperature: float) -> ProjectConfig:
    distillation = config.distillation.model_copy(update={"temperature": temperature})
    return config.model_copy(update={"distillation": distillation})


def run_study(
    workspace: Workspace,
    device: str,
    parent_run_id: str,
    open_executor: OpenExecutor,
) -> Study:
    """Finds the study's models and trains those that are missing; `run_units` has the arguments."""
    units = study_units(workspace.config, workspace.dataset.digest)
    return run_units(workspace, units, device, parent_run_id, open_executor)


def run_units(
    workspace: Workspace,
    units: Sequence[Unit],
    device: str,
    parent_run_id: str,
    open_executor: OpenExecutor,
    title: str = "sweep",
) -> Study:
    """Finds the units' models and trains those that are missing.

    Args:
        units: each once.
        device: as it was asked for; each worker resolves it.
        parent_run_id: the command's run, under which the models' runs are logged.
        open_executor: gives an executor for this many units; called when units are missing.
        title: what the units are trained for, as the display says it.
    """
    steps = [unit.step for unit in units]
    models = find_trained(workspace, steps) if workspace.reuse else {}
    missing = [unit for unit in units if unit.step.key not in models]
    if not missing:
        say(f"{title}: {len(units)} units, all of them reused")
        return Study(units, models, [])
    template = AssignmentTemplate(workspace, device, parent_run_id)
    with open_executor(len(missing)) as executor:
        schedule = _Schedule(missing, models, template, executor, title)
        failures = schedule.run()
    return Study(units, models, failures)


class AssignmentTemplate:
    """What all assignments under one run have in common."""

    def __init__(self, workspace: Workspace, device: str, parent_run_id: str) -> None:
        self._workspace = workspace
        self._device = device
        self._parent_run_id = parent_run_id
        self._tracking_uri = absolute_uri(mlflow.get_tracking_uri())
        self._experiment_id = mlflow.get_run(parent_run_id).info.experiment_id

    def assignment(self, unit: Unit, references: Mapping[Role, tuple[Step, str]]) -> Assignment:
        """Returns a unit's assignment, given step and run of the models it needs."""
        return Assignment(
            config=unit.config,
            step=unit.step,
            references=references,
            folder=self._workspace.folder.resolve(),
            device=self._device,
            reuse=self._workspace.reuse,
            tracking_uri=self._tracking_uri,
            experiment_id=self._experiment_id,
            parent_run_id=self._parent_run_id,
        )


class _Schedule:
    """Hands units to the executor as soon as what they need is there."""

    def __init__(
        self,
        units: Sequence[Unit],
        models: dict[str, TrainedModel],
        template: AssignmentTemplate,
        executor: Executor,
        title: str,
    ) -> None:
        self._waiting = {unit.step.key: unit for unit in units}
        self._running: dict[Future[Outcome], Unit] = {}
        self._failures: dict[str, Failure] = {}
        self._models = models
        self._template = template
        self._executor = executor
        self._progress = SweepProgress(
            [unit.step for unit in units], reused=len(models), slots=executor.slots, title=title
        )

    def run(self) -> list[Failure]:
        """Runs all units to their end; adds their models to those given."""
        with self._progress:
            while self._waiting or self._running:
                self._give_up_what_cannot_run()
                self._submit_what_can()
                self._progress.show(in_flight=len(self._running))
                ended, _ = wait(
                    self._running, timeout=_LOOK_EVERY_SECONDS, return_when=FIRST_COMPLETED
                )
                for future in ended:
                    self._take(self._running.pop(future), future)
        return list(self._failures.values())

    def _submit_what_can(self) -> None:
        ready = [u for u in self._waiting.values() if set(u.needs.values()) <= self._models.keys()]
        for unit in ready:
            del self._waiting[unit.step.key]
            needed = {role: self._models[key] for role, key in unit.needs.items()}
            references = {role: (model.step, model.run_id) for role, model in needed.items()}
            assignment = self._template.assignment(unit, references)
            self._running[self._executor.submit(assignment)] = unit

    def _give_up_what_cannot_run(self) -> None:
        for unit in list(self._waiting.values()):
            lost = [self._failures[key] for key in unit.needs.values() if key in self._failures]
            if lost:
                del self._waiting[unit.step.key]
                self._fail(unit, f"not tried: it needs {lost[0].unit.step.title}, which failed")

    def _take(self, unit: Unit, future: "Future[Outcome]") -> None:
        error = future.exception()
        if error is not None:
            reason = " ".join(str(error).split()) or type(error).__name__
            self._fail(unit, reason)
            return
        outcome = future.result()
        if outcome.run_id is None:
            self._fail(unit, outcome.error, outcome.trace, outcome.messages)
            return
        key = unit.step.key
        self._models[key] = load_trained(unit.step, outcome.run_id, reused=outcome.reused)
        self._progress.done(unit.step, outcome.messages, outcome.seconds, reused=outcome.reused)

    def _fail(self, unit: Unit, reason: str, trace: str = "", messages: Iterable[str] = ()) -> None:
        self._failures[unit.step.key] = Failure(unit, reason, trace)
        self._progress.failed(unit.step, [*messages, f"{unit.step.title}: failed: {reason}"])


def absolute_uri(uri: str) -> str:
    """Returns a tracking URI that means the same store from any working directory."""
    path = uri.removeprefix("sqlite:///")
    if path == uri:
        return uri
    return f"sqlite:///{Path(path).resolve()}"
