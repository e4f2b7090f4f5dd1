"""Faults of the tracking store and of the files there, each as one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import mlflow
from mlflow.exceptions import MlflowException
from requests.exceptions import RequestException
from sqlalchemy.exc import SQLAlchemyError

from kdplatform.errors import KdplatformError, MachineError, UserError, one_line
from kdplatform.redaction import redacted, without_user
from kdplatform.stores import first_line, reason_of

_ANSWERING = "a running MLflow server, or a database with room left such as sqlite:///mlflow.db"
_KEYS = (
    "keys of the object storage in the environment of every process that trains, such as "
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and a bucket that exists; or an MLflow server "
    "that has them itself (--artifacts-destination)"
)
_DELETED = re.compile(r"experiment (\S+) must be in the 'active' state")
_REFUSED = re.compile(r"API request to endpoint (\S+) failed with error code (\d+)")
# The part of boto3's messages after the names of files.
_CAUSE = re.compile(r"An error occurred \(.*", re.DOTALL)
# The libraries of object storage, whose errors MLflow passes on unchanged.
_STORAGE = ("boto3", "botocore", "google.cloud", "google.api_core", "azure")


def shown_store() -> str:
    """Returns the tracking URI for messages, without name and password."""
    return redacted(str(mlflow.get_tracking_uri()))


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns faults of the tracking store into errors of one line.

    Raises:
        UserError: the store does not know the user, or an experiment is deleted.
        MachineError: the store refused, failed or stopped answering.
    """
    try:
        yield
    except Exception as error:
        fault = store_fault(error)
        if fault is None:
            raise
        raise fault from error


def store_fault(error: Exception) -> KdplatformError | None:
    """Returns the fault of a store behind an error; None for any other error."""
    if isinstance(error, MlflowException):
        return _refused_by_server(error) or MachineError(store_problem(reason_of(error)))
    if isinstance(error, SQLAlchemyError):
        return MachineError(store_problem(reason_of(error)))
    if isinstance(error, RequestException) and _of_server(error):
        code = None if error.response is None else error.response.status_code
        return _unknown_user(code) or MachineError(_files_problem(first_line(error)))
    if isinstance(error, ModuleNotFoundError) and (error.name or "").startswith(_STORAGE):
        reason = f"they need the Python package {error.name}, which is not installed"
        return MachineError(_files_problem(reason))
    if type(error).__module__.startswith(_STORAGE):
        found = _CAUSE.search(str(error))
        return MachineError(_files_problem(one_line(found[0]) if found else first_line(error)))
    return None


def _of_server(error: RequestException) -> bool:
    """Returns whether a request went to the tracking server, and not elsewhere."""
    asked = str(getattr(error.request, "url", ""))
    return urlsplit(asked).netloc == urlsplit(without_user(str(mlflow.get_tracking_uri()))).netloc


def store_problem(reason: object, allowed: str = _ANSWERING) -> str:
    """Returns the message that the tracking store fails, with the reason."""
    return (
        f"MLFLOW_TRACKING_URI={shown_store()!r} does not answer as it should ({reason}); allowed: "
        f"{allowed}"
    )


def _files_problem(reason: object) -> str:
    return (
        f"MLFLOW_TRACKING_URI={shown_store()!r}: the files of its runs cannot be reached "
        f"({reason}); allowed: {_KEYS}"
    )


def _refused_by_server(error: MlflowException) -> KdplatformError | None:
    reason = reason_of(error)
    if deleted := _DELETED.search(reason):
        remedy = f"mlflow experiments restore --experiment-id {deleted[1]}"
        return UserError(
            f"experiment {deleted[1]} of MLFLOW_TRACKING_URI={shown_store()!r} is deleted; "
            f"allowed: {remedy}, or the name of another one as MLFLOW_EXPERIMENT_NAME"
        )
    if "/mlflow-artifacts/" in str(error):
        return MachineError(
            f"MLFLOW_TRACKING_URI={shown_store()!r}: its server fails to write or read the files "
            "of runs, and its log says why; allowed: a server whose --artifacts-destination "
            "exists, with the keys of that storage in its environment"
        )
    refused = _REFUSED.search(str(error))
    if refused is None:
        return None
    endpoint, code = refused.groups()
    if code == "404":
        return MachineError(
            store_problem(
                f"it does not know {endpoint}",
                f"an MLflow server of the version here, {mlflow.__version__}, or a newer one",
            )
        )
    if "Host header" in str(error):
        return UserError(
            f"MLFLOW_TRACKING_URI={shown_store()!r} is a server that does not answer to this name; "
            f"allowed: its number, or a server started with --allowed-hosts "
            f"{urlsplit(without_user(str(mlflow.get_tracking_uri()))).netloc}"
        )
    return _unknown_user(int(code))


def _unknown_user(code: int | None) -> UserError | None:
    store = f"MLFLOW_TRACKING_URI={shown_store()!r}"
    if code == 401:
        return UserError(
            f"{store} does not know this user (401); allowed: name and password of a user of the "
            "server as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN"
        )
    if code == 403:
        return UserError(
            f"{store} does not permit this user what the command needs (403); allowed: a user who "
            "may create experiments, or may edit that of the project"
        )
    return None
