"""The tracking store: what is found there, what is closed, what its failures are called."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.refusals import last_line
from mlflow.exceptions import MlflowException

from kdplatform.errors import MachineError
from kdplatform.experiments import run_search, tracking
from kdplatform.experiments.store_faults import store_errors
from kdplatform.experiments.trained import former_needs
from kdplatform.processes import is_dead_here, this_process
from kdplatform.settings.project import load_project

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def dead() -> str:
    """The name of a process of this machine that has ended."""
    code = "from kdplatform.processes import this_process as name; print(name())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def model_run(place: Any, process: str, key: str = KEY) -> tuple[str, str]:
    """Leaves a command's run and a model's run RUNNING, as a killed process does."""
    tags = {"kd.command": "student", "kd.process": process}
    parent = place.client.create_run("0", tags=tags).info.run_id
    tags = {
        "kd.key": key,
        "kd.role": "student",
        "mlflow.parentRunId": parent,
        "kd.process": process,
    }
    return parent, place.client.create_run("0", tags=tags).info.run_id


def statuses(place: Any, *run_ids: str) -> list[str]:
    return [place.client.get_run(run_id).info.status for run_id in run_ids]


def test_what_a_dead_process_left_running_is_closed_at_the_next_start(
    new_place: Any, dead: str
) -> None:
    runs = model_run(new_place, dead)
    tracking.begin_command()
    assert statuses(new_place, *runs) == ["KILLED", "KILLED"]


def test_a_run_that_was_closed_otherwise_stays_as_it_is(new_place: Any, dead: str) -> None:
    parent, run = model_run(new_place, dead)
    new_place.client.set_terminated(parent, "FAILED")
    tracking.begin_command()
    assert statuses(new_place, parent, run) == ["FAILED", "KILLED"]


def test_a_commands_run_says_whose_it_is_from_its_first_moment(
    new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tracking._source_tags
    nameless: list[Any] = []

    def source_tags() -> dict[str, str]:
        found = new_place.commands()
        nameless.extend(run for run in found if "kd.process" not in run.data.tags)
        return made()

    monkeypatch.setattr(tracking, "_source_tags", source_tags)
    with tracking.command_run("student", load_project("digits")):
        pass
    assert nameless == []


def test_a_run_that_is_interrupted_as_it_begins_is_closed(
    new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(run_name: str, tags: dict[str, str], experiment_id: str) -> None:
        new_place.client.create_run(experiment_id, tags=tags)
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.mlflow, "start_run", interrupted)
    with pytest.raises(KeyboardInterrupt), tracking.command_run("student", load_project("digits")):
        pass
    assert [run.info.status for run in new_place.commands()] == ["KILLED"]


def test_runs_of_other_machines_and_of_living_processes_are_let_alone(
    new_place: Any, dead: str
) -> None:
    elsewhere = model_run(new_place, dead.replace(socket.gethostname(), "elsewhere"))
    alive = model_run(new_place, this_process())
    tracking.begin_command()
    assert statuses(new_place, *elsewhere, *alive) == ["RUNNING"] * 4
    looked_at = tracking.runs_dead_elsewhere(older_than_seconds=-1)
    assert sorted(line.split()[1] for line in looked_at) == sorted(elsewhere)
    assert all(line.endswith(" on elsewhere") for line in looked_at)


def test_another_process_of_the_same_id_is_another_process() -> None:
    host, process, birth = this_process().split(":")
    assert not is_dead_here(this_process())
    assert is_dead_here(f"{host}:{process}:{birth}0")


@pytest.mark.parametrize("status", ["RUNNING", "FAILED", "KILLED"])
def test_only_finished_runs_are_found(status: str, new_place: Any) -> None:
    _, run = model_run(new_place, this_process())
    if status != "RUNNING":
        new_place.client.set_terminated(run, status)
    assert tracking.find_finished(run_search.runs_with_key(KEY)) is None


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


@pytest.mark.parametrize(
    ("status", "tags", "said"),
    [
        ("FINISHED", {}, "(FINISHED)"),
        ("RUNNING", {"kd.command": "distill"}, "(a run of this platform)"),
        ("RUNNING", {"kd.role": "teacher"}, "(a run of this platform)"),
        (None, {}, "not found"),
    ],
)
def test_a_run_that_was_not_started_for_this_command_is_refused(
    status: str | None,
    tags: dict[str, str],
    said: str,
    new_place: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = "0" * 32
    if status is not None:
        given = new_place.client.create_run("0", tags=tags).info.run_id
        new_place.client.update_run(given, status)
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    for command in ("student", "report", "tune"):
        assert new_place.run(command) == 2
        line = last_line(capsys)
        assert line.startswith(f"MLFLOW_RUN_ID='{given}' is not a run that was just started")
        assert said in line
        assert line.endswith("; allowed: unset MLFLOW_RUN_ID")
    assert new_place.runs("student") == []
    assert status is None or statuses(new_place, given) == [status]


def test_a_deleted_experiment_is_named_with_what_brings_it_back(
    new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    number = new_place.client.create_experiment("small")
    new_place.client.delete_experiment(number)
    assert new_place.run("student") == 2
    line = last_line(capsys)
    assert line.startswith(f"experiment {number} of MLFLOW_TRACKING_URI='sqlite:///")
    assert f"is deleted; allowed: mlflow experiments restore --experiment-id {number}, or " in line


@pytest.mark.parametrize("given", [None, "NAME", "ID"])
def test_runs_go_to_the_experiment_of_their_project_unless_one_is_given(
    given: str | None, new_place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = new_place.client.create_experiment("mine")
    if given is not None:
        monkeypatch.setenv(f"MLFLOW_EXPERIMENT_{given}", "mine" if given == "NAME" else mine)
    for _ in range(2):
        with (
            tracking.command_run("student", load_project("digits")) as parent,
            tracking.model_run("a model", parent, {}) as model,
        ):
            pass
    expected = "digits" if given is None else "mine"
    own = new_place.client.get_experiment_by_name(expected).experiment_id
    runs = [new_place.client.get_run(run_id) for run_id in (parent, model)]
    assert [run.info.experiment_id for run in runs] == [own, own]
    assert len(new_place.client.search_runs([own])) == 4


@pytest.mark.parametrize("error", [MachineError("no room"), OSError(28, "No space left")])
def test_a_run_that_fails_is_tagged_with_why(error: Exception, new_place: Any) -> None:
    def fail() -> None:
        with (
            tracking.command_run("distill", load_project("digits")) as parent,
            tracking.model_run("a model", parent, {"kd.key": KEY, "kd.role": "student"}),
        ):
            raise error

    with pytest.raises(type(error)):
        fail()
    [run] = new_place.runs()
    assert run.info.status == "FAILED"
    assert run.data.tags["kd.error"] == str(error)


def test_what_the_store_refuses_is_one_line(new_place: Any) -> None:
    with pytest.raises(MachineError) as caught, store_errors():
        raise MlflowException("out of order\nwith details\nof no use")
    message = str(caught.value)
    assert message.startswith(f"MLFLOW_TRACKING_URI='{new_place.uri}' does not answer as it should")
    assert "(out of order)" in message
    assert "details" not in message


def test_two_processes_may_make_the_store_at_once(making_of_the_store: Any) -> None:
    place, endings = making_of_the_store
    assert [ending.code for ending in endings] == [0, 0], endings
    assert len(place.client.search_experiments()) == 1


# ---- what is logged of the code


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository with a secret that is not committed."""
    root = tmp_path / "repository"
    package = root / "kdplatform" / "experiments"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("")
    (package / "tracking.py").write_text("")
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=root, check=True)
    (package.parent / "__init__.py").write_text("secret = 1\n")
    monkeypatch.setattr(tracking, "__file__", str(package / "tracking.py"))
    for cached in (tracking._source_tags, tracking.uncommitted_changes):
        cached.cache_clear()
    return root


