"""The files of runs: where they are, local copies of remote ones, several fetched at a time."""

import atexit
import errno
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import TypeVar
from urllib.parse import urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path

from kdplatform.files import file_digest, scratch_folder
from kdplatform.stores import first_line

# A file of a run: the run's id and the file's path below its artifacts.
Artifact = tuple[str, str]

# Number of parallel requests. A server answers about 50 requests a second one after the other, and
# four to eight times as many in parallel.
AT_ONCE = 8
# Stores for which one client serves all runs. For other stores each run has its own client.
_WHOLE = ("mlflow-artifacts", "s3")
# Artifacts that are read again after they were verified.
_READ_AGAIN = "predictions/test"

# Closed when the process ends.
_AT_EXIT = ExitStack()
atexit.register(_AT_EXIT.close)
# The places of runs' artifacts, by tracking URI and run.
_PLACES: dict[tuple[str, str], str] = {}

_FIRST = Lock()

In = TypeVar("In")
Out = TypeVar("Out")


def side_by_side(ask: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
    """Returns the answers of a store to several parallel requests, in their order."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(ask, items))


def know_places(runs: Iterable[Run]) -> None:
    """Notes where the artifacts of runs are, which saves a request for each."""
    uri = str(mlflow.get_tracking_uri())
    for run in runs:
        _PLACES[uri, run.info.run_id] = str(run.info.artifact_uri)


def artifact_path(run_id: str, path: str) -> Path:
    """Returns a local path of a run's artifact; a remote one is fetched once by this process.

    Raises:
        OSError, MlflowException: it does not exist, or its store does not deliver it.
    """
    if not _is_local(_place(run_id)) and (copy := _copy(run_id, path)).exists():
        return copy
    return _fetched(run_id, path)


def fetch_ahead(artifacts: Iterable[Artifact]) -> None:
    """Fetches files that will be read later; a failure is left to the later reading."""

    def fetch(artifact: Artifact) -> None:
        with suppress(OSError, MlflowException):
            artifact_path(*artifact)

    side_by_side(fetch, artifacts)


def drop_copy(run_id: str, path: str) -> None:
    """Removes the local copy of a remote artifact that is not read any more."""
    if not _is_local(_place(run_id)):
        _copy(run_id, path).unlink(missing_ok=True)


def digest_now(run_id: str, path: str) -> str:
    """Returns the current digest of an artifact in its store.

    Raises:
        OSError, MlflowException: as `artifact_path`.
    """
    return file_digest(_fetched(run_id, path))


def digests_now(artifacts: Iterable[Artifact]) -> dict[Artifact, str]:
    """Returns the current digests of artifacts in their store.

    Artifacts that cannot be read are left out. Copies of remote weights are not kept, because those
    of a study would fill the temporary folder.
    """

    def digest(artifact: Artifact) -> tuple[Artifact, str]:
        with suppress(OSError, MlflowException):
            found = digest_now(*artifact)
            if not artifact[1].startswith(_READ_AGAIN):
                drop_copy(*artifact)
            return artifact, found
        return artifact, ""

    return {artifact: found for artifact, found in side_by_side(digest, artifacts) if found}


def log_artifacts_of(run_id: str, folder: Path, below: str | None = None) -> None:
    """Logs the files of `folder` to a run that has ended, into its own folder `below`."""
    # MLflow's client caches the places of artifacts by run id, without the store.
    get_artifact_repository(_place(run_id)).log_artifacts(str(folder), below)
    for file in folder.rglob("*"):
        if file.is_file():
            drop_copy(
                run_id, PurePosixPath(below or "", *file.relative_to(folder).parts).as_posix()
            )


def _fetched(run_id: str, path: str) -> Path:
    """Returns a local path of an artifact with its current content."""
    place = _place(run_id)
    if ".." in PurePosixPath(path).parts:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if _is_local(place):
        found = Path(local_file_uri_to_path(place)) / path
        if not found.is_file():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(found))
        return found
    whole, remote, parts = place, path, urlsplit(place)
    if parts.scheme in _WHOLE:
        whole = f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:/"
        remote = f"{parts.path.strip('/')}/{path}"
    copy = _copy(run_id, path)
    copy.parent.mkdir(parents=True, exist_ok=True)
    part = copy.with_name(f"{copy.name}.part")
    try:
        # This avoids MLflow's request for every file whether it is a folder.
        _repository(str(mlflow.get_tracking_uri()), whole)._download_file(remote, str(part))
    except (OSError, MlflowException):
        raise
    except Exception as error:
        # Errors of the store's library, such as boto3, which MLflow passes on unchanged.
        raise OSError(first_line(error)) from error
    part.replace(copy)
    return copy


@lru_cache(maxsize=32)
def _repository(tracking_uri: str, place: str) -> ArtifactRepository:
    """Returns MLflow's access to an artifact store; the server is the tracking URI's."""
    try:
        return get_artifact_repository(place)
    except ImportError as error:
        raise OSError(f"{place} needs a package that is not installed: {error.name}") from error


def _place(run_id: str) -> str:
    """Returns the URI of a run's artifacts; requested once, where MLflow would ask per file."""
    uri = str(mlflow.get_tracking_uri())
    if (uri, run_id) not in _PLACES:
        _PLACES[uri, run_id] = str(MlflowClient(uri).get_run(run_id).info.artifact_uri)
    return _PLACES[uri, run_id]


def _is_local(place: str) -> bool:
    return urlsplit(place).scheme in ("", "file")


def _copy(run_id: str, path: str) -> Path:
    """Returns where the copy of a remote artifact is, or would be."""
    with _FIRST:  # several threads may be the first to ask
        return _copies(str(mlflow.get_tracking_uri())) / run_id / path


@cache
def _copies(tracking_uri: str) -> Path:
    """Returns a folder for files fetched from a server's stores; it is removed with the process."""
    return _AT_EXIT.enter_context(scratch_folder())
