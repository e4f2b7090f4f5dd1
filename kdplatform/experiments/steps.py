"""One step of a study: find its trained model, or train the model and log it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import median

import mlflow
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from torch import nn

from kdplatform import interruption
from kdplatform.errors import DivergedError, UserError
from kdplatform.experiments import conditions, logged_models, records
from kdplatform.experiments.artifacts import artifact_path, digests_now
from kdplatform.experiments.chosen_teachers import named_as_given
from kdplatform.experiments.ensembles import taught_by
from kdplatform.experiments.examples import log_examples
from kdplatform.experiments.frozen import check_outputs
from kdplatform.experiments.graph import FIRST, STUDENT, TEACHER, Step
from kdplatform.experiments.logits_files import file_logits, remark_on_tests
from kdplatform.experiments.model_state import ModelState
from kdplatform.experiments.parallel.computing import fitted_logits, followed
from kdplatform.experiments.parallel.orders import Fit, split_of
from kdplatform.experiments.run_search import finished_with_keys, runs_with_key
from kdplatform.experiments.starting import restored_model, size_tag, start_from, starting_model
from kdplatform.experiments.teacher_checks import check_teachers
from kdplatform.experiments.teacher_logits import AskedTeachers, teachers_for
from kdplatform.experiments.tracking import (
    TRAINING_EXAMPLES,
    artifact_digests,
    close_dead,
    find_finished,
    model_run,
    supersede_finished,
)
from kdplatform.experiments.trained import (
    PREDICTIONS,
    TAG_START,
    TrainedModel,
    former_needs,
    needs_tag,
    state_digest,
)
from kdplatform.experiments.weights import logits_digest
from kdplatform.experiments.workspace import Workspace, backend_status, build_loss_kernels
from kdplatform.files import locked, remove_left_overs
from kdplatform.methods import build_method
from kdplatform.models.user_models import is_user_model
from kdplatform.predictions import Predictions
from kdplatform.progress import EpochLines, collected_messages, say
from kdplatform.reporting import figures
from kdplatform.reporting.arm_figures import (
    class_accuracies,
    compared_classes,
    group_accuracies,
    model_figures,
    with_disagreement,
)
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.metrics import (
    SPEED,
    fairness_metric,
    group_metrics,
    known,
    model_metrics,
    own_metrics,
    pair_metrics,
)
from kdplatform.study.ranking import Ranked, ranking_metrics
from kdplatform.study.study import Arm, Model, Study
from kdplatform.training import (
    EpochRecord,
    FitResult,
    check_fit,
    fit,
    remove_checkpoint,
)

# The digest of the table of the teacher's logits that a student learnt from.
TAG_TABLE = "kd.teacher_logits"
# How many processes trained the model together, if several did.
TAG_PROCESSES = "kd.processes"
# The most that a killed run loses, beside its current epoch.
_CHECKPOINT_SECONDS = 2.0


def obtain(
    workspace: Workspace, step: Step, parent_run_id: str, needed: Mapping[str, TrainedModel]
) -> TrainedModel:
    """Returns the step's model: that of a FINISHED run with the same key, or one trained now.

    Args:
        parent_run_id: the command's run, under which a new run is logged.
        needed: the models that the step needs, by their names in the step.
    """
    lock = workspace.folder / "locks" / f"{step.key}.lock"
    with locked(lock, f"{step.title}: another process is at it; waiting"):
        known = runs_with_key(step.key)
        run = find_finished(known, _fits(workspace, step, needed)) if workspace.reuse else None
        if run is not None:
            say(reused_line(step, run.info.run_id))
            conditions.complete(workspace, step, run, needed)
            return _reused(workspace, step, run)
        close_dead(known)
        run_id = _train(workspace, step, parent_run_id, needed)
        supersede_finished(step.key, except_run_id=run_id)
        remove_checkpoint(_checkpoint(workspace, step))
        return TrainedModel(step, run_id, reused=False)


def find_trained(workspace: Workspace, steps: Iterable[Step]) -> dict[str, TrainedModel]:
    """Returns by key the models of those steps that are trained already.

    A model that lacks a condition is left out, since `obtain` measures it. The store is asked for
    many runs, and for many of their files, at a time.

    Args:
        steps: ordered; a step comes after those that it needs.
    """
    steps = list(steps)
    runs = finished_with_keys([step.key for step in steps], workspace.config.name)
    newest = [own[0] for own in runs.values()]
    digests = digests_now(
        (run.info.run_id, path) for run in newest for path in artifact_digests(run)
    )
    found: dict[str, TrainedModel] = {}
    for step in steps:
        if step.key not in runs or any(own.key not in found for own in step.needs.values()):
            continue
        needed = {name: found[own.key] for name, own in step.needs.items()}
        fits = _fits(workspace, step, needed, quiet=True)
        run = find_finished(runs[step.key], fits, digests)
        if run is not None and not conditions.missing_conditions(workspace.config, run):
            found[step.key] = replace(_reused(workspace, step, run), found=run)
    return found


def reused_line(step: Step, run_id: str) -> str:
    """Returns the line that a step reuses a run."""
    return f"{step.title}: reused run {run_id}"


def check_steps(workspace: Workspace, steps: Iterable[Step]) -> None:
    """Checks the conditions of all trainings before the first step is trained.

    Raises:
        UserError: a model or a method cannot be built for the data, or lacks data.
        MachineError: weights that a library publishes cannot be downloaded.
    """
    dataset, steps = workspace.dataset, list(steps)
    for step in {step.training: step for step in steps}.values():
        if step.training.logits:
            remark_on_tests(file_logits(step, dataset), step.training.logits)
            continue
        with collected_messages():  # these lines are printed when the step is trained
            with named_as_given(step.training, workspace.config, step.role):
                model = starting_model(step, dataset)
            if is_user_model(step.training.model):
                conditions.check_conditions(model, workspace.config, dataset)
    with collected_messages() as lines:
        for step in {(step.training, step.method): step for step in steps}.values():
            if not step.training.frozen:
                method = build_method(step.method)
                check_fit(
                    method, step.training, dataset.train, dataset.unlabeled, workspace.processes
                )
                method.check(dataset)
                check_teachers(step, method, dataset)
    for line in dict.fromkeys(lines):
        say(line)


def _fits(
    workspace: Workspace,
    step: Step,
    needed: Mapping[str, TrainedModel],
    *,
    quiet: bool = False,
) -> Callable[[Run], bool]:
    """Returns a check that a run of the step's key was made with the same weights.

    The key does not contain the weights of a teacher that was trained again, or those that a user's
    function loads.
    """

    @cache
    def start() -> str:
        return state_digest(starting_model(step, workspace.dataset))

    def fits(run: Run) -> bool:
        former = former_needs(run, {name: own.run for name, own in needed.items()})
        if is_user_model(step.training.model) and run.data.tags.get(TAG_START) != start():
            former.append(f"weights that {step.training.model} returned")
        if former and not quiet:
            say(
                f"{step.title}: run {run.info.run_id} was made with other weights "
                f"({', '.join(former)}); it is trained again"
            )
        return not former

    return fits


def _reused(workspace: Workspace, step: Step, run: Run) -> TrainedModel:
    _complete_attributes(workspace, run)
    if step.training.frozen and not step.training.logits:
        path = artifact_path(run.info.run_id, PREDICTIONS.format(split="val"))
        val = pd.read_parquet(path, columns=["label", "prediction"])  # logits may be large
        labels, predictions = (val[name].to_numpy() for name in val.columns)
        check_outputs(step, labels, predictions, workspace.dataset.class_names)
    return TrainedModel(step, run.info.run_id, reused=True)


def _checkpoint(workspace: Workspace, step: Step) -> Path:
    return workspace.folder / "checkpoints" / f"{step.key}.pt"


def _train(
    workspace: Workspace, step: Step, parent_run_id: str, needed: Mapping[str, TrainedModel]
) -> str:
    remove_left_overs(_checkpoint(workspace, step))
    if not workspace.reuse:
        remove_checkpoint(_checkpoint(workspace, step))
    dataset = workspace.dataset
    if step.training.logits:
        return _logged_file(workspace, step, parent_run_id)
    build_loss_kernels()
    tags = records.step_tags(workspace.config, step)
    with model_run(step.title, parent_run_id, tags) as run_id:
        parameters = records.log_origin(workspace.config, step, dataset)
        model, result = _fit(workspace, step, needed)
        # Back to the plain memory layout, so that the saved weights are whole tensors for every
        # reader.
        model.to(memory_format=torch.contiguous_format)
        tables = {name: _predictions(workspace, step, model, name) for name in ("val", "test")}
        val = tables["val"]
        check_outputs(step, val.labels, val.predictions, dataset.class_names)
        wanted = workspace.config.evaluation.conditions
        under = conditions.measured(workspace, step, model, wanted)
        changed = {conditions.split_under(name): table for name, table in under.items()}
        tags = records.log_predictions_and_weights(tables | changed, model.cpu())
        tags |= needs_tag(needed) | conditions.conditions_tag(workspace.config)
        tags |= {
            "kd.precision": result.precision,
            "kd.device": workspace.device.type,
            "kd.backend": backend_status().serving(workspace.device),
            **size_tag(model),
        }
        model_id = logged_models.log_model(step, model, dataset, parameters)
        metrics, measured = _results(workspace, step, tables, result, needed)
        metrics |= conditions.condition_metrics(workspace, step, under, needed)
        records.log_results(metrics, tags, measured, model_id)
    say(f"{step.title}: test accuracy {tables['test'].accuracy:.2%}")
    return run_id


def _logged_file(workspace: Workspace, step: Step, parent_run_id: str) -> str:
    """Logs a file of logits as predictions of its splits; returns the run's id."""
    dataset, known = workspace.dataset, file_logits(step, workspace.dataset)
    tags = records.step_tags(workspace.config, step)
    with model_run(step.title, parent_run_id, tags) as run_id:
        records.log_origin(workspace.config, step, dataset)
        tables = {
            name: Predictions.from_logits(split, known.splits[name])
            for name, split in (("val", dataset.val), ("test", dataset.test))
            if name in known.splits
        }
        if "val" in tables:
            val = tables["val"]
            check_outputs(step, val.labels, val.predictions, dataset.class_names)
        held = {"sha256": logits_digest(step.training.logits[0])}
        held |= {name: str(len(own)) for name, own in known.splits.items()}
        tags = records.log_predictions(tables, held)
        metrics, measured = {}, {}
        if "test" in tables:
            test, config = tables["test"], workspace.config
            metrics = own_metrics(
                test, tables.get("val"), config.attributes, config.min_group_size, dataset.name
            )
            measured["classwise"] = class_accuracies(test, dataset.class_names)
        records.log_results(metrics, tags, measured, None)
    said = f"test accuracy {tables['test'].accuracy:.2%}" if "test" in tables else "no test rows"
    say(f"{step.title}: {said}")
    return run_id


