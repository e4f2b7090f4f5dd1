"""The entry point `predict`: the predictions of any model on a dataset, as a file.

Such a file is a prediction table for `compare`, and a teacher for `teacher.logits`.
"""

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from mlflow.exceptions import MlflowException
from mlflow.models.model import MLMODEL_FILE_NAME
from numpy.typing import NDArray

from kdplatform.arguments import Arguments
from kdplatform.data import Dataset, Split
from kdplatform.errors import UserError
from kdplatform.experiments.foreign_models import ForeignModel, as_logits, logs_of_probabilities
from kdplatform.experiments.graph import Step
from kdplatform.experiments.logits_files import CLASSES_KEY
from kdplatform.experiments.starting import starting_model
from kdplatform.experiments.store_faults import store_errors
from kdplatform.experiments.tracking import begin_command, command_run, quiet_mlflow
from kdplatform.experiments.weights import find_weights
from kdplatform.experiments.workspace import Workspace, open_workspace
from kdplatform.files import (
    place_of_folder,
    writable_folder,
    written_atomically,
)
from kdplatform.predictions import are_probabilities
from kdplatform.progress import say, show
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig, TrainingConfig
from kdplatform.stores import first_line
from kdplatform.training import predict_logits

ALLOWED = "the id of a run, runs:/... or models:/..."
SPLITS = ("train", "val", "test", "unlabeled")
_SUFFIXES = (".parquet", ".csv")
_RUN_ID = re.compile(r"[0-9a-f]{32}")


def run_predict(config: ProjectConfig, arguments: Arguments) -> None:
    """Runs a model on splits of the project's dataset and writes its predictions to a file.

    Raises:
        UserError: the model does not exist, would be unpickled without trust, or does not fit the
            dataset.
    """
    started = time.perf_counter()
    quiet_mlflow()
    splits, out = _asked_splits(arguments.split), _out(arguments)
    writable_folder("out", out.parent)
    workspace = open_workspace(config, arguments.data_folder, arguments.device, arguments.reuse)
    begin_command()
    with store_errors():
        ask = _model(arguments.model, workspace, trusted=arguments.trust_model)
        chosen = _chosen(workspace.dataset, splits)
        with command_run("predict", config) as run_id:
            tables = {name: _table(name, split, ask(split)) for name, split in chosen.items()}
            several = len(tables) > 1
            _write(out, pd.concat(tables.values(), ignore_index=True), workspace.dataset, several)
            accuracies = {
                f"{name}/accuracy": float((own["prediction"] == own["label"]).mean())
                for name, own in tables.items()
                if name != "unlabeled"
            }
            mlflow.log_metrics(accuracies)
            mlflow.set_tag("kd.predicted", arguments.model)
    for name, value in accuracies.items():
        say(f"{name}: {value:.2%} of {len(chosen[name.partition('/')[0]]):,} examples")
    show(f"\nread it: {out}\nrun {run_id}")
    say(f"predict: {time.perf_counter() - started:.0f} s")


def _asked_splits(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    for name in names or ("",):
        if name not in SPLITS or names.count(name) > 1:
            raise UserError(
                f"split={text!r} is not allowed; allowed: {', '.join(SPLITS)}, each once"
            )
    return names


def _out(arguments: Arguments) -> Path:
    if arguments.model == "none":
        raise UserError(f"model is not given; allowed: {ALLOWED}")
    if arguments.out is None:
        name = re.sub(r"[^A-Za-z0-9]+", "-", f"{arguments.model} {arguments.split}").strip("-")
        return arguments.data_folder / "predictions" / f"{name}.parquet"
    if arguments.out.suffix.lower() not in _SUFFIXES:
        raise UserError(f"out={str(arguments.out)!r} is not allowed; allowed: .parquet or .csv")
    if arguments.out.is_dir():
        raise UserError(f"out={str(arguments.out)!r} is a folder; allowed: .parquet or .csv")
    place_of_folder("out", arguments.out.parent)
    return arguments.out


def _chosen(dataset: Dataset, names: tuple[str, ...]) -> dict[str, Split]:
    known = dataset.splits()
    if dataset.unlabeled is not None:
        known["unlabeled"] = dataset.unlabeled
    elif "unlabeled" in names:
        raise UserError(
            "split='unlabeled' is empty with dataset.unlabeled_fraction=0; allowed: others"
        )
    return {name: known[name] for name in names}


# ---- the model


def _model(name: str, workspace: Workspace, *, trusted: bool) -> Any:
    """Returns a function from a split to logits [N, C], or to class numbers [N]."""
    folder = None if _RUN_ID.fullmatch(name) else _folder(name)
    own = folder is None or not (folder / MLMODEL_FILE_NAME).is_file() or _is_ours(name, folder)
    if own:
        return _asking_own(name, workspace)
    assert folder is not None
    model, names = ForeignModel(name, folder, trusted=trusted), workspace.dataset.class_names

    def ask(split: Split) -> NDArray[Any]:
        said: NDArray[Any] = as_logits(model.predict(split.inputs), names, name)
        probable = said.ndim == 2 and are_probabilities(said)
        return logs_of_probabilities(said, name) if probable else said

    return ask


def _folder(uri: str) -> Path:
    if not uri.startswith(("runs:/", "models:/")):
        raise UserError(f"model={uri!r} is not allowed; allowed: {ALLOWED}")
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"model={uri!r} cannot be found ({first_line(error)}); allowed: {ALLOWED}"
        ) from None


