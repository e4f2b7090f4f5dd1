"""Faults of a store in one line: what it refuses, what it lacks, and what is no fault of it."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException

from kdplatform.errors import MachineError, UserError
from kdplatform.experiments import store_faults
from kdplatform.experiments.store_faults import store_fault
from kdplatform.experiments.tracking import check_store

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
        (
            MlflowException(
                "API request to endpoint /x failed with error code 403 != 200. Response body: "
                "'Invalid Host header - possible DNS rebinding attack detected'"
            ),
            UserError,
            "does not answer to this name; allowed: its number, or a server started with "
            "--allowed-hosts server:5000",
        ),
        (
            MlflowException(
                "API request to http://server:5000/api/2.0/mlflow-artifacts/artifacts/1/x failed "
                "with exception HTTPConnectionPool"
            ),
            MachineError,
            "whose --artifacts-destination exists",
        ),
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
    assert "allowed: " in line
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


class OldServer(BaseHTTPRequestHandler):
    """An MLflow server, of which only the version answers."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"2.16.0" if self.path == "/version" else b"OK")

    def log_message(self, *_: object) -> None:
        pass


def test_a_server_that_keeps_no_models_is_refused_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with HTTPServer(("127.0.0.1", 0), OldServer) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(store_faults.mlflow, "get_tracking_uri", lambda: address)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(MachineError, match=r"is a server of MLflow 2\.16\.0, .* MLflow 3 or n"):
            check_store()
        server.shutdown()
