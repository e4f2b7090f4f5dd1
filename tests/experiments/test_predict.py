"""What models say about a dataset, as a file that is a teacher and a side of a comparison."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from helpers.place import Place
from helpers.refusals import assert_refused
from sklearn.linear_model import LogisticRegression

from kdplatform.data import Split
from kdplatform.data._dataset import Seen
from kdplatform.experiments.foreign_models import (
    ForeignModel,
    as_logits,
    logs_of_probabilities,
)
from kdplatform.experiments.predict import _table
from kdplatform.predictions import Predictions

CLASSES = ("one", "two", "three")


def test_students_of_a_file_are_those_of_the_teacher_that_wrote_it(
    trained_place: Place, as_before: dict[str, str], spared: None
) -> None:
    place = trained_place
    teacher, live = (place.runs(role)[0] for role in ("teacher", "distilled"))
    out = place.folder / "teacher.parquet"
    splits = "train,val,test"
    assert place.run("predict", model=teacher.info.run_id, split=splits, out=out) == 0
    table = pd.read_parquet(out)
    test = table[table["split"] == "test"].drop(columns="split")
    Predictions.of(test)  # is a prediction table
    own = place.predictions(teacher)
    assert np.array_equal(np.stack(test["logits"]), np.stack(own["logits"]))
    assert place.run("distill", **as_before, teacher__logits=out) == 0
    taught = place.runs("distilled")[-1]
    assert taught.info.run_id != live.info.run_id
    one, other = (np.stack(place.predictions(run)["logits"]) for run in (live, taught))
    assert np.array_equal(one, other)
    compared = ("classwise/n_tc", "classwise/n_sc", "disagreement/teacher")
    for name in compared:
        assert taught.data.metrics.get(name) == live.data.metrics.get(name)
    assert place.run("predict", model=teacher.info.run_id, data_folder=place.folder / "mine") == 0
    assert (place.folder / f"mine/predictions/{teacher.info.run_id}-test.parquet").exists()
    # Once more it is found, and a file of training rows alone gives no comparison with it.
    alone = place.folder / "alone.csv"
    assert (
        place.run(
            "predict", model=f"runs:/{teacher.info.run_id}/weights.pt", out=alone, split="train"
        )
        == 0
    )
    assert place.run("distill", **as_before, teacher__logits=alone) == 0
    last = place.runs("distilled")[-1]
    assert np.array_equal(np.stack(place.predictions(last)["logits"]), one)
    assert "classwise/n_tc" not in last.data.metrics
    assert "classwise/n_sc" in last.data.metrics


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "model is not given; allowed: the id of a run, runs:/"),
        (["--model", "nothing"], "model='nothing' is not allowed"),
        (["--model", "0" * 32], "model='0+' cannot be read from the tracking store"),
        (
            ["--model", "0" * 32, "--split", "all"],
            "split='all' is not allowed; allowed: train, val",
        ),
        (["--model", "0" * 32, "--out", "x.json"], "allowed: .parquet or .csv"),
        (["--model", "0" * 32, "--trust_model", "maybe"], "trust_model='maybe' is not allowed"),
        (["--model", "0" * 32, "--teacher.epochs", "3"], "teacher.epochs is not for predict"),
    ],
)
def test_what_cannot_be_asked_is_one_line(
    new_place: Place, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    from kdplatform import cli

    assert cli.main(["predict", "--project", new_place.project, *words]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.search(message, last), last


# ---- models of other libraries


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(60, 4)).astype(np.float32)
    model = LogisticRegression().fit(inputs, np.arange(60) % 3)
    signature = mlflow.models.infer_signature(inputs, model.predict(inputs))
    mlflow.sklearn.save_model(
        model, tmp_path / "model", signature=signature, pip_requirements=["scikit-learn"]
    )
    return tmp_path / "model"


INPUTS = torch.zeros(5, 4)


def test_a_pickled_model_is_read_only_when_it_is_trusted(folder: Path) -> None:
    message = r"model='it' \(flavour sklearn\) is unpickled .* allowed: trust_model=true"
    assert_refused(lambda name: ForeignModel(name, folder, trusted=False), "it", message)
    said = ForeignModel("it", folder, trusted=True).predict(INPUTS)
    assert as_logits(said, CLASSES, "it").shape == (5,)


def test_nothing_of_an_untrusted_model_runs(folder: Path, tmp_path: Path) -> None:
    (pickled,) = (path for path in folder.glob("model.*") if path.suffix != ".yaml")
    marker = tmp_path / "ran"
    # What pickle runs when it reads this is `touch`.
    pickled.write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    assert_refused(lambda name: ForeignModel(name, folder, trusted=False), "it", "is unpickled")
    assert not marker.exists()


def test_a_model_that_brings_code_is_refused_whatever_its_flavour(folder: Path) -> None:
    description = folder / "MLmodel"
    text = description.read_text().replace(
        "loader_module: mlflow.sklearn", "loader_module: mlflow.onnx\n    code: code"
    )
    description.write_text(text)
    assert_refused(
        lambda name: ForeignModel(name, folder, trusted=False), "it", "brings code of its own"
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (torch.zeros(5, 4, dtype=torch.uint8), r"takes float32 of shape \(-1, 4\), .* uint8"),
        (torch.zeros(5, 3), r"raw inputs are float32 of shape \(-1, 3\)"),
    ],
)
def test_other_inputs_than_a_model_takes_are_refused(
    folder: Path, inputs: torch.Tensor, message: str
) -> None:
    assert_refused(ForeignModel("it", folder, trusted=True).predict, inputs, message)


def test_what_a_model_says_is_logits_or_classes() -> None:
    said = as_logits(np.array(["two", "one"]), CLASSES, "it")
    assert said.tolist() == [1, 0]
    assert as_logits(np.array([2.0, 0.0]), CLASSES, "it").tolist() == [2, 0]
    half = np.array([[0.5, 0.5, 0.0]], dtype=np.float32)
    assert np.allclose(np.exp(logs_of_probabilities(half, "it")), half)
    for wrong, message in (
        (np.array(["four"]), "says class 'four', one of 1 that the dataset lacks"),
        (np.array([3]), "says class 3; allowed: whole numbers from 0 to 2"),
        (np.zeros((2, 4)), "4 values of float64 per example, the dataset has 3 classes"),
        (np.array([[np.nan, 0, 0]]), "logits of 1 of 1 examples are NaN"),
    ):
        assert_refused(as_logits, wrong, message, CLASSES, "it")


def test_what_users_took_before_is_out_of_the_running_where_a_model_is_judged() -> None:
    seen = Seen(torch.tensor([0, 1]), torch.tensor([[True, False, False], [False] * 3]))
    labels, ids = torch.tensor([1, 0]), np.arange(2)
    split = Split(torch.zeros(2, 1), labels, ids, pd.DataFrame(index=range(2)), seen=seen)
    scores = np.array([[3.0, 2.0, 1.0]] * 2, dtype=np.float32)
    judged = _table("test", split, scores)
    own = Predictions.from_logits(split, torch.from_numpy(scores))
    assert judged["prediction"].tolist() == own.predictions.tolist() == [1, 0]
    np.testing.assert_array_equal(np.stack(judged["logits"]), own.logits)
    # Students learn from the scores of all items.
    assert _table("train", split, scores)["prediction"].tolist() == [0, 0]
