"""What is trained already is taken; what is not, or no longer what it was, is trained."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.damage import cut_short, flip_a_bit
from helpers.refusals import last_line

from kdplatform.analysis.significance import significance_counts, welch_by_class
from kdplatform.files import file_digest

ROLES = ("teacher", "student", "distilled")

pytestmark = pytest.mark.usefixtures("spared")


def run_ids(place: Any, *roles: str) -> dict[str, list[str]]:
    return {role: [r.info.run_id for r in place.runs(role)] for role in roles or ROLES}


def logits(place: Any, run: Any) -> Any:
    return np.stack(place.predictions(run)["logits"].to_list())


def test_the_same_command_again_trains_nothing(
    trained_place: Any, as_before: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_ids(trained_place)
    assert trained_place.run("distill", **as_before) == 0
    assert run_ids(trained_place) == before
    said = capsys.readouterr().err
    assert [f"reused run {ids[0]}" in said for ids in before.values()] == [True] * 3
    first, second = trained_place.commands()
    compared = {name: v for name, v in first.data.metrics.items() if "/" in name}
    assert compared.items() <= second.data.metrics.items()


def test_a_changed_weight_trains_the_distilled_student_alone(
    trained_place: Any, as_before: dict[str, str]
) -> None:
    before = run_ids(trained_place)
    assert trained_place.run("distill", **as_before | {"alpha": "0.9"}) == 0
    after = run_ids(trained_place)
    assert (after["teacher"], after["student"]) == (before["teacher"], before["student"])
    assert len(after["distilled"]) == 2
    new, command = trained_place.runs("distilled")[-1], trained_place.commands()[-1]
    assert new.data.tags["kd.alpha"] == "0.9"
    assert new.data.tags["mlflow.parentRunId"] == command.info.run_id


def test_no_reuse_trains_afresh_and_takes_the_old_run_out_of_reuse(
    trained_place: Any, as_before: dict[str, str]
) -> None:
    words = {"student__epochs": as_before["student__epochs"]}
    assert trained_place.run("student", reuse="false", **words) == 0
    old, new = trained_place.runs("student")
    assert old.data.tags["kd.key"] == f"{new.data.tags['kd.key']}~{old.info.run_id}"
    assert old.info.status == new.info.status == "FINISHED"
    np.testing.assert_array_equal(logits(trained_place, new), logits(trained_place, old))
    assert trained_place.run("student", **words) == 0
    assert len(trained_place.runs("student")) == 2


@pytest.mark.parametrize(
    ("artifact", "damage"),
    [
        ("predictions/test.parquet", flip_a_bit),
        ("predictions/val.parquet", cut_short),
    ],
)
def test_a_damaged_artifact_is_noticed_and_the_model_trained_again(
    artifact: str,
    damage: Callable[[Path], None],
    trained_place: Any,
    as_before: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    [old] = trained_place.runs("student")
    whole = logits(trained_place, old)
    damage(trained_place.artifact(old, artifact))
    assert trained_place.run("student", student__epochs=as_before["student__epochs"]) == 0
    said = capsys.readouterr().err
    assert (
        f"run {old.info.run_id}: {artifact} is not what was logged; the model is trained again"
        in said
    )
    old, new = trained_place.runs("student")
    np.testing.assert_array_equal(logits(trained_place, new), whole)


def test_an_artifact_that_cannot_be_read_now_stops_the_command_and_alters_nothing(
    trained_place: Any, as_before: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_ids(trained_place)
    [old] = trained_place.runs("student")
    folder = trained_place.artifact(old, "")
    folder.rename(folder.with_name("away"))
    assert trained_place.run("distill", **as_before) == 1
    line = last_line(capsys)
    assert line.startswith(f"run {old.info.run_id}: predictions/test.parquet cannot be read now (")
    assert "reuse=false to train again" in line
    assert f"mlflow runs delete --run-id {old.info.run_id}" in line
    folder.with_name("away").rename(folder)
    assert trained_place.run("distill", **as_before) == 0
    assert run_ids(trained_place) == before


def train_the_teacher_elsewhere(place: Any) -> None:
    """Gives the teacher's run the weights that another machine would have come to."""
    [teacher] = place.runs("teacher")
    path = place.artifact(teacher, "weights.pt")
    state = torch.load(path, weights_only=True)
    torch.save({name: value + (name == "mean") * 1e-3 for name, value in state.items()}, path)
    digests = json.loads(teacher.data.tags["kd.artifact_digests"])
    digests["weights.pt"] = file_digest(path)
    place.client.set_tag(teacher.info.run_id, "kd.artifact_digests", json.dumps(digests))


