"""The entry point `tune`."""

import time

import mlflow
import optuna
from optuna.storages import BaseStorage

from kdplatform.arguments import Arguments
from kdplatform.experiments import records
from kdplatform.experiments.commands import where_to_look
from kdplatform.experiments.store_faults import store_errors
from kdplatform.experiments.tracking import (
    begin_command,
    changes_are_logged,
    command_run,
    quiet_mlflow,
)
from kdplatform.experiments.workspace import Workspace, open_workspace
from kdplatform.progress import say, show
from kdplatform.redaction import redacted
from kdplatform.settings.schema import (
    EvaluationConfig,
    ProjectConfig,
    flatten,
    neutral_values,
)
from kdplatform.settings.words import plain_text
from kdplatform.tuning.measures import Measure, open_measure
from kdplatform.tuning.storage import (
    Direction,
    heartbeats,
    open_storage,
    open_study,
    quiet_optuna,
    sampler_named,
    storage_errors,
)
from kdplatform.tuning.tuner import Tuner

# Fields that may change when a study continues. All others decide its values or its space.
_FREE = ("trials", "sampler", "sampler_seed", "confirm_seeds", "confirm_points", "grid")


def run_tune(config: ProjectConfig, arguments: Arguments) -> None:
    """Searches, trains the chosen points again on fresh seeds, and logs and prints the results."""
    started = time.perf_counter()
    quiet_mlflow()
    device = "cpu" if arguments.executor == "ray" else arguments.device
    if config.evaluation.conditions:
        say("evaluation.conditions need test data: a search measures none of them")
        config = config.model_copy(update={"evaluation": EvaluationConfig()})
    workspace = open_workspace(
        config,
        arguments.data_folder,
        device,
        reuse=True,
        processes=arguments.processes,
        trains_here=arguments.executor != "ray",
    )
    changes_are_logged()
    with quiet_optuna(), storage_errors(arguments.storage):
        storage = open_storage(arguments.storage)
        begin_command()
        measure = open_measure(config, workspace.dataset)
        study = _open_study(workspace, measure, storage, arguments.study)
        tags = {"kd.study": study.study_name, "kd.storage": redacted(arguments.storage)}
        with store_errors(), command_run("tune", config, study.study_name, tags) as run_id:
            records.log_dataset(workspace.dataset)
            tuner = Tuner(workspace, arguments, measure, study, run_id, heartbeats(storage))
            text = tuner.run()
            mlflow.log_text(text, "summary.txt")
            show(f"\n{text}\n\n{where_to_look(run_id)}")
            say(f"tune: {time.perf_counter() - started:.0f} s")
            tuner.report()


def study_name(config: ProjectConfig, measure: Measure) -> str:
    """Returns the default name of a study."""
    parts = [config.name, measure.slug]
    if config.tuning.mode != "pareto":
        parts.append(config.tuning.mode)
    if config.tuning.sampler != "tpe":
        parts.append(config.tuning.sampler)
    return "-".join(parts)


def _open_study(
    workspace: Workspace, measure: Measure, storage: BaseStorage, name: str | None
) -> optuna.Study:
    config = workspace.config
    tuning = config.tuning
    both: list[Direction] = ["maximize", "minimize"]
    return open_study(
        name or study_name(config, measure),
        storage,
        sampler_named(tuning.sampler),
        tuning.sampler_seed,
        both if tuning.mode == "pareto" else ["minimize"],
        identity(config, measure, workspace.dataset.digest),
        before_its_fields(config),
    )


def before_its_fields(config: ProjectConfig) -> dict[str, str]:
    """Returns the values of fields for a study that is older than them: their defaults."""
    return {name: plain_text(value) for name, value in neutral_values(config).items()}


def identity(config: ProjectConfig, measure: Measure, dataset_digest: str) -> dict[str, str]:
    """Returns the fields that decide a point's value and the search space, as text by field."""
    fields = flatten(config)
    sections = ("teacher.", "student.", "distillation.", "tuning.")
    decided = {
        name: plain_text(value)
        for name, value in fields.items()
        if name.startswith(sections) and name.removeprefix("tuning.") not in _FREE
    }
    decided["tuning.attribute"] = str(measure.attribute)
    decided["min_group_size"] = str(config.min_group_size)
    return {**decided, "dataset": f"{config.dataset.name} {dataset_digest[:12]}"}
