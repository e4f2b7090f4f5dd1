"""A command killed without warning goes on where it was; two at once do not train twice."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from helpers.inline import run_inline

from kdplatform import files
from kdplatform.experiments import commands
from kdplatform.progress import say

pytestmark = pytest.mark.usefixtures("spared")

EPOCHS = "5"
# Runs the command with something done after the epochs it logs.
WITH_EACH_EPOCH = """
from kdplatform.cli import main
from kdplatform.experiments import logged_models, records, steps
steps._CHECKPOINT_SECONDS = 0.0
log_epoch = records.EpochLog.__call__
def logged_and_then(log, record):
    log_epoch(log, record)
    {what}
records.EpochLog.__call__ = logged_and_then
logged_models.log_model = records.log_figures = lambda *arguments: None
sys.exit(main(["student", "--project", project, "--student.epochs", "{epochs}"]))
"""


def test_a_killed_command_goes_on_from_its_last_epoch_to_the_same_numbers(
    new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    kill = "record.epoch == 3 and os.kill(os.getpid(), signal.SIGKILL)"
    process = new_place.spawn(WITH_EACH_EPOCH.format(what=kill, epochs=EPOCHS))
    assert process.wait() == -signal.SIGKILL
    process.communicate()
    [killed] = new_place.runs()
    assert killed.info.status == "RUNNING"

    assert new_place.run("student", student__epochs=EPOCHS) == 0
    assert "went on after epoch 3" in capsys.readouterr().err
    killed, resumed = new_place.runs()
    assert (killed.info.status, resumed.info.status) == ("KILLED", "FINISHED")
    assert [run.info.status for run in new_place.commands()] == ["KILLED", "FINISHED"]
    assert resumed.data.tags["kd.resumed_after_epoch"] == "3"
    points = new_place.client.get_metric_history(resumed.info.run_id, "epoch/train_loss")
    assert [point.step for point in points] == [1, 2, 3, 4, 5]

    assert new_place.run("student", student__epochs=EPOCHS, reuse="false") == 0
    uninterrupted = new_place.runs()[-1]
    assert "kd.resumed_after_epoch" not in uninterrupted.data.tags
    for split in ("test", "val"):
        after, whole = (
            np.stack(new_place.predictions(run, split)["logits"].to_list())
            for run in (resumed, uninterrupted)
        )
        np.testing.assert_array_equal(after, whole)


def test_the_second_of_two_equal_commands_waits_and_takes_what_the_first_trained(
    new_place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    wait = f"open({str(begun)!r}, 'w').close()\n    while not os.path.exists({str(go)!r}): " + (
        "time.sleep(0.02)"
    )
    first = new_place.spawn(WITH_EACH_EPOCH.format(what=wait, epochs=EPOCHS))
    while not begun.exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.05)

    said: list[str] = []

    def noted(message: str) -> None:
        said.append(message)
        if "waiting" in message:
            # A moment later, so that the second command is seen to wait.
            threading.Timer(0.3, go.touch).start()
        say(message)

    monkeypatch.setattr(files, "say", noted)
    assert new_place.run("student", student__epochs=EPOCHS) == 0
    assert first.wait() == 0
    first.communicate()
    assert [message for message in said if "another process is at it; waiting" in message]
    [run] = new_place.runs()
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == new_place.commands()[0].info.run_id


def test_a_killed_sweep_does_only_what_is_missing_when_started_again(
    new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--temperatures", "1,2", "--workers", "1"]
    code = f'from kdplatform.cli import main\nmain(["sweep", "--project", project, *{words}])'
    process = new_place.spawn(code)
    # Two steps of four: at least one that something else depends on is there.
    while not (line := process.stderr.readline()).startswith("[2/4]"):
        assert line, "the sweep ended by itself"
    process.kill()
    process.communicate()
    before = {run.data.tags["kd.key"]: run.info.run_id for run in new_place.runs(None, "FINISHED")}
    assert 2 <= len(before) <= 3

    # A worker's store would stay this process's.
    monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
    again = run_inline(new_place, monkeypatch, commands, "sweep", temperatures="1,2")
    assert again.code == 0
    assert len(again.handed) == 4 - len(before)
    assert f"4 models, {len(before)} of them reused" in again.err
    finished = new_place.runs(None, "FINISHED")
    keys = [run.data.tags["kd.key"] for run in finished]
    assert len(keys) == len(set(keys)) == 4
    after = dict(zip(keys, (run.info.run_id for run in finished), strict=True))
    assert before.items() <= after.items()
    assert not new_place.runs(None, "RUNNING")
    assert [run.info.status for run in new_place.commands()] == ["KILLED", "FINISHED"]
