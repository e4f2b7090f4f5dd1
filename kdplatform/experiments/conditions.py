"""The test split under the project's conditions, each with a prediction table of its own.

Conditions enter no key. A condition that is requested later is measured with the weights of the
reused run, by the process that obtains the model.
"""

import json
import time
from collections.abc import Mapping
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Run
from torch import nn

from kdplatform.data import Dataset
from kdplatform.experiments.artifacts import log_artifacts_of
from kdplatform.experiments.ensembles import taught_by
from kdplatform.experiments.graph import Step
from kdplatform.experiments.starting import restored_model
from kdplatform.experiments.tracking import TAG_DIGESTS, artifact_digests
from kdplatform.experiments.trained import PREDICTIONS, TrainedModel
from kdplatform.experiments.weights import WEIGHTS
from kdplatform.experiments.workspace import Workspace
from kdplatform.files import file_digest, scratch_folder
from kdplatform.methods._attacks import check_takes_fractions
from kdplatform.predictions import Predictions
from kdplatform.progress import say
from kdplatform.roles import Role
from kdplatform.settings.schema import ConditionConfig, ProjectConfig
from kdplatform.study.metrics import compared_metrics, condition_metric, known, pair_metrics
from kdplatform.training import answers_under

# The settings of the conditions that a run was measured under, by their names.
TAG_CONDITIONS = "kd.conditions"
# Share of the right examples with a vanishing gradient above which an attack's accuracy is
# doubtful.
_MOST_WITHOUT_SLOPE = 0.01

Tables = Mapping[str, Predictions]


def split_under(condition: str) -> str:
    """Returns the name of the test split under a condition, as in artifacts."""
    return f"test.{condition}"


def settings_of(run: Run) -> dict[str, Any]:
    """Returns the settings of the conditions that a run was measured under, by their names."""
    settings: dict[str, Any] = json.loads(run.data.tags.get(TAG_CONDITIONS, "{}"))
    return settings


def missing_conditions(config: ProjectConfig, run: Run) -> dict[str, ConditionConfig]:
    """Returns the project's conditions that a run was not measured under, by their names.

    For a run without weights there are none, because its model cannot be restored.
    """
    if WEIGHTS not in artifact_digests(run):
        return {}
    there = settings_of(run)
    wanted = config.evaluation.conditions
    return {name: own for name, own in wanted.items() if there.get(name) != own.matters()}


def conditions_tag(config: ProjectConfig) -> dict[str, str]:
    """Returns the tag of a run that was measured under all of the project's conditions."""
    conditions = config.evaluation.conditions
    return {TAG_CONDITIONS: _tag(conditions)} if conditions else {}


def check_conditions(model: nn.Module, config: ProjectConfig, dataset: Dataset) -> None:
    """Checks before the training what attacks on a user's model require.

    Raises:
        UserError: its outputs differ between images as bytes and as fractions.
    """
    for name, condition in config.evaluation.conditions.items():
        if condition.attack is not None:
            check_takes_fractions(model, dataset.test.inputs[:2], f"condition {name!r}")


def measured(
    workspace: Workspace, step: Step, model: nn.Module, conditions: Mapping[str, ConditionConfig]
) -> Tables:
    """Returns a model's predictions under each condition, and prints its accuracy."""
    tables = {}
    test = workspace.dataset.test
    for name, condition in conditions.items():
        answers = answers_under(model, test, condition, workspace.device)
        tables[name] = Predictions.from_logits(test, answers.logits)
        say(f"{step.title}: under {name} {tables[name].accuracy:.2%} are right")
        if answers.without_slope > _MOST_WITHOUT_SLOPE:
            say(
                f"{step.title}: under {name} the gradient of the loss vanishes at "
                f"{answers.without_slope:.1%} of the images that are right without the attack, so "
                "the attack cannot move them; the accuracy is an upper bound"
            )
    return tables


def condition_metrics(
    workspace: Workspace, step: Step, tables: Tables, needed: Mapping[str, TrainedModel]
) -> dict[str, float]:
    """Returns the metrics of a model under conditions; a distilled one is also compared.

    It is compared with a teacher and an NDS that were measured under the same condition.
    """
    config, classes = workspace.config, len(workspace.dataset.class_names)
    metrics: dict[str, float] = {}
    for name, table in tables.items():
        own = compared_metrics(table, config.attributes, config.min_group_size)
        if step.role is Role.DISTILLED:
            split, student = split_under(name), needed[Role.STUDENT.value]
            references = {
                Role.TEACHER: taught_by(step, needed, split),
                Role.STUDENT: student.predictions(split) if student.has(split) else None,
            }
            for role, reference in references.items():
                if reference is not None:
                    own |= pair_metrics(role, reference, table, classes)
        metrics |= {condition_metric(name, key): value for key, value in own.items()}
    return metrics


def complete(
    workspace: Workspace, step: Step, run: Run, needed: Mapping[str, TrainedModel]
) -> None:
    """Measures a reused run under the conditions that it lacks, and logs them to it."""
    missing = missing_conditions(workspace.config, run)
    if not missing:
        return
    client, run_id = MlflowClient(), run.info.run_id
    model = restored_model(step, workspace.dataset, run_id)
    tables = measured(workspace, step, model.to(workspace.device), missing)
    metrics = known(condition_metrics(workspace, step, tables, needed))
    settings = {name: own for name, own in settings_of(run).items() if name not in missing}
    paths = {name: PREDICTIONS.format(split=split_under(name)) for name in missing}
    digests = {p: d for p, d in artifact_digests(run).items() if p not in paths.values()}
    # If the process is killed here, the run lacks these tables but does not look damaged.
    _set_tags(run_id, settings, digests)
    with scratch_folder() as folder:
        for name, table in tables.items():
            table.write(folder / paths[name])
            digests[paths[name]] = file_digest(folder / paths[name])
        log_artifacts_of(run_id, folder)
    # If a metric has two values, the store treats the later one as the last.
    now = round(time.time() * 1000)
    logged = [Metric(name, value, now, 0) for name, value in metrics.items()]
    client.log_batch(run_id, metrics=logged)
    settings |= {name: own.matters() for name, own in missing.items()}
    _set_tags(run_id, settings, digests)


def _set_tags(run_id: str, settings: Mapping[str, Any], digests: Mapping[str, str]) -> None:
    client = MlflowClient()
    client.set_tag(run_id, TAG_DIGESTS, json.dumps(digests, separators=(",", ":")))
    client.set_tag(run_id, TAG_CONDITIONS, json.dumps(settings, separators=(",", ":")))


def _tag(conditions: Mapping[str, ConditionConfig]) -> str:
    settings = {name: own.matters() for name, own in conditions.items()}
    return json.dumps(settings, separators=(",", ":"))
