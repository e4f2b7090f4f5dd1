"""The entry points `teacher`, `student`, `distill` and `sweep`."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import mlflow

from kdplatform.config import ProjectConfig, dump_yaml, flatten
from kdplatform.errors import UnfinishedError
from kdplatform.experiments import records
from kdplatform.experiments.backend import build_loss_kernels
from kdplatform.experiments.executors import Executor, open_executor
from kdplatform.experiments.identity import (
    distilled_step,
    student_step,
    teacher_seed,
    teacher_step,
)
from kdplatform.experiments.results import (
    log_arms,
    log_samples,
    log_sweep,
    step_scale,
    study_of,
)
from kdplatform.experiments.steps import TrainedModel, obtain
from kdplatform.experiments.sweep import Failure, run_study
from kdplatform.experiments.tracking import (
    close_abandoned_children,
    command_run,
    log_new_parameters,
    prepare_store,
    quiet_mlflow,
    store_errors,
)
from kdplatform.experiments.workspace import Workspace, open_workspace
from kdplatform.parameters import Arguments
from kdplatform.progress import say
from kdplatform.reporting.summary import arms_text, sweep_text
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise


def run_command(command: str, config: ProjectConfig, arguments: Arguments) -> None:
    """Runs an entry point under a run of its own and prints what came out."""
    started = time.perf_counter()
    quiet_mlflow()
    # A cluster's nodes resolve the device for themselves; this machine only keeps the books.
    device = "cpu" if arguments.executor == "ray" else arguments.device
    workspace = open_workspace(config, arguments.data_folder, device, arguments.reuse)
    prepare_store()
    tags = {"kd.command": command, "kd.project": config.name}
    with store_errors(), command_run(_title(command, config), tags) as run_id:
        log_new_parameters(flatten(config))
        mlflow.log_text(dump_yaml(config), "config.yaml")
        records.log_dataset(workspace.dataset)
        if command == "sweep":
            text, failures = _sweep(workspace, run_id, arguments)
        else:
            text, failures = _arms(workspace, _COMMANDS[command](workspace, run_id)), []
        mlflow.log_text(text, "summary.txt")
        print(f"\n{text}\n\n{where_to_look(run_id)}", flush=True)
        say(f"{command}: {time.perf_counter() - started:.0f} s")
        report_failures(failures)


def _arms(workspace: Workspace, models: Sequence[TrainedModel]) -> str:
    """Logs the comparison of the arms and returns it as text."""
    dataset = workspace.dataset
    classes = ClassWise(study_of(workspace.config, dataset.class_names, models))
    log_arms(classes)
    log_samples(dataset)
    return arms_text(classes)


def _sweep(
    workspace: Workspace, run_id: str, arguments: Arguments
) -> tuple[str, Sequence[Failure]]:
    """Trains or finds the whole study, logs it and returns it as text, with what failed."""
    step_scale(workspace.config.temperatures)  # refuses what could not be logged at the end
    log_samples(workspace.dataset)
    build_loss_kernels()

    def executor(units: int) -> Executor:
        return open_executor(
            arguments.executor,
            device=arguments.device,
            workers=arguments.workers,
            address=arguments.address,
            units=units,
        )

    try:
        swept = run_study(workspace, arguments.device, run_id, executor)
    finally:
        close_abandoned_children(run_id)
    models = [swept.models[u.step.key] for u in swept.units if u.step.key in swept.models]
    if not models:
        return "no model is there", swept.failures
    config = workspace.config
    classes = ClassWise(study_of(config, workspace.dataset.class_names, models))
    log_sweep(classes)
    return sweep_text(classes, config.seeds), swept.failures


def report_failures(failures: Sequence[Failure]) -> None:
    """Says which units failed and why.

    Raises:
        UnfinishedError: there are any.
    """
    if not failures:
        return
    for failure in failures:
        say(f"failed: {failure.unit.step.title}: {failure.reason}")
    traces = [f"{f.unit.step.title}\n{f.trace}" for f in failures if f.trace]
    if traces:
        mlflow.log_text("\n".join(traces), "failures.txt")
    raise UnfinishedError(
        f"{len(failures)} units failed, as listed above; the others are kept, and the same "
        "command tries again what is missing"
    )


def _train_teachers(workspace: Workspace, run_id: str) -> list[TrainedModel]:
    config = workspace.config
    # A frozen teacher is the same for every seed.
    seeds = (teacher_seed(config, 0),) if config.teacher.frozen else config.seeds
    return [_teacher(workspace, seed, run_id) for seed in seeds]


def _train_students(workspace: Workspace, run_id: str) -> list[TrainedModel]:
    return [_student(workspace, seed, run_id) for seed in workspace.config.seeds]


def _distill(workspace: Workspace, run_id: str) -> list[TrainedModel]:
    """Trains or finds the teachers, the students and the distilled students of all seeds."""
    config, seeds = workspace.config, workspace.config.seeds
    teachers: dict[int, TrainedModel] = {}
    students: list[TrainedModel] = []
    for seed in seeds:
        own = teacher_seed(config, seed)
        if own not in teachers:
            teachers[own] = _teacher(workspace, own, run_id)
        student = _student(workspace, seed, run_id)
        step = distilled_step(config, seed, workspace.dataset.digest)
        references = {Role.TEACHER: teachers[own], Role.STUDENT: student}
        students += [student, obtain(workspace, step, run_id, references)]
    return [*teachers.values(), *students]


def _teacher(workspace: Workspace, seed: int, run_id: str) -> TrainedModel:
    step = teacher_step(workspace.config, seed, workspace.dataset.digest)
    return obtain(workspace, step, run_id)


def _student(workspace: Workspace, seed: int, run_id: str) -> TrainedModel:
    step = student_step(workspace.config, seed, workspace.dataset.digest)
    return obtain(workspace, step, run_id)


_COMMANDS: dict[str, Callable[[Workspace, str], Sequence[TrainedModel]]] = {
    "teacher": _train_teachers,
    "student": _train_students,
    "distill": _distill,
}


def _title(command: str, config: ProjectConfig) -> str:
    if command != "distill":
        return f"{command} {config.name}"
    chosen = config.distillation
    return f"{command} {config.name} T={chosen.temperature:g} alpha={chosen.alpha:g}"


def where_to_look(run_id: str) -> str:
    """Says how to look at the runs."""
    uri = mlflow.get_tracking_uri()
    run = mlflow.get_run(run_id)
    page = f"/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    if uri.startswith(("http://", "https://")):
        return f"see it at {uri.rstrip('/')}{page}"
    store = uri
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        store = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    return (
        f"see it with: mlflow ui --backend-store-uri {store}\nthen at http://127.0.0.1:5000{page}"
    )
