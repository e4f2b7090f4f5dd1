"""One step of a study: find the model that was trained already, or train it and log it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from torch import nn

from kdplatform.analysis.classwise import overall_accuracy
from kdplatform.experiments import drawing, evaluation, logged_models, records
from kdplatform.experiments.backend import build_loss_kernels, loss_backend
from kdplatform.experiments.identity import Role, Step
from kdplatform.experiments.starting import size_tag, starting_model
from kdplatform.experiments.teacher_logits import teacher_for
from kdplatform.experiments.tracking import (
    artifact_path,
    close_abandoned,
    find_finished,
    find_finished_of_project,
    model_run,
    runs_with_key,
    supersede_finished,
)
from kdplatform.experiments.workspace import Workspace
from kdplatform.files import locked, remove_left_overs
from kdplatform.objectives import build_objective
from kdplatform.predictions import load_predictions, prediction_table
from kdplatform.progress import say
from kdplatform.reporting import figures
from kdplatform.training import FitResult, fit, predict_logits

# What a killed run loses at most, beside the epoch it was in.
_CHECKPOINT_SECONDS = 2.0


@dataclass(frozen=True)
class TrainedModel:
    """A model that stands in the tracking store, and what it predicts.

    Attributes:
        test: prediction table of the test split.
    """

    step: Step
    run_id: str
    reused: bool
    test: pd.DataFrame


def obtain(
    workspace: Workspace,
    step: Step,
    parent_run_id: str,
    references: Mapping[Role, TrainedModel] | None = None,
) -> TrainedModel:
    """Returns the step's model: a FINISHED run of the same key, or one trained now.

    Args:
        parent_run_id: the command's run, under which a new run is logged.
        references: for a distilled student, its teacher and the NDS it is compared with.
    """
    lock = workspace.folder / "locks" / f"{step.key}.lock"
    with locked(lock, f"{step.title}: another process is at it; waiting"):
        known = runs_with_key(step.key)
        run = find_finished(known) if workspace.reuse else None
        if run is not None:
            say(f"{step.title}: reused run {run.info.run_id}")
            return _reused(workspace, step, run)
        close_abandoned(known)
        run_id = _train(workspace, step, parent_run_id, references or {})
        supersede_finished(step.key, except_run_id=run_id)
        _checkpoint(workspace, step).unlink(missing_ok=True)
        return load_trained(step, run_id, reused=False)


def find_trained(workspace: Workspace, steps: Iterable[Step]) -> dict[str, TrainedModel]:
    """Returns by key the models of those steps that are trained already, from a single search."""
    wanted = {step.key: step for step in steps}
    runs = find_finished_of_project(workspace.config.name, wanted)
    return {key: _reused(workspace, wanted[key], run) for key, run in runs.items()}


def _reused(workspace: Workspace, step: Step, run: Run) -> TrainedModel:
    _complete_attributes(workspace, run)
    return load_trained(step, run.info.run_id, reused=True)


def load_trained(step: Step, run_id: str, *, reused: bool) -> TrainedModel:
    """Returns the model of a FINISHED run with its test predictions."""
    path = artifact_path(run_id, records.PREDICTIONS.format(split="test"))
    return TrainedModel(step, run_id, reused, load_predictions(path))


def _checkpoint(workspace: Workspace, step: Step) -> Path:
    return workspace.folder / "checkpoints" / f"{step.key}.pt"


def _train(
    workspace: Workspace,
    step: Step,
    parent_run_id: str,
    references: Mapping[Role, TrainedModel],
) -> str:
    remove_left_overs(_checkpoint(workspace, step))
    if not workspace.reuse:
        _checkpoint(workspace, step).unlink(missing_ok=True)
    build_loss_kernels()
    dataset = workspace.dataset
    tags = records.step_tags(workspace.config, step)
    with model_run(step.title, parent_run_id, tags) as run_id:
        parameters = records.log_origin(workspace.config, step, dataset)
        model, result = _fit(workspace, step, references)
        # The plain layout again, in which the saved weights are whole tensors for every reader.
        model.to(memory_format=torch.contiguous_format)
        tables = {
            name: prediction_table(
                split, predict_logits(model, split.inputs, device=workspace.device)
            )
            for name, split in (("val", dataset.val), ("test", dataset.test))
        }
        tags = records.log_predictions_and_weights(tables, model.cpu())
        tags |= {
            "kd.precision": result.precision,
            "kd.device": workspace.device.type,
            "kd.backend": loss_backend(workspace.device),
            **size_tag(model),
        }
        model_id = logged_models.log_model(step, model, dataset, parameters)
        metrics, measured = _results(workspace, step, tables, result, references)
        records.log_results(metrics, tags, measured, model_id)
    say(f"{step.title}: test accuracy {overall_accuracy(tables['test']):.2%}")
    return run_id


def _fit(
    workspace: Workspace, step: Step, references: Mapping[Role, TrainedModel]
) -> tuple[nn.Module, FitResult]:
    dataset = workspace.dataset
    model = starting_model(step, dataset)
    if step.training.frozen:
        return model.eval(), FitResult((), 0, "fp32")
    teacher = None
    if step.distillation is not None:
        trained = references[Role.TEACHER]
        teacher = teacher_for(workspace, trained.step, trained.run_id)
    with records.EpochLog() as log:
        result = fit(
            model,
            dataset.train,
            build_objective(step.distillation, label_smoothing=step.training.label_smoothing),
            step.training,
            seed=step.seed,
            role=step.role.stream,
            device=workspace.device,
            teacher=teacher,
            validation=dataset.val,
            checkpoint=_checkpoint(workspace, step),
            checkpoint_seconds=_CHECKPOINT_SECONDS,
            identity=step.key,
            on_epoch=log,
        )
    if result.restored_epochs:
        say(f"{step.title}: went on after epoch {result.restored_epochs}")
        mlflow.set_tag("kd.resumed_after_epoch", str(result.restored_epochs))
    return model, result


def _results(
    workspace: Workspace,
    step: Step,
    tables: Mapping[str, pd.DataFrame],
    result: FitResult,
    references: Mapping[Role, TrainedModel],
) -> tuple[dict[str, float], dict[str, pd.DataFrame]]:
    """Logs the figures of a trained model, and returns its metrics and tables."""
    dataset, attributes = workspace.dataset, workspace.config.attributes
    test = tables["test"]
    metrics = evaluation.model_metrics(test, tables["val"], attributes, dataset.name)
    measured = {"classwise": evaluation.class_accuracies(test, dataset.class_names)}
    if attributes:
        measured["groups"] = evaluation.group_accuracies(test, attributes)
    drawn = {}
    if result.records:
        drawn["curves"] = figures.curves_figure(records.curves(result.records), step.title)
    if step.role is Role.DISTILLED:
        arms = {role: trained.test for role, trained in references.items()}
        comparisons = evaluation.compare(
            {role: [table] for role, table in arms.items()}, [test], len(dataset.class_names)
        )
        metrics |= evaluation.comparison_metrics(comparisons)
        metrics |= evaluation.disagreement_metrics(arms, test)
        pairs = {role: (table, test) for role, table in arms.items()}
        measured["classwise"] = evaluation.compared_classes(dataset.class_names, comparisons, pairs)
        drawn |= drawing.comparison_figures(
            dataset, attributes, arms, test, measured["classwise"], step.title
        )
    records.log_figures(drawn)
    return metrics, measured


def _complete_attributes(workspace: Workspace, run: Run) -> None:
    """Logs to a reused run the fairness of attributes it was not asked for when it was trained."""
    missing = [
        attribute
        for attribute in workspace.config.attributes
        if evaluation.fairness_metric(attribute, "dpd") not in run.data.metrics
    ]
    if not missing:
        return
    workspace.dataset  # noqa: B018 - refuses attributes that the dataset does not have
    path = artifact_path(run.info.run_id, records.PREDICTIONS.format(split="test"))
    test = load_predictions(path)
    metrics = [
        Metric(name, value, run.info.end_time, 0)
        for attribute in missing
        for name, value in evaluation.attribute_metrics(test, attribute).items()
    ]
    MlflowClient().log_batch(run.info.run_id, metrics=metrics)
    groups = evaluation.group_accuracies(test, missing)
    mlflow.log_table(groups, "groups.json", run_id=run.info.run_id)  # appends
