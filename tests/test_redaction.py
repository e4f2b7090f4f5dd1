"""What is shown of a URL: the place, and no name or password."""

import logging
from collections.abc import Callable
from types import SimpleNamespace

import mlflow
import pytest
from helpers.refusals import refusal_of
from mlflow.environment_variables import MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT

from kdplatform.errors import UserError
from kdplatform.experiments import commands
from kdplatform.experiments.executors import ray
from kdplatform.experiments.tracking import quiet_mlflow
from kdplatform.experiments.weights import find_weights
from kdplatform.progress import collected_messages, say
from kdplatform.redaction import redacted, without_user
from kdplatform.settings.project import load_project
from kdplatform.stores import database_url
from kdplatform.tuning.storage import open_storage

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"http://me:{SECRET}@host:5000/x", "http://***@host:5000/x"),
        (f"postgresql://me:a/{SECRET}/b@host/db", "postgresql://***@host/db"),
        (f"postgresql+psycopg://me:a@{SECRET}@host/db", "postgresql+psycopg://***@host/db"),
        (f"https://{SECRET}@host/repository.git", "https://***@host/repository.git"),
        (f"postgresql:///db?host=h&password={SECRET}", "postgresql:///db?host=h&password=***"),
        (f"postgresql://h/db?user={SECRET}&port=1", "postgresql://h/db?user=***&port=1"),
        (f"postgresql://h/db?sslpassword={SECRET}", "postgresql://h/db?sslpassword=***"),
        (f"http://h/x?access_token={SECRET}", "http://h/x?access_token=***"),
    ],
)
def test_the_place_is_shown_and_no_secret(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert redacted(f"{url!r} and {url} are silent") == f"{shown!r} and {shown} are silent"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////home/me@work/mlflow.db",
        "sqlite:///mlflow.db?timeout=20",
        "models:/name@alias",
        "http://host:5000/#/experiments/0",
        "teacher.epochs=3 is not allowed; allowed: a key=value of https://host/page",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_a_url_without_its_user_can_be_asked() -> None:
    assert without_user(f"http://me:a/{SECRET}@host:5000/x") == "http://host:5000/x"


def test_no_error_and_no_message_holds_a_secret() -> None:
    url = f"http://me:{SECRET}@host"
    assert str(UserError(f"address={url!r} is gone")) == "address='http://***@host' is gone"
    with collected_messages() as said:
        say(f"proxy {url}")
    assert said == ["proxy http://***@host"]


@pytest.mark.parametrize(
    "refuse",
    [
        lambda url: find_weights(f"{url}/weights.pt"),
        lambda url: open_storage(url),
        lambda url: ray._check_answer(f"{url}:port"),
        lambda url: database_url("MLFLOW_TRACKING_URI", f"{url}:port/x", "another"),
        lambda url: load_project(f"{url}.yaml"),
    ],
    ids=["teacher", "study", "ray", "store", "project"],
)
def test_no_refusal_of_a_url_holds_its_secret(refuse: Callable[[str], object]) -> None:
    assert "redis://***@host" in refusal_of(refuse, f"redis://me:a/{SECRET}@host")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        (f"http://me:{SECRET}@host:5000/", "see it at http://***@host:5000/#/experiments/3/runs/r"),
        (f"postgresql://me:{SECRET}@host/x", 'backend-store-uri "$MLFLOW_TRACKING_URI"\nthen at'),
        ("sqlite:////a b.db", "mlflow ui --backend-store-uri 'sqlite:////a b.db'\nthen at"),
    ],
)
def test_where_to_look_is_a_command_without_a_secret(
    uri: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SimpleNamespace(info=SimpleNamespace(experiment_id="3"))
    monkeypatch.setattr(mlflow, "get_run", lambda run_id: run)
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: uri)
    text = commands.where_to_look("r")
    assert said in text
    assert SECRET not in text


def test_mlflow_prints_no_address_of_its_server() -> None:
    quiet_mlflow()
    assert MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.get()


def test_no_log_of_a_library_holds_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    quiet_mlflow()
    logging.getLogger("urllib3").warning("no answer of %s", f"http://me:{SECRET}@host")
    assert [record.getMessage() for record in caplog.records] == ["no answer of http://***@host"]
