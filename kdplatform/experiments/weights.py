"""Where a model's weights before its training come from, and how a run's key knows them."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from torch import Tensor

from kdplatform.errors import UserError
from kdplatform.experiments.tracking import TAG_DIGESTS, artifact_path, check_store, first_line
from kdplatform.files import file_digest, user_path
from kdplatform.models.pretrained import pretrained
from kdplatform.models.user_models import is_user_model, user_model_digest
from kdplatform.settings.schema import TrainingConfig
from kdplatform.tensor_files import UnreadableError, read_graph_weights, read_tensors

# The artifact that holds a run's state dict.
WEIGHTS = "weights.pt"
TAG_MODEL = "kd.model"
TAG_IMAGE_SIZE = "kd.image_size"
ALLOWED = (
    "a state dict saved as .pt or .pth, the id of a run of this platform, or an MLflow URI "
    "(runs:/... or models:/...)"
)
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_URIS = ("runs:/", "models:/")


@dataclass(frozen=True)
class Source:
    """Weights that were found, not yet read.

    Attributes:
        path: of a state dict, or of a graph (.pt2) that holds one.
        digest: SHA-256 of the file.
        model: the architecture they were trained as, where that is known.
        image_size: side to which that model resized its images, where it did.
    """

    path: Path
    digest: str
    model: str | None = None
    image_size: int | None = None


def key_settings(training: TrainingConfig) -> dict[str, Any]:
    """Returns what of a model's configuration enters its run's key, as plain JSON values.

    Weights enter by their content or their publisher's name, not by where they lie.

    Raises:
        UserError: weights, or a function of the user's, cannot be found.
    """
    settings = training.matters()
    if training.pretrained:
        settings["pretrained"] = pretrained(training.model).source
    if training.weights is not None:
        source = find_weights(training.weights)
        settings["weights"] = source.digest
        if training.image_size is None and source.image_size is not None:
            settings["image_size"] = source.image_size
    if is_user_model(training.model):
        settings["model_digest"] = user_model_digest(training.model)
    return settings


def find_weights(weights: str) -> Source:
    """Finds weights named as `ALLOWED` says.

    Raises:
        UserError: there are none of this name.
    """
    if _RUN_ID.fullmatch(weights):
        return _of_run(weights, mlflow.get_tracking_uri())
    if weights.startswith(_URIS):
        return _of_uri(weights, mlflow.get_tracking_uri())
    path = user_path("weights", weights)
    if path.suffix not in {".pt", ".pth"} or not path.is_file():
        problem = "is no file" if path.suffix in {".pt", ".pth"} else "is not understood"
        raise UserError(f"weights={weights!r} {problem}; allowed: {ALLOWED}")
    return Source(path, _digest(path, path.stat().st_mtime_ns))


def read_weights(weights: str, source: Source) -> dict[str, Tensor]:
    """Reads the state dict of weights that were found, on the CPU.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    try:
        if source.path.suffix == ".pt2":
            return read_graph_weights(source.path)
        content = read_tensors(source.path)
    except UnreadableError as error:
        raise UserError(
            f"weights={weights!r} cannot be read ({error}); allowed: {ALLOWED}"
        ) from None
    for name in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not (isinstance(content, dict) and content and _all_tensors(content)):
        raise UserError(f"weights={weights!r} hold no state dict; allowed: {ALLOWED}")
    # What data-parallel training of torch puts before every name.
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _all_tensors(content: dict[Any, Any]) -> bool:
    return all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())


@lru_cache(maxsize=16)
def _of_run(run_id: str, tracking_uri: str) -> Source:
    check_store()
    try:
        run = MlflowClient(tracking_uri).get_run(run_id)
        digest = json.loads(run.data.tags.get(TAG_DIGESTS, "{}")).get(WEIGHTS)
        path = artifact_path(run_id, WEIGHTS) if digest else None
    except (MlflowException, OSError) as error:
        raise UserError(
            f"weights={run_id!r} are not in the tracking store ({first_line(error)}); "
            f"allowed: {ALLOWED}"
        ) from None
    if path is None or file_digest(path) != digest:
        raise UserError(
            f"weights={run_id!r}: the run has no {WEIGHTS} as it was logged; allowed: a FINISHED "
            "run of one model"
        )
    size = run.data.tags.get(TAG_IMAGE_SIZE)
    return Source(path, digest, run.data.tags.get(TAG_MODEL), int(size) if size else None)


@lru_cache(maxsize=16)
def _of_uri(uri: str, tracking_uri: str) -> Source:
    check_store()
    try:
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"weights={uri!r} cannot be found ({first_line(error)}); allowed: {ALLOWED}"
        ) from None
    if path.is_dir():
        graphs = sorted(path.rglob("*.pt2"))
        if not graphs:
            raise UserError(
                f"weights={uri!r} hold no graph; allowed: a model logged with "
                "serialization_format='pt2' (a pickled one could run anything when it is read)"
            )
        if len(graphs) > 1:
            names = ", ".join(graph.relative_to(path).as_posix() for graph in graphs)
            raise UserError(f"weights={uri!r} hold {len(graphs)} graphs ({names}); allowed: one")
        path = graphs[0]
    return Source(path, file_digest(path))


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int) -> str:
    return file_digest(path)
