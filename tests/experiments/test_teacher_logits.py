"""The teacher's logits are computed once per teacher, or not at all."""

from typing import Any

import pytest
import torch
from helpers.damage import cut_short
from kdplatform.experiments.identity import Role, teacher_step

from kdplatform.data import Dataset
from kdplatform.experiments import teacher_logits
from kdplatform.experiments.identity import teacher_step
from kdplatform.experiments.workspace import open_workspace
from kdplatform.roles import Role
from kdplatform.experiments.workspace import open_workspace
from kdplatform.settings.project import load_project
from kdplatform.training import TeacherModel, TeacherTable, TeacherViews, initialised_model

# 18 views: a table for two students pays from 9 epochs on.
AUGMENTED = {
    "student.augmentation.crop_padding": "1",
    "student.augmentation.horizontal_flip": "true",
}
PAYING = {**AUGMENTED, "student.epochs": "9"}
NOT_PAYING = {**AUGMENTED, "student.epochs": "8"}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gives teachers that need no run; lists whose weights were loaded."""
    loaded: list[str] = []

    def restored_model(step: Any, dataset: Dataset, run_id: str) -> torch.nn.Module:
        loaded.append(run_id)
        return initialised_model("lenet5", dataset, seed=0, role=Role.TEACHER.value)

    monkeypatch.setattr(teacher_logits, "restored_model", restored_model)
    monkeypatch.setattr(teacher_logits, "STUDENTS_OF_A_TEACHER", 2)
    return loaded


def teacher(place: Any, fields: dict[str, str]) -> Any:
    config = load_project(place.project, fields)
    workspace = open_workspace(config, place.home, "cpu", reuse=True)
    step = teacher_step(config, 0, workspace.dataset.digest)
    return teacher_logits.teacher_for(workspace, step, "run")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [({}, TeacherTable), (PAYING, TeacherViews)],
    ids=["inputs never change", "augmented"],
)
def test_a_teachers_logits_are_computed_once_for_all_students(new_place, computed, fields, kind):
    assert isinstance(teacher(new_place, fields), kind)
    assert isinstance(teacher(new_place, fields), kind)
    assert computed == ["run"]


def test_a_damaged_table_is_made_again(new_place, computed, capsys):
    teacher(new_place, PAYING)
    [path] = (new_place.home / "teacher_logits").glob("*.npy")
    cut_short(path)
    assert isinstance(teacher(new_place, PAYING), TeacherViews)
    assert computed == ["run", "run"]
    assert "is not what was written to it; it is made again" in capsys.readouterr().err


def test_the_teacher_is_asked_where_a_table_costs_more(new_place, computed):
    assert isinstance(teacher(new_place, NOT_PAYING), TeacherModel)


def test_the_teacher_is_asked_where_a_table_is_too_large(new_place, computed, monkeypatch):
    monkeypatch.setattr(teacher_logits, "MOST_VIEW_BYTES", 1000)
    assert isinstance(teacher(new_place, PAYING), TeacherModel)


def test_the_teacher_is_asked_where_the_disk_has_no_room(new_place, computed, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(teacher_logits.shutil, "disk_usage", lambda folder: usage)
    assert isinstance(teacher(new_place, PAYING), TeacherModel)