def test_a_store_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mlflow.db"
    monkeypatch.setattr(tracking.mlflow, "get_tracking_uri", lambda: f"sqlite:///{path}")
    made = tracking.MlflowClient.search_experiments

    def interrupted(client: Any, **options: Any) -> Any:
        made(client, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(tracking.MlflowClient, "search_experiments", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tracking.prepare_store()
    assert not path.exists()
    assert len(list(tmp_path.glob(".mlflow.db.*.new"))) == 1
    monkeypatch.setattr(tracking.MlflowClient, "search_experiments", made)
    tracking.prepare_store()
    assert tracking.MlflowClient(f"sqlite:///{path}").search_experiments()[0].name == "Default"
    assert list(tmp_path.glob("*.new")) == []


def test_the_platforms_own_commit_is_logged(repository: Path) -> None:
    head = ["git", "rev-parse", "HEAD"]
    commit = subprocess.run(head, cwd=repository, capture_output=True, text=True).stdout.strip()
    assert tracking._source_tags() == {
        "mlflow.source.git.commit": commit,
        "kd.source_dirty": "true",
    }


@pytest.mark.parametrize(("chosen", "logged"), [(None, False), ("false", False), ("true", True)])
def test_what_is_not_committed_is_logged_by_choice(
    chosen: str | None, logged: bool, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KDPLATFORM_LOG_CHANGES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("KDPLATFORM_LOG_CHANGES", chosen)
    assert ("secret = 1" in tracking.uncommitted_changes()) is logged


def test_the_repository_of_a_user_around_the_package_is_not_logged(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = repository / ".venv" / "site-packages" / "kdplatform"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    (installed / "experiments").mkdir()
    monkeypatch.setenv("KDPLATFORM_LOG_CHANGES", "true")
    monkeypatch.setattr(tracking, "__file__", str(installed / "experiments" / "tracking.py"))
    assert tracking._source_tags() == {}
    assert tracking.uncommitted_changes() == ""


def test_mlflow_logs_no_repository_of_the_script_that_runs(
    new_place: Any, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "_source_tags", dict)
    # The script that MLflow looks at: that of this process, below its repository.
    monkeypatch.setattr(sys, "argv", [str(repository / "kdplatform" / "__init__.py")])
    tracking.quiet_mlflow()
    with tracking.command_run("student", load_project("digits")) as run_id:
        pass
    tags = new_place.client.get_run(run_id).data.tags
    assert [name for name in tags if name.startswith("mlflow.source.git")] == []


def test_a_password_in_what_mlflow_logged_is_taken_away_or_said(
    new_place: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    address = {"mlflow.source.git.repoURL": "https://t0ken@host/kdplatform"}
    made = new_place.client.create_run("0", tags=address).info.run_id  # as `mlflow run` does
    new_place.client.log_param(made, "storage", "postgresql://me:s3cret@host/db")
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with tracking.command_run("tune", load_project("digits")):
        pass
    tags = new_place.client.get_run(made).data.tags
    assert tags["mlflow.source.git.repoURL"] == "https://***@host/kdplatform"
    assert f"run {made}: `mlflow run` has logged storage as it was" in capsys.readouterr().err


def run_of(began: int, ended: int, weights: str, **needs: str) -> Any:
    tags = {"kd.artifact_digests": json.dumps({"weights.pt": weights})}
    if needs:
        tags["kd.needs"] = json.dumps(needs)
    info = SimpleNamespace(start_time=began, end_time=ended)
    return SimpleNamespace(info=info, data=SimpleNamespace(tags=tags))


@pytest.mark.parametrize(
    ("student", "former"),
    [
        (run_of(30, 40, "s", teacher="new"), []),
        (run_of(30, 40, "s", teacher="old"), ["teacher"]),
        (run_of(30, 40, "s", student="new"), ["teacher"]),
        (run_of(30, 40, "s"), []),  # from before the tag
        (run_of(15, 40, "s"), ["teacher"]),
    ],
)
def test_a_student_is_of_the_teacher_whose_weights_it_names(
    student: Any, former: list[str]
) -> None:
    assert former_needs(student, {"teacher": run_of(10, 20, "new")}) == former
