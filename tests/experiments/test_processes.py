"""Commands whose models are trained by two processes of this machine."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import cast

import numpy as np
import pytest
from helpers.place import Place

from kdplatform import cli
from kdplatform.data import Dataset
from kdplatform.errors import UserError
from kdplatform.experiments import steps
from kdplatform.experiments.executors.local import LocalExecutor
from kdplatform.experiments.parallel import team
from kdplatform.experiments.parallel.orders import agree_on
from kdplatform.torchrun import processes_of
from kdplatform.training import Ranks


@pytest.fixture(autouse=True)
def _no_team_is_left() -> Iterator[None]:
    yield
    team.dismiss_team()


def test_two_processes_make_the_models_of_one(
    new_place: Place, spared: None, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = {"teacher__precision": "fp32", "student__precision": "fp32"}
    assert new_place.run("distill", processes=2, **exact) == 0
    capsys.readouterr()
    # What several made is reused by one.
    assert new_place.run("distill", **exact) == 0
    assert capsys.readouterr().err.count("reused run") == 3
    assert new_place.run("distill", reuse=False, **exact) == 0
    for role in ("teacher", "student", "distilled"):
        two, one = new_place.runs(role)
        assert two.data.tags["kd.processes"] == "2"
        assert "kd.processes" not in one.data.tags
        found, expected = new_place.predictions(two), new_place.predictions(one)
        assert found["id"].tolist() == expected["id"].tolist()
        logits = np.stack(list(found["logits"])), np.stack(list(expected["logits"]))
        np.testing.assert_allclose(*logits, atol=1e-3)


def test_a_killed_rank_ends_the_run_and_one_process_goes_on(
    new_place: Place,
    spared: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(steps, "_CHECKPOINT_SECONDS", 0.0)
    killed: list[float] = []

    def kill() -> None:
        while not list((new_place.home / "checkpoints").glob("*.pt")):
            time.sleep(0.01)
        assert team._current is not None
        killed.append(time.monotonic())
        team._current.children[1].send_signal(signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    assert new_place.run("student", processes=2, student__epochs=300) == 1
    assert time.monotonic() - killed[0] < 30
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "kdplatform: rank 1 of 2 ended by SIGKILL; the same command goes on from the last epoch, "
        "with any number of processes"
    )
    [run] = new_place.runs("student")
    assert run.info.status == "FAILED"
    assert new_place.run("student", student__epochs=300) == 0
    assert "NDS lenet5 seed 0: went on after epoch" in capsys.readouterr().err
    [run] = new_place.runs("student", "FINISHED")
    assert int(run.data.tags["kd.resumed_after_epoch"]) >= 1


def test_a_process_that_waits_for_a_dead_rank_is_ended(new_place: Place) -> None:
    """So it is on a GPU, whose collectives wait where gloo's raise an error."""
    (new_place.folder / "waiting.py").write_text(
        "import time\n\nclass Wait:\n    def follow(self, ranks, dataset, device):\n"
        "        time.sleep(600)\n"
    )
    code = """
from kdplatform.experiments.parallel import team
from kdplatform.experiments.workspace import open_workspace
from kdplatform.settings.project import load_project
from pathlib import Path
from waiting import Wait

if __name__ == "__main__":
    team._GRACE_SECONDS = 1.0
    workspace = open_workspace(load_project(project), Path("home"), "cpu", True, 2)
    own = team.current_team(workspace)
    with own.following(workspace, Wait()):
        own.children[1].kill()
        time.sleep(600)
"""
    process = new_place.spawn(code)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "kdplatform: rank 1 of 2 ended by SIGKILL" in said.splitlines()[-1]


def test_an_error_on_another_rank_is_told(
    new_place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(team, "version", lambda: "kdplatform 0.0.1")
    assert new_place.run("student", processes=2) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "rank 1 runs kdplatform" in said
    assert said.endswith("rank 0 runs kdplatform 0.0.1; allowed: the same versions on all machines")


def test_torchrun_starts_the_processes_and_they_end_with_rank_0(new_place: Place) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    words += ["-m", "kdplatform", "student", "--project", new_place.project]
    ended = [
        subprocess.run(
            words,
            cwd=new_place.folder,
            env=os.environ | new_place.variables() | {"GLOO_SOCKET_IFNAME": "lo"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        for _ in range(2)
    ]
    assert [process.returncode for process in ended] == [0, 0], ended[0].stderr
    [run] = new_place.runs("student")
    assert run.data.tags["kd.processes"] == "2"
    assert "reused run" in ended[1].stderr
    # Rank 1 is silent.
    assert ended[0].stdout.count("see it with") == 1


# ---- refused


@pytest.mark.parametrize(
    ("processes", "said"),
    [
        ("0", "processes='0' is not allowed; allowed: integer >= 1"),
        ("auto", "processes='auto' is not allowed; allowed: integer >= 1"),
        ("4096", "processes=4096 are more than the "),
    ],
)
def test_processes_that_cannot_be_are_refused(
    new_place: Place, processes: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_place.run("student", processes=processes) == 2
    assert said in capsys.readouterr().err
    assert new_place.runs() == []


def test_more_processes_than_a_batch_has_examples_are_refused_before_any_training(
    new_place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert new_place.run("distill", processes=2, student__batch_size=1) == 2
    assert "processes=2 are more than the 1 examples of a batch" in capsys.readouterr().err
    assert new_place.runs() == []


def test_torchrun_is_refused_where_a_command_starts_its_own_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}
    given |= {"MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "none"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert processes_of("distill", 1) == processes_of("distill", 2) == 2
    with pytest.raises(UserError, match="processes=3 is not what torchrun started: 2"):
        processes_of("distill", 3)
    with pytest.raises(UserError, match="sweep is not for torchrun"):
        processes_of("sweep", 1)
    assert cli.main(["sweep", "--project", "digits"]) == 2


def test_other_data_on_another_rank_are_refused() -> None:
    class Others(Ranks):
        def collected(self, value: object) -> list[str]:  # type: ignore[override]
            return [str(value), "b" * 64]

    class Data:
        digest = "a" * 64

    with pytest.raises(UserError, match="rank 1 has other data than rank 0"):
        agree_on(Others(0, 2), cast("Dataset", Data()))


def test_a_sweeps_workers_share_the_cores_among_their_processes() -> None:
    executor = LocalExecutor(lambda assignment: None, "cpu", None, 99, processes=2)  # type: ignore[arg-type,return-value]
    alone = LocalExecutor(lambda assignment: None, "cpu", None, 99)  # type: ignore[arg-type,return-value]
    assert executor.slots == max(1, alone.slots // 2)
