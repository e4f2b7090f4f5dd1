"""The entry points `teacher`, `student`, `distill` and `sweep`."""

import shlex
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mlflow

from kdplatform.arguments import Arguments
from kdplatform.errors import UnfinishedError
from kdplatform.experiments import records
from kdplatform.experiments.condition_results import log_conditions
from kdplatform.experiments.delivery import Delivery, deliver
from kdplatform.experiments.executors import open_executor
from kdplatform.experiments.executors.inline import InlineExecutor
from kdplatform.experiments.gate_run import log_gate
from kdplatform.experiments.gates import checked_gate, enforce
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
from kdplatform.experiments.store_faults import shown_store, store_errors
from kdplatform.experiments.tracking import (
    begin_command,
    changes_are_logged,
    close_abandoned_children,
    command_run,
    quiet_mlflow,
)
from kdplatform.experiments.weights import check_weights_files
from kdplatform.experiments.workspace import Workspace, build_loss_kernels, open_workspace
from kdplatform.progress import say, show
from kdplatform.redaction import redacted
from kdplatform.reporting.gate_files import write_gate
from kdplatform.reporting.summary import arms_text, sweep_text
from kdplatform.settings.gates import GateFile
from kdplatform.settings.schema import ProjectConfig
from kdplatform.settings.words import in_ranges
from kdplatform.stores import absolute_uri, is_server
from kdplatform.study.classes import ClassWise
from kdplatform.study.gate_metrics import gate_metrics
from kdplatform.study.gates import JudgedGate, judge_gate
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Study


def run_command(command: str, config: ProjectConfig, arguments: Arguments) -> None:
    """Runs an entry point under a run of its own and prints the results."""
    started = time.perf_counter()
    quiet_mlflow()
    # The nodes of a cluster resolve the device themselves; this machine only schedules.
    device = "cpu" if arguments.executor == "ray" else arguments.device
    rules = checked_gate(arguments.gate, config.attributes, out=arguments.gate_out)
    delivery = Delivery.checked(arguments)
    check_weights_files(config, command)
    workspace = open_workspace(
        config,
        arguments.data_folder,
        device,
        arguments.reuse,
        arguments.processes,
        trains_here=arguments.executor != "ray",
    )
    changes_are_logged()
    begin_command()
    with store_errors(), command_run(command, config, command_title(command, config)) as run_id:
        records.log_dataset(workspace.dataset)
        if command == "sweep":
            trained = _sweep(workspace, run_id, arguments)
        else:
            steps = _steps(command, config, workspace.dataset.digest)
            trained = _train(workspace, steps, run_id)
        study, text, gate = _results(command, workspace, trained, rules, arguments.gate_out)
        failures = trained.failures
        if delivery.is_wanted:
            text = "\n".join([text, *deliver(workspace, command, trained, delivery, study)])
        mlflow.log_text(text, "summary.txt")
        show(f"\n{text}\n\n{where_to_look(run_id)}")
        say(f"{command}: {time.perf_counter() - started:.0f} s")
        report_failures(failures)
    enforce(gate)


def command_title(command: str, config: ProjectConfig) -> str:
    """Returns the part of a run's name that distinguishes runs of one command."""
    seeds = f"seed{'s' if len(config.seeds) > 1 else ''} {in_ranges(config.seeds)}"
    if command == "distill":
        return f"{config.name} {method_title(config.distillation)} {seeds}"
    if command not in ("sweep", "report"):
        return f"{config.name} {seeds}"
    methods = ",".join(method.method for method in config.compared_methods)
    varied = any(method.softmax_temperature is not None for method in config.compared_methods)
    temperatures = f" T={in_ranges(config.temperatures)}" if varied else ""
    return f"{config.name} {methods}{temperatures} {seeds}"


def _train(workspace: Workspace, steps: Sequence[Step], run_id: str) -> Trained:
    """Trains, one after the other in this process, the models that are not trained yet."""
    known = find_trained(workspace, steps) if workspace.reuse else {}
    for model in known.values():
        say(reused_line(model.step, model.run_id))
    # The meaning of weights, such as the names of the classes, may have changed since they were
    # used.
    given = (step for step in steps if step.key not in known or step.training.weights is not None)
    check_steps(workspace, given)
    scheduler = Scheduler(workspace, str(workspace.device), InlineExecutor(), known)
    return scheduler.run(steps, run_id)


def _results(
    command: str,
    workspace: Workspace,
    trained: Trained,
    rules: GateFile | None,
    gate_out: Path | None,
) -> tuple[Study, str, JudgedGate | None]:
    """Logs the results of a command's models; returns them, their text and the gate's outcome."""
    config, names = workspace.config, workspace.dataset.class_names
    study = study_of(config, names, trained, with_scores=rules is not None)
    if not study.arms:
        return study, "no model is there", None
    classes, groups = ClassWise(study), GroupWise(study)
    members = members_of(config, names, trained)
    scale = None
    if command == "sweep":
        log_sweep(classes, groups)
        scale = step_scale([arm.temperature or 0.0 for arm in study.distilled])
        text = sweep_text(classes, groups, config.seeds, members)
    else:
        log_arms(classes, groups)
        log_samples(workspace.dataset)
        text = arms_text(classes, groups, members)
    log_members(members)
    under = log_conditions(config, names, trained, step_scale=scale)
    text = "\n\n".join([text, *under])
    gate = None
    if rules is not None and study.distilled:
        known = gate_metrics(config.attributes, REFERENCES)
        gate = judge_gate(rules, study, classes, known)
        log_gate(gate, study)
        if gate_out is not None:
            write_gate(gate, gate_out)
    return study, text, gate


def _sweep(workspace: Workspace, run_id: str, arguments: Arguments) -> Trained:
    """Trains or finds the whole study."""
    config = workspace.config
    if any(method.softmax_temperature is not None for method in config.compared_methods):
        step_scale(config.temperatures)  # refuses temperatures that could not be logged at the end
    log_samples(workspace.dataset)
    build_loss_kernels()
    executor = partial(open_executor, arguments)
    steps = study_steps(config, workspace.dataset.digest, config.temperatures)
    try:
        return run_graph(workspace, steps, arguments.device, run_id, executor, "sweep")
    finally:
        close_abandoned_children(run_id)


def report_failures(failures: Sequence[Failure]) -> None:
    """Prints which models failed and why.

    Raises:
        UnfinishedError: there are failures.
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
        "command trains what is missing"
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
    """Returns the instructions for viewing the runs."""
    uri = mlflow.get_tracking_uri()
    run = mlflow.get_run(run_id)
    page = f"/#/experiments/{run.info.experiment_id}/runs/{run_id}"
    if is_server(uri):
        return f"see it at {shown_store().rstrip('/')}{page}"
    # The URI may contain a password, which the user's shell has already.
    secret = shown_store() != uri
    store = '"$MLFLOW_TRACKING_URI"' if secret else shlex.quote(absolute_uri(uri))
    return (
        f"see it with: mlflow ui --backend-store-uri {store}\nthen at http://127.0.0.1:5000{page}"
    )
