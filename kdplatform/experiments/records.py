"""The content of a model's run: its origin, its curves, its predictions, the model."""

import io
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Self

import mlflow
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS
from torch import nn

from kdplatform.data import Dataset
from kdplatform.experiments.artifacts import artifact_path, log_artifacts_of
from kdplatform.experiments.graph import Step
from kdplatform.experiments.run_search import TAG_KEY
from kdplatform.experiments.tracking import log_verified_artifacts, uncommitted_changes
from kdplatform.experiments.trained import PREDICTIONS
from kdplatform.experiments.weights import TAG_MODEL, WEIGHTS
from kdplatform.files import scratch_folder
from kdplatform.predictions import Predictions
from kdplatform.reporting.drawing import figure_png
from kdplatform.reporting.figures import Drawing
from kdplatform.roles import Role
from kdplatform.settings.project import dump_yaml
from kdplatform.settings.schema import ProjectConfig, TrainingConfig, flatten
from kdplatform.training import EpochRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The most characters of a dataset digest that MLflow's database keeps.
DIGEST_LENGTH = 36
_EPOCH_LOG_SECONDS = 2.0
# Limits of one call to MLflow.
_METRICS_PER_CALL = 1000


def step_tags(config: ProjectConfig, step: Step) -> dict[str, str]:
    """Returns the tags by which runs are found and compared."""
    method = step.method
    tags = {
        TAG_KEY: step.key,
        "kd.role": step.role.value,
        "kd.project": config.name,
        "kd.seed": str(step.seed),
        TAG_MODEL: "logits" if step.training.logits else step.training.model,
        "kd.method": method.method,
    }
    if method.softmax_temperature is not None:
        tags["kd.temperature"] = f"{method.softmax_temperature:g}"
    if method.distillation_weight is not None:
        tags["kd.alpha"] = f"{method.distillation_weight:g}"
    return tags


def log_origin(config: ProjectConfig, step: Step, dataset: Dataset) -> dict[str, str]:
    """Logs the origin of the active run of a model, so that it can be repeated.

    The origin is the parameters that matter to the step (which are returned), the whole
    configuration, the difference of the code from its commit, and the dataset.
    """
    section = "teacher" if step.role is Role.TEACHER else "student"
    values = {"seed": step.seed} | flatten(config.dataset, "dataset.")
    values |= _settings(step.training, f"{section}.")
    if step.distillation is not None:
        values |= flatten(step.distillation, "distillation.")
    parameters = {name: str(value) for name, value in values.items()}
    MlflowClient().log_batch(_run_id(), params=[Param(*item) for item in parameters.items()])
    with scratch_folder() as folder:
        (folder / "config.yaml").write_text(dump_yaml(step.within(config)))
        if difference := uncommitted_changes():
            (folder / "source").mkdir()
            (folder / "source" / "uncommitted.diff").write_text(difference)
        mlflow.log_artifacts(str(folder))
    log_dataset(dataset)
    return parameters


def _run_id() -> str:
    run = mlflow.active_run()
    assert run is not None
    return str(run.info.run_id)


def _settings(training: TrainingConfig, prefix: str) -> dict[str, object]:
    """Returns the fields of a model by name, without the training fields of a frozen model."""
    settings = flatten(training, prefix)
    if training.logits:
        kept = {f"{prefix}{name}" for name in ("logits", "logits_temperature")}
        return {name: value for name, value in settings.items() if name in kept}
    if training.frozen:
        kept = {f"{prefix}{name}" for name in ("frozen", *training.matters())}
        return {name: value for name, value in settings.items() if name in kept}
    return settings


def log_dataset(dataset: Dataset) -> None:
    """Logs the dataset's name and digest as the active run's input."""
    source = CodeDatasetSource({"kd.dataset": dataset.name, "kd.digest": dataset.digest})
    description = MetaDataset(source, name=dataset.name, digest=dataset.digest[:DIGEST_LENGTH])
    mlflow.log_input(description, context="training")


class EpochLog:
    """Logs the curves of the active run, named `epoch/...`, several epochs at a time.

    Small models train many epochs a second, and each call of the store takes longer than an epoch.
    Use it in a `with` block, whose end logs the rest, also after an error.
    """

    def __init__(self) -> None:
        self._waiting: list[Metric] = []
        self._logged = time.monotonic()

    def __call__(self, record: EpochRecord) -> None:
        """Adds the record of one epoch."""
        now = round(time.time() * 1000)
        values = _values(record).items()
        self._waiting += [Metric(f"epoch/{k}", v, now, record.epoch) for k, v in values]
        if time.monotonic() - self._logged >= _EPOCH_LOG_SECONDS:
            self._flush()

    def _flush(self) -> None:
        for start in range(0, len(self._waiting), _METRICS_PER_CALL):
            metrics = self._waiting[start : start + _METRICS_PER_CALL]
            MlflowClient().log_batch(_run_id(), metrics=metrics)
        self._waiting.clear()
        self._logged = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()