def _predictions(workspace: Workspace, step: Step, model: nn.Module, split: str) -> Predictions:
    logits = fitted_logits(workspace, step, model, split)
    try:
        return Predictions.from_logits(split_of(workspace.dataset, split), logits)
    except DivergedError:
        if not step.training.frozen:
            raise
        given = step.training.weights or step.training.model
        raise UserError(
            f"weights={given!r} give logits that are NaN or infinite; allowed with frozen=true: a "
            "model of finite logits on this data"
        ) from None


def _fit(
    workspace: Workspace, step: Step, needed: Mapping[str, TrainedModel]
) -> tuple[nn.Module, FitResult]:
    dataset = workspace.dataset
    model = starting_model(step, dataset)
    if is_user_model(step.training.model):
        mlflow.set_tag(TAG_START, state_digest(model))
    if step.training.frozen:
        return model.eval(), FitResult((), 0, "fp32")
    method = build_method(step.method)
    asked = AskedTeachers([], None)
    if method.needs.teacher != "none":
        asked = teachers_for(workspace, step, needed, method.needs)
        if asked.digests:
            mlflow.set_tag(TAG_TABLE, ",".join(asked.digests))
    if method.needs.from_first:
        first = needed[FIRST]
        model.load_state_dict(restored_model(first.step, dataset, first.run_id).state_dict())
    if step.distillation is not None and step.distillation.start == "teacher":
        source = needed[TEACHER]
        say(start_from(model, restored_model(source.step, dataset, source.run_id), step.title))

    def order() -> Fit:
        teachers = [source.state() for source in asked.sources]
        reference = asked.reference.state() if asked.reference else None
        return Fit(step, ModelState.of(step, model), teachers, reference)

    # Between two batches, `fit` itself checks for an interruption.
    with (
        records.EpochLog() as log,
        followed(workspace, order) as ranks,
        interruption.held(),
    ):
        asked.share_tables(ranks)
        lines = EpochLines(step.title, step.training.epochs)

        def ended(record: EpochRecord) -> None:
            log(record)
            lines(record.epoch)

        result = fit(
            model,
            dataset.train,
            method,
            step.training,
            seed=step.seed,
            role=step.role,
            device=workspace.device,
            teacher=[source.teacher for source in asked.sources],
            reference=asked.reference.teacher if asked.reference else None,
            validation=dataset.val,
            unlabeled=dataset.unlabeled,
            class_names=dataset.class_names,
            checkpoint=_checkpoint(workspace, step),
            checkpoint_seconds=_CHECKPOINT_SECONDS,
            identity=step.key,
            on_epoch=ended,
            ranks=ranks,
        )
    if workspace.processes > 1:
        mlflow.set_tag(TAG_PROCESSES, str(workspace.processes))
    if result.restored_epochs:
        say(f"{step.title}: went on after epoch {result.restored_epochs}")
        mlflow.set_tag("kd.resumed_after_epoch", str(result.restored_epochs))
    return model, result


