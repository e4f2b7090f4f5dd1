"""The storage of a study: opens Optuna's storages by URL, and the study in them."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback as RetryCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from kdplatform.errors import MachineError, UserError, unknown_name
from kdplatform.redaction import redacted
from kdplatform.stores import JOURNAL, SQLITE_PATIENCE_SECONDS, database_url, reason_of

DEFAULT = "sqlite:///optuna.db"
_ALLOWED = "auto | sqlite:///file.db | postgresql://host/database | journal:///file.log"
# A trial is tried again if its driver gave no sign of life for this long.
HEARTBEAT_SECONDS = 15
GRACE_SECONDS = 90
_MOST_RETRIES = 3
_CONNECT_SECONDS = 10
_IDENTITY = "kd.identity"

Direction = Literal["maximize", "minimize"]


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keeps Optuna's log and its notes on experimental features out of the output."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            yield
        finally:
            optuna.logging.set_verbosity(verbosity)


@contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Turns a failure of the study's storage into one line.

    Raises:
        MachineError: the storage refused, failed or stopped answering.
    """
    try:
        yield
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        raise MachineError(
            f"storage={redacted(url)!r} does not answer as it should ({reason_of(error)}); allowed:"
            f" {_ALLOWED}"
        ) from error


def storage_url(storage: str) -> str:
    """Returns the URL of a storage that the command line names."""
    return DEFAULT if storage == "auto" else storage


def open_storage(url: str) -> BaseStorage:
    """Opens the storage, with heartbeats if it supports them.

    Raises:
        UserError: the URL is invalid, or its database driver is not installed.
        MachineError: the storage does not answer or cannot be created.
    """
    url = storage_url(url)
    if url.startswith(JOURNAL):
        return _journal(url)
    # SQLAlchemy would choose another driver for plain postgresql://.
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    name = database_url("storage", url, _ALLOWED, ("sqlite", "postgresql")).get_backend_name()
    arguments: dict[str, Any] = {"connect_timeout": _CONNECT_SECONDS}
    if name == "sqlite":
        arguments = {"timeout": SQLITE_PATIENCE_SECONDS, "check_same_thread": False}
    with storage_errors(url):
        storage = RDBStorage(
            url,
            engine_kwargs={"connect_args": arguments, "pool_pre_ping": name != "sqlite"},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=retry,
        )
        if name == "sqlite":
            _prepare_sqlite(storage)
        return storage


def _prepare_sqlite(storage: RDBStorage) -> None:
    """Makes SQLite serialise transactions, and wait for the disk less often.

    Optuna locks the rows that it reads and then changes. SQLite has no row locks, so two threads
    could take the same waiting trial. An immediate transaction locks the whole file. With a
    write-ahead log, a trial's dozen small commits wait for the disk once.
    """

    def connect(connection: Any, record: object) -> None:
        connection.isolation_level = None  # else the driver begins its own
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", connect)
    event.listen(storage.engine, "begin", begin)
    storage.engine.dispose()


def heartbeats(storage: BaseStorage) -> bool:
    """Returns whether a storage detects dead drivers. A journal file does not."""
    return isinstance(storage, RDBStorage)


def retry(study: optuna.Study, trial: FrozenTrial) -> None:
    """Returns a lost or interrupted trial to the queue, a few times at most."""
    RetryCallback(max_retry=_MOST_RETRIES)(study, trial)


def _journal(url: str) -> BaseStorage:
    path = Path(url.removeprefix(JOURNAL))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Optuna would write to a file of another kind before it notices.
        if path.exists():
            with path.open("rb") as file:
                if (first := file.readline()) and b'"op_code"' not in first:
                    raise ValueError
        storage = JournalStorage(JournalFileBackend(str(path)))
        storage.get_all_studies()
        return storage
    except ValueError:
        raise UserError(
            f"storage={url!r} is a file that Optuna did not write, or that changed; allowed: "
            "an Optuna journal, or the path of a new file"
        ) from None
    except OSError as error:
        raise MachineError(
            f"storage={url!r} cannot be written ({error.strerror}); allowed: {_ALLOWED}"
        ) from None


def open_study(
    name: str,
    storage: BaseStorage,
    sampler: Callable[[int | None], BaseSampler],
    seed: int,
    directions: list[Direction],
    identity: Mapping[str, str],
    before: Mapping[str, str],
) -> optuna.Study:
    """Creates the study, or continues the one of this name.

    Args:
        sampler: builds the sampler from a seed.
        seed: of the driver that creates the study. A driver that continues it draws from fresh
            entropy, because the same seed would draw the same points again.
        identity: the settings that decide the value of a point. With another identity it is another
            study.
        before: by field, the value of a study that is older than the field.

    Raises:
        UserError: the study of this name has other directions or another identity.
    """
    try:
        study = optuna.create_study(
            storage=storage, sampler=sampler(seed), study_name=name, directions=directions
        )
        study.set_user_attr(_IDENTITY, dict(identity))
        return study
    except DuplicatedStudyError:
        study = optuna.load_study(study_name=name, storage=storage, sampler=sampler(None))
    found = [direction.name.lower() for direction in study.directions]
    if found != directions:
        raise _other_study(name, f"directions {', '.join(found)}", ", ".join(directions))
    known: dict[str, str] = {**before, **study.user_attrs.get(_IDENTITY, {})}
    # A field that only one of them has was added or removed by a version of the program.
    for field in sorted(known.keys() & identity.keys()):
        if known[field] != identity[field]:
            own, now = (f"{field}={value}" for value in (known[field], identity[field]))
            raise _other_study(name, own, now)
    return study


def _other_study(name: str, before: str, now: str) -> UserError:
    return UserError(
        f"study={name!r} exists with {before}, not {now}; allowed: the same as before, or "
        f"another name such as study={name}-2"
    )


def sampler_named(name: str) -> Callable[[int | None], BaseSampler]:
    """Returns a function that builds one of Optuna's samplers from a seed.

    Raises:
        UserError: there is no sampler of this name.
    """
    samplers = optuna.samplers
    builders: dict[str, Callable[[int | None], BaseSampler]] = {
        "tpe": lambda seed: samplers.TPESampler(seed=seed),
        "gp": lambda seed: samplers.GPSampler(seed=seed),
        # There are few trials, so generations must be small to complete.
        "nsgaii": lambda seed: samplers.NSGAIISampler(seed=seed, population_size=10),
        "random": lambda seed: samplers.RandomSampler(seed=seed),
    }
    if name not in builders:
        raise unknown_name("sampler", name, builders)
    return builders[name]
