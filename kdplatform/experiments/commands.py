"""The entry points `teacher`, `student`, `distill` and `sweep`."""

import shlex
import time
from collections.abc import Sequence
from functools import partial

import mlflow

from kdplatform.arguments import Arguments
from kdplatform.errors import UnfinishedError
from kdplatform.experiments import records
from kdplatform.experiments.condition_results import log_conditions
from kdplatform.experiments.executors import open_executor
from kdplatform.experiments.executors.inline import InlineExecutor
from kdplatform.experiments.graph import (
    Step,
    logits_steps,
    method_title,
    student_step,
    study_steps,
    teacher_step,
    with_needs,
)
from kdplatform.experiments.results import (
    log_arms,
    log_members,
    log_samples,
    log_sweep,
    members_of,
    step_scale,
    study_of,
)
from kdplatform.experiments.scheduler import Failure, Scheduler, Trained, run_graph
from kdplatform.experiments.steps import check_steps, find_trained, reused_line
from kdplatform.experiments.tracking import (
    begin_command,
    changes_are_logged,
    close_abandoned_children,
    command_run,
    quiet_mlflow,
    shown_store,
    store_errors,
)
from kdplatform.experiments.workspace import Workspace, build_loss_kernels, open_workspace
from kdplatform.progress import say, show
from kdplatform.redaction import redacted
from kdplatform.reporting.summary import arms_text, sweep_text
from kdplatform.settings.schema import ProjectConfig
from kdplatform.stores import absolute_uri, is_server
from kdplatform.study.classes import ClassWise


def run_command(command: str, config: ProjectConfig, arguments: Arguments) -> None:
    """Runs an entry point under a run of its own and prints what came out."""
    started = time.perf_counter()
    quiet_mlflow()
    # A cluster's nodes resolve the device for themselves; this machine only keeps the books.
    device = "cpu" if arguments.executor == "ray" else arguments.device
    workspace = open_workspace(config, arguments.data_folder, device, arguments.reuse)
    changes_are_logged()
    begin_command()
    title = f"{config.name} {method_title(config.distillation)}" if command == "distill" else ""
    with store_errors(), command_run(command, config, title) as run_id:
        records.log_dataset(workspace.dataset)
        if command == "sweep":
            text, failures = _sweep(workspace, run_id, arguments)
        else:
            steps = _steps(command, config, workspace.dataset.digest)
            text, failures = _trained_text(workspace, _train(workspace, steps, run_id)), []
        mlflow.log_text(text, "summary.txt")
        show(f"\n{text}\n\n{where_to_look(run_id)}")
        say(f"{command}: {time.perf_counter() - started:.0f} s")
        report_failures(failures)


def _train(workspace: Workspace, steps: Sequence[Step], run_id: str) -> Trained:
    """Trains one model after the other, here, those that are not trained already."""
    known = find_trained(workspace, steps) if workspace.reuse else {}
    for model in known.values():
        say(reused_line(model.step, model.run_id))
    # What weights mean may have changed since they were used, such as the names of the classes.
    given = (step for step in steps if step.key not in known or step.training.weights is not None)
    check_steps(workspace, given)
    scheduler = Scheduler(workspace, str(workspace.device), InlineExecutor(), known)
    return scheduler.run(steps, run_id)


def _trained_text(workspace: Workspace, trained: Trained) -> str:
    """Logs the comparison of the arms and returns it as text."""
    dataset = workspace.dataset
    classes = ClassWise(study_of(workspace.config, dataset.class_names, trained))
    members = members_of(workspace.config, dataset.class_names, trained)
    log_arms(classes)
    log_members(members)
    log_samples(dataset)
    under = log_conditions(workspace.config, dataset.class_names, trained)
    return "\n\n".join([arms_text(classes, members), *under])


def _sweep(
    workspace: Workspace, run_id: str, arguments: Arguments
) -> tuple[str, Sequence[Failure]]:
    """Trains or finds the whole study, logs it and returns it as text, with what failed."""
    config = workspace.config
    if any(method.softmax_temperature is not None for method in config.compared_methods):
        step_scale(config.temperatures)  # refuses what could not be logged at the end
    log_samples(workspace.dataset)
    build_loss_kernels()
    executor = partial(open_executor, arguments)
    steps = study_steps(config, workspace.dataset.digest, config.temperatures)
    try:
        trained = run_graph(workspace, steps, arguments.device, run_id, executor, "sweep")
    finally:
        close_abandoned_children(run_id)
    if not trained.models:
        return "no model is there", trained.failures
    names = workspace.dataset.class_names
    study, members = study_of(config, names, trained), members_of(config, names, trained)
    if not study.arms:
        return "no model is there", trained.failures
    classes = ClassWise(study)
    log_sweep(classes)
    log_members(members)
    scale = step_scale([arm.temperature or 0.0 for arm in classes.study.distilled])
    under = log_conditions(config, names, trained, step_scale=scale)
    return "\n\n".join([sweep_text(classes, config.seeds, members), *under]), trained.failures


def report_failures(failures: Sequence[Failure]) -> None:
    """Says which models failed and why.

    Raises:
        UnfinishedError: there are any.
    """
    if not failures:
        return
    for failure in failures:
        say(f"failed: {failure.step.title}: {failure.reason}")
    traces = [f"{f.step.title}\n{f.trace}" for f in failures if f.trace]
    if traces:
        mlflow.log_text(redacted("\n".join(traces)), "failures.txt")
    raise UnfinishedError(
        f"{len(failures)} models failed, as listed above; the others are kept, and the same "
        "command tries again what is missing"
    )


def _steps(command: str, config: ProjectConfig, digest: str) -> list[Step]:
    """Returns the graph of a command that trains one model after the other."""
    if command == "teacher":
        # A frozen teacher is the same for every seed.
        seeds = (config.teacher_seed(0),) if config.teacher.frozen else config.seeds
        if config.teacher.logits:
            return logits_steps(config, digest)
        return with_needs(teacher_step(config, seed, digest) for seed in seeds)
    if command == "student":
        return with_needs(student_step(config, seed, digest) for seed in config.seeds)
    return study_steps(config, digest)


def where_to_look(run_id: str) -> str:
    """Says how to look at the runs."""
    uri = mlflow.get_tracking_uri()
    run = mlflow.get_run(run_id)
    page = f"/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    if is_server(uri):
        return f"see it at {shown_store().rstrip('/')}{page}"
    # A shell has the password that may be in it.
    secret = shown_store() != uri
    store = '"$MLFLOW_TRACKING_URI"' if secret else shlex.quote(absolute_uri(uri))
    return (
        f"see it with: mlflow ui --backend-store-uri {store}\nthen at http://127.0.0.1:5000{page}"
    )