def _results(
    workspace: Workspace,
    step: Step,
    tables: Mapping[str, Predictions],
    result: FitResult,
    needed: Mapping[str, TrainedModel],
) -> tuple[dict[str, float], dict[str, pd.DataFrame]]:
    """Logs the figures of a trained model, and returns its metrics and tables."""
    dataset, config, test = workspace.dataset, workspace.config, tables["test"]
    size = config.min_group_size
    counts = dataset.train.labels.bincount(minlength=len(dataset.class_names)).tolist()
    metrics = model_metrics(test, tables["val"], config.attributes, size, dataset.name)
    metrics |= known(ranking_metrics(test, Ranked(counts, config.attributes, size)))
    measured = {"classwise": class_accuracies(test, dataset.class_names)}
    if config.attributes:
        measured["groups"] = group_accuracies(test, config.attributes, size)
    drawn = {}
    if result.records:
        metrics[SPEED] = median(record.images_per_second for record in result.records)
        drawn["curves"] = figures.curves_figure(records.curves(result.records), step.title)
    if step.role is Role.DISTILLED:
        study, arm = _with_references(workspace, step, test, needed)
        references = {
            role: reference.test
            for role in (Role.TEACHER, Role.STUDENT)
            if (reference := study.reference(role, step.seed)) is not None
        }
        for role, table in references.items():
            number = len(dataset.class_names)
            metrics |= pair_metrics(role, table, test, number, config.attributes, size)
        log_examples(dataset, test, {role.value: own for role, own in references.items()})
        classes = ClassWise(study)
        measured["classwise"] = with_disagreement(compared_classes(classes, arm), study, arm)
        drawn |= model_figures(classes, arm, step.title)
    measured["classwise"] = measured["classwise"].assign(**{TRAINING_EXAMPLES: counts})
    records.log_figures(drawn)
    return metrics, measured


