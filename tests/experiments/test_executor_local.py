import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kdplatform.config import load_project
from kdplatform.errors import MachineError, UserError
from kdplatform.experiments.executors import Assignment, Outcome, open_executor
from kdplatform.experiments.executors.local import LocalExecutor, usable_cores
from kdplatform.experiments.identity import student_step

HERE = Path(__file__).resolve().parent


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What workers do; on the path, which their processes inherit."""
    monkeypatch.syspath_prepend(HERE)
    return importlib.import_module("executor_tasks")


def assignment(folder: Path, seed: int) -> Assignment:
    config = load_project("digits")
    return Assignment(
        config=config,
        step=student_step(config, seed, "digest"),
        references={},
        folder=folder,
        device="auto",
        reuse=True,
        tracking_uri="sqlite:///none.db",
        experiment_id="0",
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


def test_every_worker_is_a_process_that_is_kept_with_its_share_of_the_cores(tmp_path, tasks):
    with LocalExecutor("cpu", 2, units=9, task=tasks.tell) as executor:
        futures = [executor.submit(assignment(tmp_path, seed)) for seed in range(6)]
        told = [facts(future.result()) for future in futures]
    share = str(max(1, usable_cores() // 2))
    assert executor.slots == 2
    assert len({fact["process"] for fact in told}) == 2
    assert {(fact["threads"], fact["variable"], fact["device"]) for fact in told} == {
        (share, share, "cpu")
    }


def test_the_sweeps_own_environment_is_left_as_it_was(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with LocalExecutor("cpu", 1, units=1):
        assert os.environ["MKL_NUM_THREADS"] == str(usable_cores())
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("workers", "units", "slots"), [(3, 9, 3), (3, 2, 2), (None, 1, 1), (None, 999, usable_cores())]
)
def test_no_more_workers_than_units_and_one_per_core_unless_said(workers, units, slots):
    assert LocalExecutor("cpu", workers, units).slots == slots


def test_a_dead_worker_is_replaced_and_its_unit_tried_again(tmp_path, tasks):
    task = tasks.die_the_first_time
    with LocalExecutor("cpu", 1, units=2, task=task) as executor:
        futures = [executor.submit(assignment(tmp_path, seed)) for seed in range(2)]
        outcomes = [future.result() for future in futures]
    assert all(outcome.run_id for outcome in outcomes)
    assert list(tmp_path.iterdir())


def test_a_unit_that_kills_its_worker_twice_fails_alone(tmp_path, tasks):
    with LocalExecutor("cpu", 1, units=2, task=tasks.die_if_first) as executor:
        deadly, harmless = (executor.submit(assignment(tmp_path, seed)) for seed in range(2))
        with pytest.raises(MachineError, match="worker process died 2 times"):
            deadly.result()
        assert harmless.result().run_id


def test_an_interrupted_sweep_lets_its_workers_close_their_runs(tmp_path, tasks):
    def start_and_interrupt() -> None:
        with LocalExecutor("cpu", 1, units=2, task=tasks.work_long) as executor:
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
    executor = LocalExecutor("cpu", 1, units=1, task=executor_tasks.work_long).__enter__()
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


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_refused(workers):
    with pytest.raises(UserError, match=f"workers={workers} is not allowed; allowed: auto"):
        LocalExecutor("cpu", workers, units=1)


def test_an_unknown_executor_is_refused_with_the_nearest():
    with pytest.raises(UserError, match="did you mean 'local'"):
        open_executor("locale", device="cpu", workers=None, address="auto", units=1)
