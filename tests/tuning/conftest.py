"""What the tests of the tuner share."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests are no package; `toy` is also imported by processes of its own.
sys.path.insert(0, str(Path(__file__).parent))

from kdplatform.tuning import search
from kdplatform.tuning.storage import quiet_optuna


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Searches read and log nothing real; Optuna is quiet."""
    monkeypatch.setattr(search, "log_result", lambda *arguments: None)
    with quiet_optuna():
        yield


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/optuna.db"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of its own, ended with the tests; it refuses to run as root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    initdb = shutil.which("initdb") or (str(programs[-1]) if programs else None)
    if initdb is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def run(*words: str) -> str:
        return subprocess.run(
            [*become, *words], check=True, capture_output=True, text=True, cwd="/"
        ).stdout.strip()

    folder = run("mktemp", "-d", "/tmp/kdplatform-postgres-XXXXXX")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run(initdb, "-D", f"{folder}/data", "-A", "trust", "-U", "tuner", "--no-sync")
    control = [str(Path(initdb).with_name("pg_ctl")), "-D", f"{folder}/data", "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    run(*control, "-o", options, "-l", f"{folder}/log", "start")
    try:
        yield f"postgresql://tuner@127.0.0.1:{port}/postgres"
    finally:
        run(*control, "-m", "immediate", "stop")
        run("rm", "-r", folder)