def log_predictions_and_weights(
    tables: Mapping[str, Predictions], model: nn.Module
) -> dict[str, str]:
    """Logs predictions and weights; returns the tag with the digests that reuse checks.

    Args:
        tables: predictions by split.
    """
    with scratch_folder() as folder:
        for split, table in tables.items():
            table.write(folder / PREDICTIONS.format(split=split))
        # Written through memory, because torch's own writer does not report a full disk clearly.
        weights = io.BytesIO()
        torch.save(model.state_dict(), weights)
        (folder / WEIGHTS).write_bytes(weights.getbuffer())
        return log_verified_artifacts(folder)


def log_predictions(tables: Mapping[str, Predictions], held: Mapping[str, str]) -> dict[str, str]:
    """Logs the predictions of a file of logits; returns the tag with the digests that reuse checks.

    Args:
        tables: predictions by split.
        held: the file's digest, and the rows of each split.
    """
    with scratch_folder() as folder:
        (folder / "logits_file.json").write_text(json.dumps(held))
        for split, table in tables.items():
            table.write(folder / PREDICTIONS.format(split=split))
        return log_verified_artifacts(folder)


def log_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    """Logs data frames as MLflow tables, `name.json` each."""
    for name, table in tables.items():
        mlflow.log_table(table, f"{name}.json")


def log_results(
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    tables: Mapping[str, pd.DataFrame],
    model_id: str | None,
) -> None:
    """Logs the metrics of a model to its run, in two calls of the store.

    Args:
        tables: logged as `log_tables` does, for a run that has no tables yet.
        model_id: id of the logged model, which gets the metrics too.
    """
    listed = [{"path": f"{name}.json", "type": "table"} for name in tables]
    with scratch_folder() as folder:
        for name, table in tables.items():
            table.to_json(folder / f"{name}.json", orient="split", index=False, date_format="iso")
        mlflow.log_artifacts(str(folder))
    run_id, now = _run_id(), round(time.time() * 1000)
    all_tags = {**tags, MLFLOW_LOGGED_ARTIFACTS: json.dumps(listed)}
    MlflowClient().log_batch(
        run_id,
        metrics=[
            Metric(name, value, now, 0, model_id=model_id, run_id=run_id)
            for name, value in metrics.items()
        ],
        tags=[RunTag(*item) for item in all_tags.items()],
    )


def extend_table(run: Run, name: str, rows: pd.DataFrame) -> None:
    """Adds rows to a table of a run that has ended, and creates the table if necessary."""
    entry = {"path": f"{name}.json", "type": "table"}
    listed = json.loads(run.data.tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
    with scratch_folder() as folder:
        if entry in listed:
            # pandas' reader is not used, because it would read group names such as "1" as numbers.
            known = json.loads(artifact_path(run.info.run_id, entry["path"]).read_text())
            former = pd.DataFrame(known["data"], columns=known["columns"])
            rows = pd.concat([former, rows], ignore_index=True)
        rows.to_json(folder / entry["path"], orient="split", index=False, date_format="iso")
        log_artifacts_of(run.info.run_id, folder)
    if entry not in listed:
        tag = json.dumps([*listed, entry])
        MlflowClient().set_tag(run.info.run_id, MLFLOW_LOGGED_ARTIFACTS, tag)


def log_figures(figures: "Mapping[str, Figure | Drawing]") -> None:
    """Logs figures as `figures/name.png`."""
    with scratch_folder() as folder:
        for name, figure in figures.items():
            png = figure.png() if isinstance(figure, Drawing) else figure_png(figure)
            (folder / f"{name}.png").write_bytes(png)
        mlflow.log_artifacts(str(folder), "figures")


def curves(records: Sequence[EpochRecord]) -> pd.DataFrame:
    """Returns the epochs as a data frame, one row each."""
    return pd.DataFrame([{"epoch": record.epoch, **_values(record)} for record in records])


def _values(record: EpochRecord) -> dict[str, float]:
    values = asdict(record)
    del values["epoch"]
    parts = values.pop("train_parts")
    values |= {f"train_{name}": value for name, value in parts.items()}
    return {name: value for name, value in values.items() if value is not None}
