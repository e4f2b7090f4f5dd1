"""What goes wrong is one line and an exit code, and leaves nothing a later run would trust."""

import json
import shutil
from collections import namedtuple
from typing import Any

import pytest
from helpers.refusals import last_line

from kdplatform.experiments import records

pytestmark = pytest.mark.usefixtures("spared")


def assert_nothing_to_trust(place: Any) -> None:
    assert place.runs(status="FINISHED") == []
    assert place.runs(status="RUNNING") == []
    assert {run.info.status for run in place.commands()} == {"FAILED"}
    hidden = [path for path in place.home.rglob(".*") if path.is_file()]
    assert hidden == []


def test_a_loss_that_is_no_number_fails_the_run_with_its_parameters(
    new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = new_place.run("student", student__learning_rate="1e18", student__optimizer="sgd")
    line = last_line(capsys)
    assert code == 2
    assert line.startswith("training loss of the student became ")
    for words in ("at step ", "learning_rate=1e+18", "optimizer='sgd'", "try a lower"):
        assert words in line
    [run] = new_place.runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["kd.error"] == line
    assert_nothing_to_trust(new_place)


def test_an_attribute_the_dataset_does_not_have_is_named_before_anything_is_trained(
    new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code = new_place.run("student", attributes="colour")
    assert code == 2
    assert last_line(capsys) == (
        "attributes='colour' does not exist; did you mean 'color'? known: color, texture"
    )
    assert new_place.runs() == []
    assert new_place.commands() == []


def test_no_room_for_the_images_is_named_by_the_folder(
    new_place: Any, capsys: pytest.CaptureFixture[str], largest_file: Any
) -> None:
    # More than the database of runs has, less than these images.
    with largest_file(2_000_000):
        code = new_place.run("student", dataset__image_size=64)
    assert code == 1
    line = last_line(capsys)
    assert line.startswith(f"data_folder='{new_place.home}/datasets' cannot hold the images of tri")
    assert "(File too large); allowed: a folder this user may write, with free space" in line
    assert list(new_place.home.rglob("*.npz*")) == []
    assert_nothing_to_trust(new_place)


def test_a_full_disk_while_training_is_the_machines_fault_and_room_mends_it(
    new_place: Any, capsys: pytest.CaptureFixture[str], largest_file: Any
) -> None:
    # More than the database of runs has, less than a resnet20 with its optimiser's state.
    words = {"teacher__model": "resnet20", "teacher__epochs": "1"}
    with largest_file(2_500_000):
        code = new_place.run("teacher", **words)
    assert code == 1
    line = last_line(capsys)
    assert line.startswith(f"checkpoint '{new_place.home}/checkpoints/")
    assert "cannot be written (File too large); allowed: " in line
    assert_nothing_to_trust(new_place)
    assert new_place.run("teacher", **words) == 0
    assert [run.info.status for run in new_place.runs()] == ["FAILED", "FINISHED"]


def test_a_database_without_room_is_the_machines_fault(
    new_place: Any, capsys: pytest.CaptureFixture[str], largest_file: Any
) -> None:
    size = (new_place.folder / "mlflow.db").stat().st_size
    with largest_file(size):
        code = new_place.run("student")
    assert code == 1
    line = last_line(capsys)
    assert line.startswith(f"MLFLOW_TRACKING_URI='{new_place.uri}' does not answer as it should (")
    assert "allowed: a running MLflow server, or a database with room left" in line
    assert new_place.runs(status="FINISHED") == []
    assert new_place.run("student") == 0
    assert len(new_place.runs("student", status="FINISHED")) == 1
    assert new_place.runs(status="RUNNING") == []


def test_no_room_for_the_model_is_the_machines_fault(
    new_place: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.undo()
    new_place.enter(monkeypatch)
    monkeypatch.setattr(records, "log_figures", lambda figures: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    code = new_place.run("student")
    assert code == 1
    line = last_line(capsys)
    assert line.startswith(f"'{new_place.home}/scratch' has 0.0 MiB left; allowed: a data_folder")
    assert_nothing_to_trust(new_place)


def test_an_unfinished_run_is_never_reused(new_place: Any) -> None:
    assert new_place.run("student") == 0
    [run] = new_place.runs()
    new_place.client.set_terminated(run.info.run_id, "FAILED")
    assert new_place.run("student") == 0
    assert [run.info.status for run in new_place.runs()] == ["FAILED", "FINISHED"]


def test_a_run_without_digests_is_never_reused(new_place: Any) -> None:
    assert new_place.run("student") == 0
    [run] = new_place.runs()
    assert json.loads(run.data.tags["kd.artifact_digests"])
    new_place.client.delete_tag(run.info.run_id, "kd.artifact_digests")
    assert new_place.run("student") == 0
    assert len(new_place.runs()) == 2
