"""Sources of a model's starting weights, and their part of a run's key."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.models.model import MLMODEL_FILE_NAME
from torch import Tensor

from kdplatform.errors import UserError
from kdplatform.experiments.artifacts import artifact_path
from kdplatform.experiments.tracking import (
    artifact_digests,
    check_store,
    class_names,
)
from kdplatform.files import file_digest, not_there, user_path
from kdplatform.models.pretrained import pretrained
from kdplatform.models.user_models import by_content, is_user_model, user_model_digest
from kdplatform.progress import say
from kdplatform.roles import Role
from kdplatform.settings.schema import ProjectConfig, TrainingConfig
from kdplatform.settings.yaml_files import read_mapping
from kdplatform.stores import first_line
from kdplatform.tensor_files import (
    UnreadableError,
    read_graph_weights,
    read_safetensors,
    read_tensors,
)

# The artifact that holds a run's state dict.
WEIGHTS = "weights.pt"
TAG_MODEL = "kd.model"
TAG_IMAGE_SIZE = "kd.image_size"
ALLOWED = (
    "a state dict saved as .pt, .pth or .safetensors, the id of a run of this platform, or an "
    "MLflow URI (runs:/... or models:/...)"
)
_SUFFIXES = (".pt", ".pth", ".safetensors")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_URIS = ("runs:/", "models:/")
# Prefixes that training loops and torch.compile add to every name.
_WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")
# Keys of the plain state dict in checkpoints, which also have averaged ones and the optimiser's.
_PLAIN = ("", "state_dict", "state_dict.model", "state_dict.net", "model", "net", "module")
_AVERAGED = re.compile(r"(^|_)ema(_|$)", re.IGNORECASE)
_DEEPEST_ENTRY = 4


@dataclass(frozen=True)
class Source:
    """Weights that were found but not yet read.

    Attributes:
        path: path of a state dict, or of a graph (.pt2) with one.
        digest: SHA-256 of the file.
        model: the architecture of the trained model, if known.
        image_size: side length to which that model resized its images, if it did.
        class_names: the class of each output, if known.
        dataset: the first digits of the digest of their training data, if known.
    """

    path: Path
    digest: str
    model: str | None = None
    image_size: int | None = None
    class_names: tuple[str, ...] = ()
    dataset: str = ""

    def are_of_another(self, dataset_digest: str) -> bool:
        """Returns whether the weights are known to belong to another dataset."""
        return bool(self.dataset) and not dataset_digest.startswith(self.dataset)


def key_settings(training: TrainingConfig, dataset_digest: str) -> dict[str, Any]:
    """Returns the part of a model's configuration that enters its run's key, as plain JSON values.

    Weights enter by their content or their publisher's name, not by their path. Weights of another
    dataset enter with their classes, which decide the use of the outputs.

    Raises:
        UserError: weights, or a user's function, cannot be found.
    """
    settings = training.matters()
    if training.logits:
        return {**settings, "logits": [logits_digest(file) for file in training.logits]}
    if training.pretrained:
        settings["pretrained"] = pretrained(training.model).source
    if training.weights is not None:
        source = find_weights(training.weights)
        settings["weights"] = source.digest
        if training.image_size is None and source.image_size is not None:
            settings["image_size"] = source.image_size
        if source.class_names and source.are_of_another(dataset_digest):
            settings["weights_classes"] = source.class_names
    if is_user_model(training.model):
        settings["model"] = by_content(training.model)
        settings["model_digest"] = user_model_digest(training.model)
    return settings


def section_of(role: Role) -> str:
    """Returns the block of the configuration that trains the models of a role."""
    return "teacher" if role is Role.TEACHER else "student"


@contextmanager
def named_by_field(role: Role) -> Iterator[None]:
    """Lets errors about weights name the field that has them, such as `teacher.weights`."""
    try:
        yield
    except UserError as error:
        if not str(error).startswith("weights="):
            raise
        raise UserError(f"{section_of(role)}.{error}") from None


def check_weights_files(config: ProjectConfig, command: str) -> None:
    """Checks that files of weights are there, before the data are read.

    Raises:
        UserError: one is not.
    """
    used = {Role.TEACHER: config.teacher, Role.STUDENT: config.student}
    if command == "student" or (command != "teacher" and config.distillation.teachers):
        del used[Role.TEACHER]
    if command == "teacher":
        del used[Role.STUDENT]
    for role, training in used.items():
        weights = training.weights
        if weights and not _RUN_ID.fullmatch(weights) and not weights.startswith(_URIS):
            with named_by_field(role):
                find_weights(weights)


def find_weights(weights: str) -> Source:
    """Finds weights by a name of the kinds in `ALLOWED`.

    Raises:
        UserError: no weights have this name.
    """
    if _RUN_ID.fullmatch(weights):
        return _of_run(weights, mlflow.get_tracking_uri())
    if weights.startswith(_URIS):
        return _of_uri(weights, mlflow.get_tracking_uri())
    path = user_path("weights", weights)
    if path.suffix not in _SUFFIXES or not path.is_file():
        problem = "is no file" if path.suffix in _SUFFIXES else "is not understood"
        raise UserError(f"weights={weights!r} {problem}; allowed: {ALLOWED}")
    return Source(path, _digest(path, path.stat().st_mtime_ns))


def read_weights(weights: str, source: Source, entry: str | None = None) -> dict[str, Tensor]:
    """Reads the state dict of weights that were found, on the CPU.

    Args:
        entry: name of one of a checkpoint's state dicts; None: the plain one.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    try:
        content = _content(weights, source.path)
    except UnreadableError as error:
        raise UserError(
            f"weights={weights!r} cannot be read ({error}); allowed: {ALLOWED}"
        ) from None
    state, left_out = _chosen(weights, content, entry), ""
    while prefix := next((p for p in _WRAPPERS if all(n.startswith(p) for n in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
        left_out += prefix
    if left_out:
        say(f"{weights}: {left_out!r}, the prefix of all names, is left out")
    return state


def _content(weights: str, path: Path) -> object:
    if path.suffix == ".pt2":
        return read_graph_weights(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path, needed_by=f"weights={weights!r}", extra="vision")
    return read_tensors(path)


def _chosen(weights: str, content: object, entry: str | None) -> dict[str, Tensor]:
    """Returns one of the state dicts of a file; a line names it if there are several."""
    found = dict(_state_dicts(content))
    if entry is not None:
        if entry not in found:
            names = ", ".join(filter(None, found)) or "none, it is one state dict"
            raise UserError(
                f"weights_entry={entry!r} is no state dict in weights={weights!r}; allowed: {names}"
            )
        return found[entry]
    plain = [name for name in _PLAIN if name in found] or list(found)
    if not plain:
        raise UserError(
            f"weights={weights!r} hold no state dict{_why(content)}; allowed: {ALLOWED}"
        )
    if len(plain) > 1 and plain[0] not in _PLAIN:
        raise UserError(
            f"weights={weights!r} hold several state dicts; allowed with weights_entry: one of "
            f"{', '.join(plain)}"
        )
    others = [name for name in found if name != plain[0]]
    if others:
        say(f"{weights}: {plain[0]!r} is used, and not {', '.join(others)}; weights_entry chooses")
    return found[plain[0]]


def _state_dicts(
    content: object, path: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yields the dicts that contain only tensors, with their dotted names, such as `a.b`.

    A dict with plain and averaged weights under names such as `model.` and `ema.` counts as two.
    """
    if not isinstance(content, dict) or not content or depth > _DEEPEST_ENTRY:
        return
    if not all(isinstance(name, str) for name in content):
        return  # an optimiser's
    if all(isinstance(value, Tensor) for value in content.values()):
        parts = {name.partition(".")[0] for name in content}
        averaged = {part for part in parts if _AVERAGED.search(part)}
        plain = {f"{part}." for part in parts - averaged}
        if not (averaged and plain and plain <= set(_WRAPPERS)):
            yield path, content
            return
        content = {
            part: {n.partition(".")[2]: t for n, t in content.items() if n.startswith(f"{part}.")}
            for part in sorted(parts)
        }
    for name, value in content.items():
        yield from _state_dicts(value, f"{path}.{name}".removeprefix("."), depth + 1)


def _why(content: object) -> str:
    """Names the entries that are not tensors, because of which a file is not a state dict."""
    if not isinstance(content, dict):
        return f" but a {type(content).__name__}"
    others = ((n, type(v).__name__) for n, v in content.items() if not isinstance(v, Tensor))
    return next((f": its {name!r} is a {kind}" for name, kind in others), "")


@lru_cache(maxsize=16)
def _of_run(run_id: str, tracking_uri: str) -> Source:
    check_store()
    try:
        run = MlflowClient(tracking_uri).get_run(run_id)
        digest = artifact_digests(run).get(WEIGHTS)
        path = artifact_path(run_id, WEIGHTS) if digest else None
    except (MlflowException, OSError) as error:
        raise UserError(
            f"weights={run_id!r} cannot be read from the tracking store ({first_line(error)}); "
            f"allowed: {ALLOWED}"
        ) from None
    if path is None or file_digest(path) != digest:
        raise UserError(
            f"weights={run_id!r}: the run has no {WEIGHTS} as it was logged; allowed: a FINISHED "
            "run of one model"
        )
    return _source(path, digest, run)


def _source(path: Path, digest: str, run: Run | None) -> Source:
    """Returns weights with the facts from the run that trained them, if there is one."""
    if run is None or TAG_MODEL not in run.data.tags:
        return Source(path, digest)
    size = run.data.tags.get(TAG_IMAGE_SIZE)
    data = run.inputs.dataset_inputs
    return Source(
        path,
        digest,
        run.data.tags[TAG_MODEL],
        int(size) if size else None,
        class_names(run) if data else (),
        data[0].dataset.digest if data else "",
    )


def _trained_by(uri: str, path: Path, tracking_uri: str) -> Run | None:
    """Returns the run of the weights at a URI, if the store knows it."""
    run_id, description = None, path / MLMODEL_FILE_NAME
    if description.is_file():
        run_id = read_mapping("weights", description).get("run_id")
    elif uri.endswith(f"/{WEIGHTS}"):
        run_id = uri.split("/")[1]
    try:
        return MlflowClient(tracking_uri).get_run(str(run_id)) if run_id else None
    except MlflowException:
        return None


@lru_cache(maxsize=16)
def _of_uri(uri: str, tracking_uri: str) -> Source:
    check_store()
    try:
        path = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri))
    except (MlflowException, OSError) as error:
        raise UserError(
            f"weights={uri!r} cannot be found ({first_line(error)}); allowed: {ALLOWED}"
        ) from None
    run = _trained_by(uri, path, tracking_uri)
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
    return _source(path, file_digest(path), run)


def logits_digest(file: str) -> str:
    """Returns the SHA-256 of a file of a teacher's logits.

    Raises:
        UserError: the file does not exist.
    """
    path = user_path("teacher.logits", file)
    if not path.is_file():
        raise not_there("teacher.logits", file, path, "a file of logits")
    return _digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int) -> str:
    return file_digest(path)
