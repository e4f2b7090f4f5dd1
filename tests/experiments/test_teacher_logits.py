"""The teacher's logits are computed once per teacher, or not at all."""

from typing import Any

import pytest
import torch
from helpers.damage import cut_short

from kdplatform.data import Dataset
from kdplatform.experiments import teacher_logits
from kdplatform.experiments.graph import TEACHER, distilled_step
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import open_workspace
from kdplatform.methods import Needs
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.training import initialised_model

# 18 views: a table for two students pays from 9 epochs on.
AUGMENTED = {
    "student.augmentation.crop_padding": "1",
    "student.augmentation.horizontal_flip": "true",
}
PAYING = {**AUGMENTED, "student.epochs": "9"}
NOT_PAYING = {**AUGMENTED, "student.epochs": "8"}
TABLE = Needs(teacher="logits")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gives teachers that need no run; lists whose weights were loaded."""
    loaded: list[str] = []

    class Fresh:
        def model(self, dataset: Dataset) -> torch.nn.Module:
            return initialised_model("lenet5", dataset, seed=0, role=Role.TEACHER)

    def state_of_run(step: Any, run_id: str) -> Fresh:
        loaded.append(run_id)
        return Fresh()

    monkeypatch.setattr(teacher_logits, "state_of_run", state_of_run)
    monkeypatch.setattr(teacher_logits, "STUDENTS_OF_A_TEACHER", 2)
    return loaded


def asked(place: Any, fields: dict[str, str], needs: Needs = TABLE) -> list[str]:
    """Asks for the teacher of a student; returns the suffixes of the tables on disk."""
    config = load_project(place.project, fields)
    workspace = open_workspace(config, place.home, "cpu", reuse=True)
    student = distilled_step(config, 0, workspace.dataset.digest)
    teacher = TrainedModel(student.needs[TEACHER], "run", reused=True)
    teacher_logits.teacher_for(workspace, student, teacher, needs)
    tables = (place.home / "teacher_logits").glob("*.np[yz]")
    return [path.suffix for path in tables]


@pytest.mark.parametrize(
    ("fields", "table"),
    [({}, ".npz"), (PAYING, ".npy")],
    ids=["inputs never change", "augmented"],
)
def test_a_teachers_logits_are_computed_once_for_all_students(new_place, computed, fields, table):
    assert asked(new_place, fields) == [table]
    assert asked(new_place, fields) == [table]
    assert computed == ["run"]


def test_a_damaged_table_is_made_again(new_place, computed, capsys):
    asked(new_place, PAYING)
    [path] = (new_place.home / "teacher_logits").glob("*.npy")
    whole = path.read_bytes()
    cut_short(path)
    asked(new_place, PAYING)
    assert path.read_bytes() == whole
    assert computed == ["run", "run"]
    assert "is damaged or altered; it is made again" in capsys.readouterr().err


def test_the_teacher_is_asked_where_a_table_costs_more(new_place, computed):
    assert asked(new_place, NOT_PAYING) == []


def test_the_teacher_is_asked_where_a_table_is_too_large(new_place, computed, monkeypatch):
    monkeypatch.setattr(teacher_logits, "MOST_VIEW_BYTES", 1000)
    assert asked(new_place, PAYING) == []


def test_the_teacher_is_asked_where_the_disk_has_no_room(new_place, computed, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(teacher_logits.shutil, "disk_usage", lambda folder: usage)
    assert asked(new_place, PAYING) == []


def test_a_method_that_asks_the_network_gets_no_table(new_place, computed):
    assert asked(new_place, {}, Needs(teacher="live")) == []
    assert computed == []
