"""Trained models in MLflow: an exported graph without pickle, which takes raw inputs.

Exporting and describing a model takes tenths of a second, and the models of a study differ only in
their weights. A process therefore exports each architecture once, and replaces the weights in the
archive for every further model.
"""

import copy
import json
import zipfile
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
import torch
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.types import Schema, TensorSpec
from mlflow.utils import environment
from torch import Tensor, nn

from kdplatform import interruption
from kdplatform.data import Dataset
from kdplatform.errors import KdplatformError, MachineError, one_line
from kdplatform.experiments.graph import Step
from kdplatform.experiments.starting import size_tag
from kdplatform.experiments.weights import WEIGHTS
from kdplatform.files import scratch_folder, scratch_room
from kdplatform.models.user_models import is_user_model
from kdplatform.progress import say

_EXAMPLE_ROWS = 2
# A generous amount for everything except the weights in a logged model.
_GRAPH_BYTES = 2**20
# Exports to keep: those of the teacher and the student.
_EXPORTS_KEPT = 2
# Tags of a run's origin that its model has too.
_SOURCE_TAGS = ("mlflow.user", "mlflow.source.")


@dataclass(frozen=True)
class _Export:
    """A saved model without the parts that belong to a single run.

    Attributes:
        description: the content of its `MLmodel` file.
        files: the other files by path below its folder, without the program's archive.
        program_path: path of the archive with the program.
        records: content of the archive by name.
        weights: the records that are weights, with their names in the model's state; empty if the
            archive has an unexpected layout, so that nothing can be replaced.
    """

    description: Model
    files: dict[Path, bytes]
    program_path: Path
    records: dict[str, bytes]
    weights: dict[str, str]


_exports: dict[Hashable, _Export] = {}


def log_model(
    step: Step, model: nn.Module, dataset: Dataset, parameters: dict[str, str]
) -> str | None:
    """Logs the model to the active run, with a signature that takes raw inputs.

    Args:
        parameters: parameters of the run, which the logged model shows too.

    Returns:
        The logged model's id; None for a user's model whose graph cannot be exported, which a line
        says.
    """
    _require_room_for(model)
    try:
        export = _export_of(step, model, dataset)
    except (KdplatformError, MlflowException, OSError):
        raise
    except Exception as error:
        if not is_user_model(step.training.model):
            raise
        say(f"{step.title}: {WEIGHTS} is logged, its graph cannot be ({one_line(error)})")
        return None
    return _log_export(export, model, step.role.value, parameters)


def _export_of(step: Step, model: nn.Module, dataset: Dataset) -> _Export:
    """Returns the export of the model's architecture, and creates it if necessary."""
    if is_user_model(step.training.model):
        # Two models of the user's code may differ in more than their weights.
        return _export(model, dataset)
    tensors = tuple(
        (name, value.shape, value.stride(), value.dtype)
        for name, value in model.state_dict().items()
    )
    architecture = (step.training.model, *size_tag(model).values(), dataset.digest, tensors)
    if known := _exports.get(architecture):
        return known
    export = _export(model, dataset)
    if export.weights:
        if len(_exports) == _EXPORTS_KEPT:
            del _exports[next(iter(_exports))]
        _exports[architecture] = export
    return export


def _export(model: nn.Module, dataset: Dataset) -> _Export:
    example = dataset.test.inputs[:_EXAMPLE_ROWS].contiguous().numpy()
    inputs = TensorSpec(example.dtype, (-1, *example.shape[1:]), name=None)
    outputs = TensorSpec(np.dtype("float32"), (-1, len(dataset.class_names)), name=None)
    # The exporter's C++ code calls Python, and a KeyboardInterrupt there would end the process.
    with interruption.held(), scratch_folder() as scratch, _own_versions_unchecked():
        folder = scratch / "model"
        description = Model()
        mlflow.pytorch.save_model(
            model,
            folder,
            mlflow_model=description,
            signature=ModelSignature(Schema([inputs]), Schema([outputs])),
            input_example=example,
            serialization_format="pt2",
            pip_requirements=[
                f"torch=={torch.__version__.partition('+')[0]}",
                f"numpy=={np.__version__}",
            ],
        )
        [program_path] = (path.relative_to(folder) for path in folder.rglob("*.pt2"))
        files = {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.suffix != ".pt2" and path.name != MLMODEL_FILE_NAME
        }
        with zipfile.ZipFile(folder / program_path) as archive:
            records = {name: archive.read(name) for name in archive.namelist()}
    return _Export(description, files, program_path, records, _weights(records, model))


@contextmanager
def _own_versions_unchecked() -> Iterator[None]:
    """Keeps MLflow from comparing the requirements with the packages that they were read from.

    That comparison would list every module of every installed package, which takes a second or
    more.
    """
    check = "warn_dependency_requirement_mismatches"
    known = getattr(environment, check)
    setattr(environment, check, lambda requirements: None)
    try:
        yield
    finally:
        setattr(environment, check, known)


def _weights(records: Mapping[str, bytes], model: nn.Module) -> dict[str, str]:
    """Returns the records that are weights, with their names; empty unless they are all.

    They are compared because other versions of torch may have another layout of the archive.
    """
    state = model.state_dict()
    weights = {
        f"{table.rpartition('/')[0]}/{entry['path_name']}": name
        for table in records
        if table.endswith("/model_weights_config.json")
        for name, entry in json.loads(records[table])["config"].items()
    }
    as_expected = set(weights.values()) == state.keys() and all(
        records.get(record) == _content(state[name]) for record, name in weights.items()
    )
    return weights if as_expected else {}


def _content(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _log_export(export: _Export, model: nn.Module, name: str, parameters: dict[str, str]) -> str:
    """Logs the exported model with the weights of this one; returns its id."""
    run, client = mlflow.active_run(), MlflowClient()
    assert run is not None
    run_id, experiment_id = run.info.run_id, run.info.experiment_id
    source = {key: tag for key, tag in run.data.tags.items() if key.startswith(_SOURCE_TAGS)}
    with scratch_folder() as folder:
        _write(export, model, folder)
        logged = client.create_logged_model(experiment_id, name, run_id, source, parameters)
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        description = copy.copy(export.description)
        description.run_id = run_id
        description.artifact_path = logged.artifact_location
        description.model_id = description.model_uuid = logged.model_id
        description.utc_time_created = str(datetime.now(UTC).replace(tzinfo=None))
        description.save(f"{folder}/{MLMODEL_FILE_NAME}")
        client.log_model_artifacts(logged.model_id, str(folder))
    client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _write(export: _Export, model: nn.Module, folder: Path) -> None:
    """Writes all files except the description."""
    for path, content in export.files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    program = folder / export.program_path
    program.parent.mkdir(parents=True, exist_ok=True)
    state = model.state_dict()
    with zipfile.ZipFile(program, "w") as archive:
        for record, content in export.records.items():
            weight = export.weights.get(record)
            archive.writestr(record, content if weight is None else _content(state[weight]))


def _require_room_for(model: nn.Module) -> None:
    """Raises a MachineError if the temporary folder has no room for the model.

    It is checked beforehand, because torch's archive writer ends the whole process if the disk is
    full.
    """
    folder, free = scratch_room()
    needed = 2 * sum(tensor.nbytes for tensor in model.state_dict().values()) + _GRAPH_BYTES
    if free < needed:
        raise MachineError(
            f"{str(folder)!r} has {free / 2**20:.1f} MiB left; allowed: a data_folder with at least"
            f" {needed / 2**20:.1f} MiB for the model"
        )