def _with_references(
    workspace: Workspace, step: Step, test: Predictions, needed: Mapping[str, TrainedModel]
) -> tuple[Study, Arm]:
    """Returns the study of one distilled student with its teacher and NDS, and its arm."""
    arm = Arm(Role.DISTILLED)
    config, nds = workspace.config, needed[STUDENT]
    shared = config.teacher_seed(step.seed)
    taught = taught_by(step, needed)
    arms = {Arm(Role.TEACHER): {shared: Model("", taught)}} if taught is not None else {}
    arms[Arm(Role.STUDENT)] = {nds.step.seed: Model("", nds.test)}
    return Study(
        config.name,
        workspace.dataset.class_names,
        {**arms, arm: {step.seed: Model("", test)}},
        config.attributes,
        config.min_group_size,
        shared_teacher=shared,
    ), arm


def _complete_attributes(workspace: Workspace, run: Run) -> None:
    """Logs the fairness of attributes that were added after the training to a reused run."""
    missing = [
        attribute
        for attribute in workspace.config.attributes
        if fairness_metric(attribute, "dpd") not in run.data.metrics
    ]
    if not missing:
        return
    workspace.dataset  # noqa: B018 - refuses attributes that the dataset does not have
    path = artifact_path(run.info.run_id, PREDICTIONS.format(split="test"))
    test, size = Predictions.read(path), workspace.config.min_group_size
    metrics = [
        Metric(name, value, run.info.end_time, 0)
        for attribute in missing
        for name, value in group_metrics(test, attribute, size).items()
    ]
    MlflowClient().log_batch(run.info.run_id, metrics=metrics)
    groups = group_accuracies(test, tuple(missing), size)
    records.extend_table(run, "groups", groups)
