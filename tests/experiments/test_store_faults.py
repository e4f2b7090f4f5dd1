"""Faults of a store in one line: what it refuses, what it lacks, and what is no fault of it."""

from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException

from kdplatform.errors import MachineError, UserError
from kdplatform.experiments import store_faults
from kdplatform.experiments.store_faults import store_fault

SERVER = "http://me:secret@server:5000"


@pytest.fixture(autouse=True)
def _server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_faults.mlflow, "get_tracking_uri", lambda: SERVER)


def refused(code: int) -> MlflowException:
    """As MLflow's client raises it, with what the server answers in the lines after."""
    return MlflowException(
        f"API request to endpoint /api/2.0/mlflow/runs/search failed with error code {code} != "
        "200. Response body: '<html>\nand so on"
    )


def failed_request(url: str, code: int) -> requests.HTTPError:
    request = requests.Request("PUT", url).prepare()
    response = requests.Response()
    response.status_code, response.request = code, request
    return requests.HTTPError(f"{code} Server Error for url: {url}", response=response)


def foreign(module: str, message: str) -> Exception:
    kind = type("ClientError", (Exception,), {"__module__": module})
    return kind(message)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (refused(401), UserError, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
        (refused(403), UserError, "a user who may create experiments"),
        (refused(404), MachineError, "it does not know /api/2.0/mlflow/runs/search"),
        (refused(500), MachineError, "does not answer as it should"),
        (failed_request("http://server:5000/x", 401), UserError, "MLFLOW_TRACKING_USERNAME"),
        (failed_request("http://server:5000/x", 500), MachineError, "files of its runs cannot be"),
        (
            foreign("botocore.exceptions", "Failed: An error occurred (NoSuchBucket) when\n put"),
            MachineError,
            "reached (An error occurred (NoSuchBucket) when put); allowed: keys of the object",
        ),
        (
            ModuleNotFoundError("No module named 'boto3'", name="boto3"),
            MachineError,
            "they need the Python package boto3, which is not installed",
        ),
    ],
)
def test_a_fault_is_one_line_without_the_password(error: Any, kind: type, said: str) -> None:
    fault = store_fault(error)
    assert type(fault) is kind
    line = str(fault)
    assert line.startswith("MLFLOW_TRACKING_URI='http://***@server:5000'")
    assert said in line
    assert "; allowed: " in line
    assert "\n" not in line
    assert "secret" not in line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("of the program"),
        failed_request("https://hub/model", 404),
        ModuleNotFoundError("No module named 'timm'", name="timm"),
        foreign("google.protobuf.message", "An error occurred (of another kind)"),
    ],
)
def test_other_errors_are_no_faults_of_the_store(error: Exception) -> None:
    assert store_fault(error) is None
