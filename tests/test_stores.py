"""URIs of stores mean the same to the program, to its locks and to the database."""

import sqlite3
from pathlib import Path

import pytest

from kdplatform import stores


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:////data/a%20b.db?timeout=3", "/data/a b.db"),
        ("http://host:5000", None),
        ("mlruns", None),
    ],
)
def test_the_file_of_a_uri(uri: str, path: str | None) -> None:
    assert stores.sqlite_path(uri) == (None if path is None else Path(path))


@pytest.mark.parametrize(
    ("uri", "absolute"),
    [
        ("sqlite:///mlflow.db", "sqlite:///{here}/mlflow.db"),
        ("sqlite:///a%20b.db?timeout=3", "sqlite:///{here}/a b.db?timeout=3"),
        ("sqlite:////data/x.db", "sqlite:////data/x.db"),
        ("journal:///optuna.log", "journal:///{here}/optuna.log"),
        ("http://me:pw@server:5000", "http://me:pw@server:5000"),
    ],
)
def test_a_uri_for_every_working_directory(
    uri: str, absolute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stores.absolute_uri(uri) == absolute.format(here=tmp_path)


def test_a_writer_waits_for_others_unless_the_uri_says_how_long() -> None:
    assert stores.patient("sqlite:///x.db") == "sqlite:///x.db?timeout=120"
    assert stores.patient("sqlite:///x.db?timeout=3") == "sqlite:///x.db?timeout=3"
    assert stores.patient("http://server") == "http://server"


def test_results_of_other_data_or_another_store_lie_apart() -> None:
    places = {
        stores.told_apart("study", digest, store)
        for digest in ("one", "two")
        for store in ("sqlite:////a.db", "sqlite:////b.db")
    }
    assert len(places) == 4
    assert stores.told_apart("study", "http://a:b@host") == stores.told_apart(
        "study", "http://c:d@host"
    )


def test_the_reason_is_what_the_database_said() -> None:
    error = ValueError("(sqlite3.OperationalError) with a trace")
    error.__cause__ = sqlite3.OperationalError("disk I/O error")
    assert stores.reason_of(error) == "disk I/O error"
    assert stores.reason_of(ValueError("first\nsecond")) == "first"