def _is_ours(uri: str, folder: Path) -> bool:
    """Returns whether this platform logged an MLflow model."""
    graphs = list(folder.rglob("*.pt2"))
    return len(graphs) == 1 and find_weights(uri).model is not None


def _asking_own(name: str, workspace: Workspace) -> Any:
    """Returns a function that runs a model of this platform, restored from its plain weights."""
    dataset = workspace.dataset
    try:
        source = find_weights(name)
    except UserError as error:
        raise UserError(str(error).replace("weights=", "model=", 1)) from None
    if source.model is None:
        raise UserError(
            f"model={name!r} are weights of an unknown architecture; allowed: a run of this "
            "platform, or a model that MLflow can load"
        )
    if source.class_names and source.class_names != dataset.class_names:
        raise UserError(
            f"model={name!r} has the classes {', '.join(source.class_names[:3])}, ..., the dataset "
            f"{', '.join(dataset.class_names[:3])}, ...; allowed: a model of the same classes in "
            "the same order"
        )
    if source.are_of_another(dataset.digest):
        say(f"{name}: trained on another dataset of the same classes")
    training = TrainingConfig.model_validate(
        {"model": source.model, "weights": name, "frozen": True}
    )
    model = starting_model(Step(Role.TEACHER, 0, training, ""), dataset).eval()

    def ask(split: Split) -> NDArray[Any]:
        with torch.no_grad():
            logits = predict_logits(
                model.to(workspace.device), split.inputs, device=workspace.device
            )
        said: NDArray[Any] = as_logits(logits.cpu().numpy(), dataset.class_names, name)
        return said

    return ask


# ---- the file


def _table(name: str, split: Split, said: NDArray[Any]) -> pd.DataFrame:
    """Returns the columns of a prediction table, with the split's name after the ids."""
    if name in ("val", "test") and said.ndim == 2:
        # As in a run's own table. Students learn from the scores of all items.
        said = split.in_the_running(torch.from_numpy(said)).numpy()
    columns: dict[str, Any] = {"id": split.ids, "split": name}
    columns["label"] = split.labels.numpy()
    if said.ndim == 1:
        columns["prediction"] = said
    else:
        columns["prediction"] = said.argmax(axis=1)
        columns["logits"] = list(said)
    table = pd.concat([pd.DataFrame(columns), split.columns.reset_index(drop=True)], axis=1)
    return table if split.names is None else table.assign(**{"\0name": split.names})


def _write(out: Path, table: pd.DataFrame, dataset: Dataset, several: bool) -> None:
    """Writes a table; the column of names is called as in the user's files."""
    if "\0name" in table:
        table.insert(1, dataset.named_by, table.pop("\0name"))
    if not several:
        table = table.drop(columns="split")
    with written_atomically(out) as temporary:
        if out.suffix.lower() == ".csv":
            if "logits" in table:
                # As float32 they are read back unchanged.
                texts = [json.dumps([float(value) for value in row]) for row in table["logits"]]
                table = table.assign(logits=texts)
            table.to_csv(temporary, index=False)
            return
        pq.write_table(_arrow(table, dataset), temporary)


def _arrow(table: pd.DataFrame, dataset: Dataset) -> pa.Table:
    named: Mapping[bytes, bytes] = {CLASSES_KEY: json.dumps(list(dataset.class_names)).encode()}
    plain = pa.Table.from_pandas(
        table.drop(columns="logits", errors="ignore"), preserve_index=False
    )
    if "logits" in table:
        matrix = np.stack(table["logits"].tolist()).astype(np.float32)
        column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
        place = plain.schema.get_field_index("prediction") + 1
        plain = plain.add_column(place, "logits", column)
    return plain.replace_schema_metadata({**(plain.schema.metadata or {}), **named})
