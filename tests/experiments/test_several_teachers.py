"""Several teachers of one student: which steps they are, their tables, and their rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.place import Place
from helpers.refusals import assert_refused, failure, refusal_of
from scipy.special import softmax

from kdplatform.errors import UserError
from kdplatform.experiments import teacher_logits
from kdplatform.experiments.ensembles import mixed
from kdplatform.experiments.graph import (
    FIRST,
    REFERENCE,
    STUDENT,
    TEACHER,
    Step,
    arm_keys,
    distilled_step,
    study_steps,
    teacher_step,
)
from kdplatform.experiments.model_state import ModelState
from kdplatform.experiments.steps import check_steps
from kdplatform.experiments.trained import TrainedModel
from kdplatform.experiments.workspace import open_workspace
from kdplatform.methods import Needs
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.settings.project import dump_yaml, load_project
from kdplatform.settings.schema import ProjectConfig
from kdplatform.training import initialised_model


def project(**fields: str) -> ProjectConfig:
    return load_project("digits", {k.replace("__", "."): v for k, v in fields.items()})


def student(seed: int = 0, **fields: str) -> Step:
    return distilled_step(project(**fields), seed, "digits")


ENSEMBLE = {"method": "ensemble"}


# ---- which steps


def test_one_teacher_in_the_list_is_the_one_teacher() -> None:
    for seed, entry in ((3, "same"), (0, "0")):
        assert student(seed, distillation__teachers=entry).key == student(seed).key
    other = student(3, distillation__teachers="1")
    assert other.key == student(3, distillation__teacher_seed="1").key
    assert set(other.needs) == {TEACHER, STUDENT}


def test_the_teachers_of_a_list_are_steps_in_its_order() -> None:
    step = student(5, **ENSEMBLE, distillation__teachers="0-1,same")
    assert list(step.teachers) == ["teacher 1", "teacher 2", "teacher 3"]
    seeds = [own.seed for own in step.teachers.values()]
    assert seeds == [0, 1, 5]
    assert step.teachers["teacher 2"].key == teacher_step(project(), 1, "digits").key
    keys = {
        student(5, **ENSEMBLE, distillation__teachers=own).key
        for own in ("0-1,same", "0-2", "0", "1,0,same")
    }
    assert len(keys) == 4


def test_the_ensemble_is_one_of_all_seeds_unless_the_seed_chooses_a_teacher() -> None:
    assert project(**ENSEMBLE, distillation__teachers="0-3").shared_teacher_seed == 0
    assert project(**ENSEMBLE, distillation__teachers="0,same").shared_teacher_seed is None
    assert project(distillation__teachers="4").shared_teacher_seed == 4


def test_another_projects_teacher_is_that_projects_own_step(tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    config = project(teacher__epochs="2", teacher__model="resnet8")
    other.write_text(dump_yaml(config))
    step = student(**ENSEMBLE, distillation__teachers=f"0,{other}:1")
    assert step.teachers["teacher 2"].key == teacher_step(config, 1, "digits").key
    assert step.teachers["teacher 2"].title == "Teacher resnet8 other.yaml seed 1"


def test_several_teachers_are_not_compared_one_by_one() -> None:
    config = project(**ENSEMBLE, distillation__teachers="0-2", seeds="0-1")
    steps = study_steps(config, "digits", [1.0, 4.0])
    assert [step.role for step in steps] == [Role.TEACHER] * 3 + [Role.STUDENT] * 2 + [
        Role.DISTILLED
    ] * 4
    compared = [step.role for step in steps if step.key in arm_keys(steps)]
    assert compared == [Role.STUDENT] * 2 + [Role.DISTILLED] * 4


def test_the_reference_is_the_nds_or_a_step_of_its_own() -> None:
    agre = {**ENSEMBLE, "distillation__weighting": "agre", "distillation__teachers": "0-1"}
    assert REFERENCE not in student(**agre).needs
    asked = student(**agre, distillation__reference="7").needs[REFERENCE]
    assert asked.key == teacher_step(project(), 7, "digits").key


@pytest.mark.parametrize(("method", "epochs"), [("jtt", 2), ("dfr", None)])
def test_a_first_model_is_a_step_that_is_not_compared(method: str, epochs: int | None) -> None:
    fields = {"teacher__method": method, "teacher__method__first_epochs": "2"}
    if method == "dfr":
        del fields["teacher__method__first_epochs"]
        fields["teacher__method__attribute"] = "label"
    config = project(**fields)
    step = distilled_step(config, 0, "digits")
    first = step.needs[TEACHER].needs[FIRST]
    plain = project(**({"teacher__epochs": str(epochs)} if epochs else {}))
    assert first.key == teacher_step(plain, 0, "digits").key
    steps = study_steps(config, "digits")
    assert arm_keys(steps) == {own.key for own in steps} - {first.key}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"distillation__teachers": "0-2"}, "names 3 teachers, and method='kd' learns from one"),
        ({**ENSEMBLE, "distillation__teachers": "0-2,1"}, "seed 1 is given twice"),
        ({**ENSEMBLE, "distillation__teachers": ""}, "the list is empty"),
        ({**ENSEMBLE, "distillation__teachers": "who"}, "'who' names no teacher; allowed: same"),
        (
            {"distillation__teachers": "1", "distillation__teacher_seed": "1"},
            "are both given; allowed: one of them",
        ),
        (
            {**ENSEMBLE, "distillation__teachers": "0-1", "distillation__start": "teacher"},
            "not allowed with several teachers",
        ),
    ],
)
def test_lists_that_mean_nothing_are_refused(fields: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        project(**fields)


def test_teachers_of_other_data_are_refused() -> None:
    with pytest.raises(UserError, match="'trifeature' and here it is 'digits'"):
        student(**ENSEMBLE, distillation__teachers="0,trifeature:0")


def test_a_teacher_under_two_names_is_refused(tmp_path: Path) -> None:
    same = tmp_path / "same.yaml"
    same.write_text(dump_yaml(project()))
    with pytest.raises(UserError, match="are the same model; allowed: each teacher once"):
        student(**ENSEMBLE, distillation__teachers=f"0,{same}:0")


# ---- tables


def test_a_sweep_asks_each_of_four_teachers_for_one_pass(
    new_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[str] = []

    def state(step: Any, run_id: str) -> ModelState:
        passes.append(run_id)
        dataset = workspace.dataset
        model = initialised_model("lenet5", dataset, seed=step.seed, role=Role.TEACHER)
        return ModelState.of(step, model)

    monkeypatch.setattr(teacher_logits, "state_of_run", state)
    fields = {"method": "ensemble", "distillation.teachers": "0-3"}
    for temperature in ("1", "4", "10"):
        config = load_project(new_place.project, {**fields, "temperature": temperature})
        workspace = open_workspace(config, new_place.home, "cpu", reuse=True)
        step = distilled_step(config, 0, workspace.dataset.digest)
        needed = {n: TrainedModel(own, n, reused=True) for n, own in step.teachers.items()}
        asked = teacher_logits.teachers_for(workspace, step, needed, Needs(teacher="logits"))
        assert len(asked.sources) == len(set(asked.digests)) == 4
    assert passes == ["teacher 1", "teacher 2", "teacher 3", "teacher 4"]


@pytest.mark.usefixtures("new_place")
def test_weights_of_an_entry_are_named_as_they_were_given(tmp_path: Path) -> None:
    for entry in ("no.pt", "0123456789abcdef" * 2):
        config = project(distillation__teachers=entry)
        line = refusal_of(distilled_step, config, 0, "digits")
        assert line.startswith(f"distillation.teachers={entry!r} ")
        assert "weights=" not in line
    (tmp_path / "empty.pt").touch()
    entry = f"lenet5@{tmp_path}/empty.pt"
    config = project(distillation__teachers=entry)
    workspace = open_workspace(config, tmp_path / "home", "cpu", reuse=True)
    steps = study_steps(config, workspace.dataset.digest)
    line = refusal_of(check_steps, workspace, steps)
    assert line.startswith(f"distillation.teachers='{tmp_path}/empty.pt' ")


# ---- what they say together


def table(logits: np.ndarray, ids: tuple[int, ...] = (0, 1)) -> Predictions:
    frame = pd.DataFrame({"id": ids, "label": [0, 1], "prediction": logits.argmax(1)})
    return Predictions.of(frame.assign(logits=list(logits.astype(np.float32))))


def test_together_they_say_the_mean_of_their_probabilities() -> None:
    one, other = np.array([[2.0, 0, 1], [0, 3, -1]]), np.array([[0.0, 0, 4], [1, 1, 1.5]])
    for weights, shares in (((), (0.5, 0.5)), ((1, 3), (0.25, 0.75))):
        found = mixed([table(one), table(other)], weights).logits
        assert found is not None
        expected = shares[0] * softmax(one, axis=1) + shares[1] * softmax(other, axis=1)
        np.testing.assert_allclose(np.exp(found), expected, rtol=1e-6)
    assert mixed([table(one)]).logits is not None


def test_teachers_of_other_examples_are_refused() -> None:
    logits = np.array([[2.0, 0], [0, 3]])
    assert_refused(mixed, [table(logits), table(logits, (0, 2))], "different examples")
    wide = np.array([[2.0, 0, 0], [0, 3, 0]])
    assert_refused(mixed, [table(logits), table(wide)], "the same classes")


# ---- as a user sees it


def test_every_teacher_and_all_together_are_rows(
    trained_place: Place,
    as_before: dict[str, str],
    capsys: pytest.CaptureFixture[str],
    spared: None,
) -> None:
    teacher = trained_place.runs("teacher")[0].info.run_id
    fields = {**as_before, **ENSEMBLE, "distillation__teachers": f"0-1,{teacher}"}
    del fields["alpha"]
    fields["evaluation__conditions"] = "fast: attack=fgsm"
    assert trained_place.run("distill", **fields) == 0
    shown = capsys.readouterr().out
    rows = [line.split("  ")[0] for line in shown.splitlines()]
    names = ["Teacher seed 0", "Teacher seed 1", f"Teacher run {teacher[:8]}"]
    # One table of the images as they are, one under the condition.
    assert [row for row in rows if row.startswith("Teacher")] == [*names, "Teachers together"] * 2
    assert "each teacher is attacked by itself" in shown
    students = trained_place.runs("distilled")
    [own] = [run for run in students if run.data.tags["kd.method"] == "ensemble"]
    assert {"classwise/n_tc", "classwise/n_sc"} <= set(own.data.metrics)
    assert own.data.tags["kd.teacher_logits"].count(",") == 2
    del fields["temperature"]
    assert trained_place.run("report", **fields, temperatures=10) == 0
    assert "Teacher, student without a teacher (NDS)" in capsys.readouterr().out


def test_tune_takes_one_teacher(new_place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--project", new_place.project, "--method", "ensemble"]
    code, line = failure(["tune", *words, "--distillation.teachers", "0-1"], capsys)
    assert code == 2
    assert "is not for tune, which compares each point with one teacher; allowed: one" in line
