"""Tracking stores and study storages: the meaning of a URI, and whether it can be opened."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from kdplatform.errors import UserError, one_line
from kdplatform.redaction import redacted

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

# Threads and processes that write to one SQLite file wait for each other.
SQLITE_PATIENCE_SECONDS = 120
# An Optuna journal: a file.
JOURNAL = "journal:///"
# The databases that MLflow supports.
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_DRIVERS = {"postgresql": "pip install 'kdplatform[postgres]', and postgresql+psycopg://..."}


def is_server(uri: str) -> bool:
    """Returns whether a tracking URI is the address of an MLflow server."""
    return uri.startswith(("http://", "https://"))


def database_url(
    parameter: str, uri: str, allowed: str, backends: tuple[str, ...] = DATABASES
) -> URL:
    """Returns the parts of a database's URI.

    Raises:
        UserError: it belongs to none of these backends, is only in memory, or its driver is not
            installed.
    """
    # Imported here: it loads slowly, and most commands name no database.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    refused = UserError(f"{parameter}={uri!r} is not allowed; allowed: {allowed}")
    try:
        url = make_url(uri)
        dialect = url.get_dialect()
    except (ArgumentError, ValueError):  # what is no URL, or no port
        raise refused from None
    if url.get_backend_name() not in backends:
        raise refused
    if url.get_backend_name() == "sqlite":
        if url.host or not url.database or url.database == ":memory:":
            raise refused
        return url
    try:
        dialect.import_dbapi()
    except ImportError:
        name = url.get_backend_name()
        remedy = _DRIVERS.get(name, f"the Python package of SQLAlchemy's driver for {name}")
        raise UserError(
            f"{parameter}={uri!r} needs a driver that is not installed; allowed: {remedy}"
        ) from None
    return url


def sqlite_path(uri: str) -> Path | None:
    """Returns the file that SQLite opens for a URI, or None for another store."""
    if not uri.startswith("sqlite:"):
        return None
    return Path(database_url("URI", uri, "sqlite:///file.db").database or "")


def absolute_uri(uri: str) -> str:
    """Returns a URI that means the same store from any working directory."""
    if uri.startswith(JOURNAL):
        return JOURNAL + str(Path(uri.removeprefix(JOURNAL)).resolve())
    path = sqlite_path(uri)
    if path is None:
        return uri
    url = database_url("URI", uri, "").set(database=str(path.resolve()))
    return url.render_as_string(hide_password=False)


def told_apart(name: str, *origins: str) -> str:
    """Returns the name of a results folder, which differs for other data or another store."""
    digest = hashlib.sha256("\n".join(map(redacted, origins)).encode()).hexdigest()
    return f"{name}-{digest[:8]}"


def patient(uri: str) -> str:
    """Returns the URI with which a writer of an SQLite file waits for the others."""
    if sqlite_path(uri) is None or "?" in uri:
        return uri
    return f"{uri}?timeout={SQLITE_PATIENCE_SECONDS}"


def reason_of(error: BaseException) -> str:
    """Returns the database's own message, or else the first line of an error."""
    import sqlite3

    from sqlalchemy.exc import DBAPIError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            return str(cause)
        if isinstance(cause, DBAPIError) and cause.orig is not None:
            return first_line(cause.orig)
        cause = cause.__cause__ or cause.__context__
    return first_line(error)


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message. MLflow's continue with tracebacks and lists."""
    return one_line((str(error).strip().splitlines() or [type(error).__name__])[0])
