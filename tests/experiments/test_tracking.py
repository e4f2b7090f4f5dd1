"""The tracking store: what is found there, what is closed, what its failures are called."""

import socket
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from kdplatform.errors import MachineError
from kdplatform.experiments import tracking
from kdplatform.settings.project import load_project

KEY = "0123456789abcdef"


def model_run(place: Any, host: str = "", key: str = KEY) -> tuple[str, str]:
    """Leaves a command's run and a model's run RUNNING, as a killed process does."""
    parent = place.client.create_run("0").info.run_id
    tags = {
        "kd.key": key,
        "kd.role": "student",
        "mlflow.parentRunId": parent,
        "kd.process": f"{host or socket.gethostname()}:1",
    }
    return parent, place.client.create_run("0", tags=tags).info.run_id


def statuses(place: Any, *run_ids: str) -> list[str]:
    return [place.client.get_run(run_id).info.status for run_id in run_ids]


def test_what_a_dead_process_left_running_is_closed_with_its_command(new_place: Any) -> None:
    parent, run = model_run(new_place)
    tracking.close_abandoned(tracking.runs_with_key(KEY))
    assert statuses(new_place, parent, run) == ["KILLED", "KILLED"]


def test_a_command_that_was_closed_otherwise_stays_as_it_is(new_place: Any) -> None:
    parent, run = model_run(new_place)
    new_place.client.set_terminated(parent, "FAILED")
    tracking.close_abandoned(tracking.runs_with_key(KEY))
    assert statuses(new_place, parent, run) == ["FAILED", "KILLED"]


def test_runs_of_other_machines_and_keys_are_let_alone(new_place: Any) -> None:
    elsewhere = model_run(new_place, host="elsewhere")
    other = model_run(new_place, key="another")
    tracking.close_abandoned(tracking.runs_with_key(KEY))
    assert statuses(new_place, *elsewhere, *other) == ["RUNNING"] * 4


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_only_finished_runs_are_found(status: str, new_place: Any) -> None:
    _, run = model_run(new_place)
    if status != "RUNNING":
        new_place.client.set_terminated(run, status)
    assert tracking.find_finished(tracking.runs_with_key(KEY)) is None


def test_parameters_logged_already_keep_their_spelling(
    new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = new_place.client.create_run("0").info.run_id  # as `mlflow run` does
    new_place.client.log_param(made, "student.epochs", "007")
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with tracking.command_run("distill", load_project("digits")) as run_id:
        pass
    run = new_place.client.get_run(run_id)
    assert run_id == made
    assert run.data.tags["kd.project"] == "digits"
    assert run.data.params["student.epochs"] == "007"
    assert run.data.params["dataset.name"] == "digits"


@pytest.mark.parametrize("error", [MachineError("no room"), OSError(28, "No space left")])
def test_a_run_that_fails_is_tagged_with_why(error: Exception, new_place: Any) -> None:
    def fail() -> None:
        with (
            tracking.command_run("distill", load_project("digits")) as parent,
            tracking.model_run("a model", parent, {"kd.key": KEY}),
        ):
            raise error

    with pytest.raises(type(error)):
        fail()
    [run] = new_place.client.search_runs(["0"], filter_string="tags.`kd.key` != ''")
    assert run.info.status == "FAILED"
    assert run.data.tags["kd.error"] == str(error)


def test_what_the_store_refuses_is_one_line(new_place: Any) -> None:
    with pytest.raises(MachineError) as caught, tracking.store_errors():
        raise MlflowException("out of order\nwith details\nof no use")
    message = str(caught.value)
    assert message.startswith(f"MLFLOW_TRACKING_URI='{new_place.uri}' does not answer as it should")
    assert "(out of order)" in message
    assert "details" not in message


def test_two_processes_may_make_the_store_at_once(making_of_the_store: Any) -> None:
    place, endings = making_of_the_store
    assert [ending.code for ending in endings] == [0, 0], endings
    assert len(place.client.search_experiments()) == 1