def test_a_student_of_a_former_teacher_is_trained_again(
    trained_place: Any, as_before: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    before = run_ids(trained_place)
    train_the_teacher_elsewhere(trained_place)
    assert trained_place.run("distill", **as_before) == 0
    after = run_ids(trained_place)
    assert (after["teacher"], after["student"]) == (before["teacher"], before["student"])
    said = f"run {before['distilled'][0]} was made with other weights (teacher)"
    assert said in capsys.readouterr().err
    [teacher], (_, student) = (trained_place.runs(role) for role in ("teacher", "distilled"))
    weights = json.loads(teacher.data.tags["kd.artifact_digests"])["weights.pt"]
    assert json.loads(student.data.tags["kd.needs"])["teacher"] == weights
    [table] = (trained_place.home / "teacher_logits").glob(f"{teacher.info.run_id}.npz")
    assert student.data.tags["kd.teacher_logits"] == file_digest(table)
    assert trained_place.run("distill", **as_before) == 0
    assert run_ids(trained_place) == after


def test_a_student_of_a_former_teacher_is_not_reported_as_its_student(
    trained_place: Any, as_before: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    train_the_teacher_elsewhere(trained_place)
    capsys.readouterr()
    settings = {name: v for name, v in as_before.items() if name != "temperature"}
    assert trained_place.run("report", **settings) == 2
    assert "no distilled run can be used (DS lenet5 kd T=10 alpha=0.5 seed 0, run " in (
        line := last_line(capsys)
    )
    assert "it was made with a former teacher" in line


def test_an_attribute_asked_for_later_is_added_to_the_runs_there_are(
    trained_place: Any, as_before: dict[str, str]
) -> None:
    before = run_ids(trained_place)
    assert trained_place.run("distill", **as_before, attributes="color,texture") == 0
    assert run_ids(trained_place) == before
    for run in trained_place.runs():
        names = ("dpd", "eod", "worst_group_accuracy")
        assert {f"fairness/texture/{name}" for name in names} <= set(run.data.metrics)
        groups = json.loads(trained_place.artifact(run, "groups.json").read_text())
        attribute = groups["columns"].index("attribute")
        assert {row[attribute] for row in groups["data"]} == {"color", "texture"}
        assert len(groups["data"]) == 6


def test_a_renamed_project_reuses_what_is_equal(
    trained_place: Any, as_before: dict[str, str]
) -> None:
    before = run_ids(trained_place)
    assert trained_place.run("distill", **as_before, name="renamed") == 0
    assert run_ids(trained_place) == before


@pytest.mark.parametrize("cache", ["datasets", "teacher_logits"])
def test_a_damaged_cache_is_noticed_and_made_again(
    cache: str,
    trained_place: Any,
    as_before: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    [path] = (trained_place.home / cache).rglob("*.npz")
    whole = path.read_bytes()
    flip_a_bit(path)
    assert trained_place.run("distill", **as_before | {"alpha": "0.9"}) == 0
    assert f"{path} is damaged or altered" in capsys.readouterr().err
    assert path.read_bytes() == whole


@pytest.fixture
def several_seeds(trained_place: Any, as_before: dict[str, str]) -> Any:
    assert trained_place.run("distill", **as_before, seeds="0-1") == 0
    return trained_place


def test_several_seeds_are_compared_over_seeds(
    several_seeds: Any, as_before: dict[str, str]
) -> None:
    place = several_seeds
    assert {role: len(ids) for role, ids in run_ids(place).items()} == dict.fromkeys(ROLES, 2)
    command = place.commands()[-1]
    distilled = [place.predictions(run) for run in place.runs("distilled")]
    for role, name in (("teacher", "n_tc"), ("student", "n_sc")):
        tables = [place.predictions(run) for run in place.runs(role)]
        counts = significance_counts(welch_by_class(tables, distilled, n_classes=3))
        assert command.data.metrics[f"classwise/{name}"] == counts.significant
    accuracies = [run.data.metrics["test/accuracy"] for run in place.runs("distilled")]
    assert command.data.metrics["distilled/test/accuracy"] == pytest.approx(np.mean(accuracies))
    assert command.data.metrics["distilled/test/accuracy_sd"] == pytest.approx(
        np.std(accuracies, ddof=1)
    )
    text = place.artifact(command, "summary.txt").read_text()
    assert "mean ± standard deviation of 2 seeds" in text
    assert "Welch" in text

    # All from one: seed 0 is the same as before, seed 1 learns from another teacher.
    before = run_ids(place)
    assert place.run("distill", **as_before, seeds="0-1", distillation__teacher_seed=0) == 0
    after = run_ids(place)
    assert (after["teacher"], after["student"]) == (before["teacher"], before["student"])
    assert after["distilled"][:2] == before["distilled"]
    assert len(after["distilled"]) == 3
