"""What a model's run logs in the end reads like what MLflow's own calls log."""

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import mlflow
import pandas as pd
from matplotlib.figure import Figure

from kdplatform.experiments import records
from kdplatform.reporting.figures import disagreement_figure

METRICS = {"test/accuracy": 0.5, "fairness/sex/dpd": 0.25}
TABLES = {
    "classwise": pd.DataFrame({"name": ["a", "b"], "accuracy": [0.5, None]}),
    "groups": pd.DataFrame({"group": ["x"], "n": [3]}),
}


def test_metrics_belong_to_the_run_and_to_its_model(new_place: Any) -> None:
    with mlflow.start_run() as run:
        model = new_place.client.create_logged_model("0", "student", run.info.run_id)
        records.log_results(METRICS, {"kd.device": "cpu"}, TABLES, model.model_id)
    data = new_place.client.get_run(run.info.run_id).data
    assert data.metrics == METRICS
    assert data.tags["kd.device"] == "cpu"
    logged = new_place.client.get_logged_model(model.model_id)
    assert {metric.key: metric.value for metric in logged.metrics} == METRICS


def test_tables_are_those_that_mlflow_logs(new_place: Any, tmp_path: Path) -> None:
    with mlflow.start_run() as ours:
        records.log_results({}, {}, TABLES, None)
    with mlflow.start_run() as theirs:
        records.log_tables(TABLES)
    runs = [new_place.client.get_run(run.info.run_id) for run in (ours, theirs)]
    listed = [json.loads(run.data.tags["mlflow.loggedArtifacts"]) for run in runs]
    assert listed[0] == listed[1]
    for name in TABLES:
        files = [new_place.artifact(run, f"{name}.json").read_text() for run in runs]
        assert files[0] == files[1]


def test_figures_of_both_kinds_are_logged_as_pictures(new_place: Any) -> None:
    figure = Figure()
    figure.subplots().plot([0, 1])
    matrix = pd.DataFrame([[0, 3], [1, 0]])
    drawing = disagreement_figure({"NDS": matrix}, ["circle", "square"], "title")
    with mlflow.start_run() as run:
        records.log_figures({"plain": figure, "shared": drawing})
    logged = new_place.client.get_run(run.info.run_id)
    for name in ("plain", "shared"):
        picture = matplotlib.image.imread(new_place.artifact(logged, f"figures/{name}.png"))
        assert picture[..., :3].std() > 0.01
