"""What the run of one model logs: where it comes from, how it went, what it predicts, the model."""

import io
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow import MlflowClient
from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec
from torch import nn

from kdplatform.data import Dataset
from kdplatform.errors import KdplatformError, MachineError
from kdplatform.experiments.graph import Step
from kdplatform.experiments.tracking import TAG_KEY, log_new_parameters, log_verified_artifacts
from kdplatform.experiments.trained import PREDICTIONS
from kdplatform.experiments.weights import TAG_MODEL, WEIGHTS
from kdplatform.models.user_models import is_user_model
from kdplatform.predictions import Predictions
from kdplatform.progress import say
from kdplatform.roles import Role
from kdplatform.settings.project import dump_yaml
from kdplatform.settings.schema import ProjectConfig, TrainingConfig, flatten
from kdplatform.training import EpochRecord

# The most characters of a dataset digest that MLflow's database keeps.
_DIGEST_LENGTH = 36
_EXAMPLE_ROWS = 2
_EPOCH_LOG_SECONDS = 2.0
# What MLflow takes at once.
_METRICS_PER_CALL = 1000
# A generous share for all that is not weights in a logged model.
_GRAPH_BYTES = 2**20


def step_tags(config: ProjectConfig, step: Step) -> dict[str, str]:
    """Returns the tags by which runs are found and compared."""
    tags = {
        TAG_KEY: step.key,
        "kd.role": step.role.value,
        "kd.project": config.name,
        "kd.seed": str(step.seed),
        TAG_MODEL: step.training.model,
    }
    method = step.method
    tags["kd.method"] = method.method
    if method.softmax_temperature is not None:
        tags["kd.temperature"] = f"{method.softmax_temperature:g}"
    if method.distillation_weight is not None:
        tags["kd.alpha"] = f"{method.distillation_weight:g}"
    return tags


def log_origin(config: ProjectConfig, step: Step, dataset: Dataset) -> None:
    """Logs the parameters that matter to the step, the whole configuration, and the dataset."""
    section = "teacher" if step.role is Role.TEACHER else "student"
    parameters = flatten(config.dataset, "dataset.") | _settings(step.training, f"{section}.")
    if step.distillation is not None:
        parameters |= flatten(step.distillation, "distillation.")
    log_new_parameters({"seed": step.seed, **parameters})
    mlflow.log_text(dump_yaml(step.within(config)), "config.yaml")
    log_dataset(dataset)


def _settings(training: TrainingConfig, prefix: str) -> dict[str, object]:
    """Returns the fields of a model by name; without its recipe where it is not trained."""
    settings = flatten(training, prefix)
    if training.frozen:
        kept = {f"{prefix}{name}" for name in ("frozen", *training.matters())}
        return {name: value for name, value in settings.items() if name in kept}
    return settings


def log_dataset(dataset: Dataset) -> None:
    """Logs the dataset's name and digest as the active run's input."""
    source = CodeDatasetSource({"kd.dataset": dataset.name, "kd.digest": dataset.digest})
    description = MetaDataset(source, name=dataset.name, digest=dataset.digest[:_DIGEST_LENGTH])
    mlflow.log_input(description, context="training")


class EpochLog:
    """Logs the curves of the active run, named `epoch/...`, several epochs at a time.

    Small models train many epochs a second, and a store takes longer than that for each call. Used
    in a `with` block, whose end logs the rest, also after an error.
    """

    def __init__(self) -> None:
        self._waiting: list[Metric] = []
        self._logged = time.monotonic()

    def __call__(self, record: EpochRecord) -> None:
        """Takes the record of one epoch."""
        now = round(time.time() * 1000)
        values = _values(record).items()
        self._waiting += [Metric(f"epoch/{k}", v, now, record.epoch) for k, v in values]
        if time.monotonic() - self._logged >= _EPOCH_LOG_SECONDS:
            self._flush()

    def _flush(self) -> None:
        run = mlflow.active_run()
        assert run is not None
        for start in range(0, len(self._waiting), _METRICS_PER_CALL):
            metrics = self._waiting[start : start + _METRICS_PER_CALL]
            MlflowClient().log_batch(run.info.run_id, metrics=metrics)
        self._waiting.clear()
        self._logged = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()


def log_predictions_and_weights(tables: Mapping[str, Predictions], model: nn.Module) -> None:
    """Logs what everything else is derived from, with the digests that reuse checks.

    Args:
        tables: predictions by split.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for split, table in tables.items():
            table.write(folder / PREDICTIONS.format(split=split))
        # By way of memory: torch's own writer says no disk left in words of its own.
        weights = io.BytesIO()
        torch.save(model.state_dict(), weights)
        (folder / WEIGHTS).write_bytes(weights.getbuffer())
        log_verified_artifacts(folder)


def log_model(step: Step, model: nn.Module, dataset: Dataset) -> None:
    """Logs the model as a graph without pickle, with a signature that takes raw inputs.

    A model of the user's whose graph cannot be had is left out, which is said in one line.
    """
    try:
        _log_graph(step.role, model, dataset)
    except (KdplatformError, MlflowException, OSError):
        raise
    except Exception as error:
        if not is_user_model(step.training.model):
            raise
        reason = " ".join(str(error).split())[:200]
        say(f"{step.title}: {WEIGHTS} is logged, its graph cannot be ({reason})")


def _log_graph(role: Role, model: nn.Module, dataset: Dataset) -> None:
    example = dataset.test.inputs[:_EXAMPLE_ROWS].contiguous().numpy()
    inputs = TensorSpec(example.dtype, (-1, *example.shape[1:]), name=None)
    outputs = TensorSpec(np.dtype("float32"), (-1, len(dataset.class_names)), name=None)
    _require_room_for(model)
    mlflow.pytorch.log_model(
        model,
        name=role.value,
        signature=ModelSignature(Schema([inputs]), Schema([outputs])),
        input_example=example,
        serialization_format="pt2",
        pip_requirements=[
            f"torch=={torch.__version__.partition('+')[0]}",
            f"numpy=={np.__version__}",
        ],
    )


def _require_room_for(model: nn.Module) -> None:
    """Raises a MachineError where the temporary folder has no room for the model.

    Asked ahead, because torch's archive writer ends the whole process when the disk is full.
    """
    folder = tempfile.gettempdir()
    needed = 2 * sum(tensor.nbytes for tensor in model.state_dict().values()) + _GRAPH_BYTES
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise MachineError(
            f"TMPDIR={folder!r} has {free / 2**20:.1f} MiB left; allowed: a folder with at least "
            f"{needed / 2**20:.1f} MiB for the model"
        )


def log_tables(tables: Mapping[str, pd.DataFrame]) -> None:
    """Logs data frames as MLflow tables, `name.json` each."""
    for name, table in tables.items():
        mlflow.log_table(table, f"{name}.json")


def log_figures(figures: Mapping[str, Any]) -> None:
    """Logs matplotlib figures as `figures/name.png`."""
    for name, figure in figures.items():
        mlflow.log_figure(figure, f"figures/{name}.png", save_kwargs={"dpi": 130})


def curves(records: Sequence[EpochRecord]) -> pd.DataFrame:
    """Returns the epochs as a data frame, one row each."""
    return pd.DataFrame([{"epoch": record.epoch, **_values(record)} for record in records])


def _values(record: EpochRecord) -> dict[str, float]:
    values = asdict(record)
    del values["epoch"]
    parts = values.pop("train_parts")
    values |= {f"train_{name}": value for name, value in parts.items()}
    return {name: value for name, value in values.items() if value is not None}
