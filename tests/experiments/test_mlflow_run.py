"""What the real `mlflow run . -e distill` leaves behind, read back from its tracking store."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib.image
import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.entities import Run
from mlflow.models import Model

from kdplatform.analysis.disagreement import disagreement_by_class
from kdplatform.analysis.significance import mcnemar_by_class
from kdplatform.data import load_dataset
from kdplatform.files import file_digest
from kdplatform.predictions import Predictions
from kdplatform.settings.project import load_project
from kdplatform.study.metrics import REFERENCES, group_count, model_metrics, pair_metrics

ROLES = ("teacher", "student", "distilled")
EPOCHS = {"teacher": 3, "student": 4, "distilled": 4}


@pytest.fixture
def place(first_command: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    first_command.place.enter(monkeypatch)
    return first_command.place


@pytest.fixture
def run(request: pytest.FixtureRequest, place: Any) -> Run:
    [run] = place.runs(request.param)
    return run


@pytest.fixture
def command(place: Any) -> Run:
    [run] = place.commands()
    return run


every_role = pytest.mark.parametrize("run", ROLES, indirect=True)
distilled = pytest.mark.parametrize("run", ["distilled"], indirect=True)


def artifacts(place: Any, run: Run) -> set[str]:
    folder = place.artifact(run, "")
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def table(place: Any, run: Run, name: str) -> pd.DataFrame:
    content = json.loads(place.artifact(run, f"{name}.json").read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def test_the_command_succeeds(first_command: Any) -> None:
    assert first_command.code == 0, first_command.err


def test_it_prints_the_arms_and_where_to_look(first_command: Any) -> None:
    lines = first_command.out.splitlines()
    header = next(number for number, line in enumerate(lines) if line.startswith("    "))
    columns = ["accuracy", "DPD", "color", "EOD", "color", "n_tc", "n_sc", "n_tg", "n_sg"]
    assert lines[header].split() == columns
    rows = [line.split()[0] for line in lines[header + 2 :][:3]]
    assert rows == ["Teacher", "NDS", "DS"]
    uri = first_command.place.uri
    assert f"see it with: mlflow ui --backend-store-uri {uri}" in first_command.out


def test_the_printed_numbers_are_those_of_the_runs(first_command: Any) -> None:
    for role, label in zip(ROLES, ("Teacher", "NDS", "DS"), strict=True):
        [run] = first_command.place.runs(role)
        [line] = [x for x in first_command.out.splitlines() if re.match(rf"{label} +\d", x)]
        metrics = run.data.metrics
        names = ("test/accuracy", "fairness/color/dpd", "fairness/color/eod")
        assert line.split()[1:4] == [f"{100 * metrics[name]:.2f}" for name in names]


@every_role
def test_each_role_has_one_finished_run_below_the_commands(
    place: Any, run: Run, command: Run
) -> None:
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.parentRunId"] == command.info.run_id


@every_role
def test_a_run_is_tagged_by_what_it_is(run: Run) -> None:
    tags = run.data.tags
    role = tags["kd.role"]
    expected = {"kd.project": "small", "kd.seed": "0", "kd.model": "lenet5"}
    if role == "distilled":
        expected |= {"kd.temperature": "10", "kd.alpha": "0.5", "kd.method": "kd"}
    assert expected.items() <= tags.items()
    assert re.fullmatch(r"[0-9a-f]{32}", tags["kd.key"])
    assert re.fullmatch(r"[0-9a-f]{40}", tags["mlflow.source.git.commit"])
    assert "kd.error" not in tags


def test_no_two_runs_share_a_key(place: Any) -> None:
    keys = [run.data.tags["kd.key"] for run in place.runs()]
    assert len(set(keys)) == len(keys) == 3


@every_role
def test_a_runs_parameters_are_what_decides_its_numbers(run: Run) -> None:
    role, params = run.data.tags["kd.role"], run.data.params
    section = "teacher" if role == "teacher" else "student"
    assert params["seed"] == "0"
    assert params[f"{section}.epochs"] == str(EPOCHS[role])
    assert params["dataset.image_size"] == "16"
    sections = {name.partition(".")[0] for name in params if "." in name}
    assert sections == {"dataset", section} | ({"distillation"} if role == "distilled" else set())


@every_role
def test_the_resolved_configuration_can_be_loaded_again(place: Any, run: Run) -> None:
    config = load_project(str(place.artifact(run, "config.yaml")))
    assert config.student.epochs == 4
    assert config.distillation.temperature == 10
    assert config.distillation.alpha == 0.5


@every_role
def test_the_dataset_is_named_with_its_digest(place: Any, run: Run) -> None:
    [used] = run.inputs.dataset_inputs
    config = load_project(str(place.artifact(run, "config.yaml")))
    digest = load_dataset(config.dataset, place.home / "datasets").digest
    assert used.dataset.name == "trifeature"
    assert digest.startswith(used.dataset.digest)
    assert len(used.dataset.digest) >= 32


@every_role
def test_every_epoch_is_a_point_of_every_curve(place: Any, run: Run) -> None:
    epochs = EPOCHS[run.data.tags["kd.role"]]
    curves = [name for name in run.data.metrics if name.startswith("epoch/")]
    assert {"epoch/train_loss", "epoch/val_loss", "epoch/val_accuracy"} <= set(curves)
    for name in curves:
        points = place.client.get_metric_history(run.info.run_id, name)
        assert [point.step for point in points] == list(range(1, epochs + 1))


@distilled
def test_the_parts_of_the_loss_are_curves(run: Run) -> None:
    assert {"epoch/train_kl", "epoch/train_ce"} <= set(run.data.metrics)


@every_role
@pytest.mark.parametrize("split", ["test", "val"])
def test_predictions_are_of_this_split_and_of_this_model(place: Any, run: Run, split: str) -> None:
    predictions = place.predictions(run, split)
    assert {"id", "label", "prediction", "logits", "color"} <= set(predictions.columns)
    config = load_project(str(place.artifact(run, "config.yaml")))
    data = load_dataset(config.dataset, place.home / "datasets").splits()[split]
    np.testing.assert_array_equal(predictions["id"], data.ids)
    np.testing.assert_array_equal(predictions["label"], data.labels)
    np.testing.assert_array_equal(predictions["color"], data.columns["color"])
    logits = np.stack(predictions["logits"].to_list())
    np.testing.assert_array_equal(predictions["prediction"], logits.argmax(axis=1))


@every_role
def test_the_metrics_are_those_of_the_predictions(place: Any, run: Run) -> None:
    test, val = (Predictions.of(place.predictions(run, split)) for split in ("test", "val"))
    expected = model_metrics(test, val, ["color"], 1, "trifeature")
    assert {name: run.data.metrics[name] for name in expected} == expected
    assert {
        "test/accuracy",
        "test/worst_class_accuracy",
        "test/ece",
        "fairness/color/dpd",
        "fairness/color/eod",
        "fairness/color/worst_group_accuracy",
        "fairness/individual",
        "fairness/individual_labels",
        "fairness/individual_calibrated",
    } <= set(expected)


@every_role
def test_classes_and_groups_are_tables_and_not_metrics(place: Any, run: Run) -> None:
    assert len(run.data.metrics) <= 80
    classes, groups = table(place, run, "classwise"), table(place, run, "groups")
    assert len(classes) == 3
    assert len(groups) == 3
    assert set(groups["attribute"]) == {"color"}


@distilled
def test_the_distilled_student_is_compared_class_by_class(place: Any, run: Run) -> None:
    own, classes = Predictions.of(place.predictions(run)), table(place, run, "classwise")
    for role, name in REFERENCES.items():
        reference = Predictions.of(place.predictions(place.runs(role.value)[0]))
        expected = pair_metrics(role, reference, own, 3, ["color"])
        assert {f"classwise/n_{name}", f"disagreement/{role.value}"} <= set(expected)
        assert group_count(role) in expected
        assert {name: run.data.metrics[name] for name in expected} == expected
        by_class = mcnemar_by_class(reference, own)
        np.testing.assert_allclose(
            classes[f"p_value_{role.value}"], by_class["p_value"], rtol=1e-12
        )
        shares = disagreement_by_class(reference, own)["disagreement"]
        np.testing.assert_allclose(classes[f"disagreement_{role.value}"], shares)


@distilled
def test_the_figures_can_be_opened(place: Any, run: Run) -> None:
    names = {"curves", "class_accuracy", "disagreement", "group_accuracy"}
    for name in names:
        image = matplotlib.image.imread(place.artifact(run, f"figures/{name}.png"))
        assert image.shape[0] > 100
        assert image[..., :3].std() > 0.01  # something is drawn


@every_role
def test_the_logged_model_predicts_what_the_table_says(place: Any, run: Run) -> None:
    [logged] = run.outputs.model_outputs
    config = load_project(str(place.artifact(run, "config.yaml")))
    inputs = load_dataset(config.dataset, place.home / "datasets").test.inputs.numpy()
    location = place.client.get_logged_model(logged.model_id).artifact_location
    model = mlflow.pyfunc.load_model(location)
    logits = np.stack(place.predictions(run)["logits"].to_list())
    # One batch of the whole split where the run took several: equal but for the order of sums.
    np.testing.assert_allclose(model.predict(inputs), logits, rtol=1e-4, atol=1e-4)


@distilled
def test_the_model_has_a_signature_for_raw_images(place: Any, run: Run) -> None:
    [logged] = run.outputs.model_outputs
    location = place.client.get_logged_model(logged.model_id).artifact_location
    signature = Model.load(location).signature
    [inputs], [outputs] = signature.inputs.inputs, signature.outputs.inputs
    assert (inputs.type, inputs.shape) == (np.dtype("uint8"), (-1, 3, 16, 16))
    assert (outputs.type, outputs.shape) == (np.dtype("float32"), (-1, 3))


@every_role
def test_the_digests_are_those_of_the_artifacts(place: Any, run: Run) -> None:
    digests = json.loads(run.data.tags["kd.artifact_digests"])
    assert set(digests) == {"predictions/test.parquet", "predictions/val.parquet", "weights.pt"}
    for path, digest in digests.items():
        assert file_digest(place.artifact(run, path)) == digest


def test_the_commands_run_keeps_what_was_typed(command: Run) -> None:
    typed = {"temperature": "10.0", "alpha": "0.50", "student.epochs": "4"}
    assert typed.items() <= command.data.params.items()
    assert command.data.tags["kd.command"] == "distill"
    assert command.data.tags["mlflow.project.entryPoint"] == "distill"
    assert command.info.run_name == "distill small kd T=10 alpha=0.5 seed 0"


def test_the_commands_run_holds_the_comparison(place: Any, command: Run) -> None:
    metrics = command.data.metrics
    for role in ROLES:
        [run] = place.runs(role)
        assert metrics[f"{role}/test/accuracy"] == run.data.metrics["test/accuracy"]
    [ds] = place.runs("distilled")
    for name in ("classwise/n_sc", "classwise/n_tc", "groupwise/n_sg", "groupwise/n_tg"):
        assert metrics[name] == ds.data.metrics[name]
    logged = {"config.yaml", "summary.txt", "classwise.json", "group_shifts.json"}
    assert logged | {"figures/samples.png"} <= artifacts(place, command)


def test_nothing_of_the_training_is_left_over(place: Any) -> None:
    assert list((place.home / "checkpoints").glob("*")) == []
    hidden = [path for path in place.home.rglob(".*") if path.is_file()]
    assert hidden == []


def test_the_project_file_is_plain_yaml(place: Any, command: Run) -> None:
    text = Path(place.artifact(command, "config.yaml")).read_text()
    assert yaml.safe_load(text)["name"] == "small"
