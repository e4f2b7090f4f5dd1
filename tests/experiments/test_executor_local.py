import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from kdplatform.errors import MachineError
from kdplatform.experiments.executors import Assignment, Outcome
from kdplatform.experiments.executors.local import LocalExecutor
from kdplatform.experiments.graph import student_step
from kdplatform.machine import usable_cores
from kdplatform.settings.project import load_project

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def tasks() -> Iterator[ModuleType]:
    """What workers do; on the path, which their processes inherit."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(HERE)
        yield importlib.import_module("executor_tasks")


def assignment(folder: Path, seed: int) -> Assignment:
    config = load_project("digits")
    return Assignment(
        config=config,
        step=student_step(config, seed, "digest"),
        runs={},
        folder=folder,
        device="auto",
        reuse=True,
        tracking_uri="sqlite:///none.db",
        parent_run_id="none",
    )


def facts(outcome: Outcome) -> dict[str, str]:
    return dict(message.split("=") for message in outcome.messages)


def eventually(condition: Callable[[], object], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(condition())


def alive(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@dataclass(frozen=True)
class Session:
    """Steps run by two workers, two of them deadly to their worker."""

    slots: int
    futures: dict[int, Future[Outcome]]

    def outcome(self, seed: int) -> dict[str, str]:
        return facts(self.futures[seed].result())


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, tasks: ModuleType) -> Session:
    folder = tmp_path_factory.mktemp("session")
    with LocalExecutor(tasks.tell, "cpu", 2, steps=9) as executor:
        seeds = [0, 1, 2, tasks.DEADLY, tasks.DEADLY_ONCE, 3, 4]
        futures = {seed: executor.submit(assignment(folder, seed)) for seed in seeds}
        wait(futures.values())
    return Session(executor.slots, futures)


def test_steps_share_as_many_processes_as_there_are_workers(session):
    assert session.slots == 2
    assert len({session.outcome(seed)["process"] for seed in range(3)}) <= 2


def test_every_worker_has_its_share_of_the_cores(session):
    share = str(max(1, usable_cores() // 2))
    outcome = session.outcome(0)
    assert (outcome["threads"], outcome["variable"], outcome["device"]) == (share, share, "cpu")


def test_a_step_whose_worker_died_is_tried_again(session, tasks):
    assert session.outcome(tasks.DEADLY_ONCE)


def test_a_step_that_kills_its_worker_twice_fails(session, tasks):
    with pytest.raises(MachineError, match="worker process died 2 times"):
        session.outcome(tasks.DEADLY)


def test_steps_after_a_deadly_one_are_run(session):
    assert session.outcome(3)
    assert session.outcome(4)


def test_the_sweeps_own_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with LocalExecutor(print, "cpu", 1, steps=1):
        assert os.environ["MKL_NUM_THREADS"] == str(usable_cores())
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("workers", "steps", "slots"), [(3, 9, 3), (3, 2, 2), (None, 1, 1), (None, 999, usable_cores())]
)
def test_no_more_workers_than_steps_and_one_per_core_unless_said(workers, steps, slots):
    assert LocalExecutor(print, "cpu", workers, steps).slots == slots


def test_an_interrupted_sweep_lets_its_workers_close_their_runs(tmp_path, tasks):
    def start_and_interrupt() -> None:
        with LocalExecutor(tasks.work_long, "cpu", 1, steps=2) as executor:
            for seed in range(2):
                executor.submit(assignment(tmp_path, seed))
            assert eventually(lambda: list(tmp_path.glob("*.working")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start_and_interrupt()
    (interrupted,) = tmp_path.glob("*.interrupted")
    assert not alive(int(interrupted.stem))


def test_a_worker_ends_when_the_sweep_was_killed(tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(HERE)!r})
import executor_tasks, test_executor_local as test
from kdplatform.experiments.executors.local import LocalExecutor
from pathlib import Path
if __name__ == "__main__":
    executor = LocalExecutor(executor_tasks.work_long, "cpu", 1, steps=1).__enter__()
    executor.submit(test.assignment(Path({str(tmp_path)!r}), 0)).result()
"""
    script = tmp_path / "sweep.py"
    script.write_text(code)
    sweep = subprocess.Popen([sys.executable, str(script)])
    assert eventually(lambda: list(tmp_path.glob("*.working")))
    (working,) = tmp_path.glob("*.working")
    assert alive(int(working.stem))
    sweep.kill()
    sweep.wait()
    assert eventually(lambda: not alive(int(working.stem)), seconds=10)
