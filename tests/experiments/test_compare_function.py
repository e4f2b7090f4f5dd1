"""`kdplatform.compare`: the command's numbers and verdicts, as data frames."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.prediction_files import people

import kdplatform
from kdplatform import cli
from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.errors import UserError
from kdplatform.experiments.compared_sides import read_sides
from kdplatform.predictions import Predictions

FAIR, UNFAIR = people(1), people(2, skill=1.4, against=1.2)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def result() -> kdplatform.ComparisonResult:
    return kdplatform.compare(FAIR, UNFAIR, attributes=["race"], positive="hire")


def test_the_function_has_the_numbers_and_verdicts_of_the_command(
    result: kdplatform.ComparisonResult,
) -> None:
    for name, table in (("a.csv", FAIR), ("b.csv", UNFAIR)):
        table.to_csv(name, index=False)
    words = ["--attributes", "race", "--positive", "hire", "--out", "out"]
    assert cli.main(["compare", "a.csv", "b.csv", *words]) == 0
    for name, frame in (("verdicts", result.verdicts), ("groups", result.groups)):
        written = pd.read_csv(f"out/{name}.csv")
        for column in frame.select_dtypes("number"):
            np.testing.assert_allclose(written[column], frame[column].astype(float), rtol=1e-6)
        text = "verdict" if name == "verdicts" else "group"
        assert written[text].fillna("").tolist() == frame[text].fillna("").tolist()
    classes = pd.read_csv("out/classes.csv")
    assert classes["name"].tolist() == result.classes["name"].tolist() == ["hire", "reject"]
    np.testing.assert_allclose(classes["difference"], result.classes["difference"], rtol=1e-6)


def test_what_was_found_is_a_frame_of_sentences(result: kdplatform.ComparisonResult) -> None:
    found = result.findings
    assert {"kind", "sentence", "strength", "subject"} <= set(found)
    assert set(found["kind"]) <= {"warning", "worse", "better", "undecided"}
    [sentence] = found.loc[found["subject"] == "race b within class hire", "sentence"]
    assert sentence.startswith("race b within class hire got worse: ")
    shifts = result.shifts.set_index(["attribute", "group", "label"])
    assert shifts.loc[("race", "b", "hire"), "verdict"] == "worse"
    row = result.groups.set_index("group").loc["a"]
    assert row["accuracy_difference"] == pytest.approx(shifts.loc[("race", "a", ""), "difference"])


@pytest.mark.parametrize("kind", ["paths", "texts", "checked"])
def test_a_side_may_be_frames_files_or_checked_tables(
    kind: str, result: kdplatform.ComparisonResult
) -> None:
    numbered = [
        t.replace({"label": {"hire": 0, "reject": 1}, "prediction": {"hire": 0, "reject": 1}})
        for t in (FAIR, UNFAIR)
    ]
    sides: list[object] = []
    for name, table, numbers in zip("ab", (FAIR, UNFAIR), numbered, strict=True):
        path = Path(f"{name}.parquet")
        table.to_parquet(path)
        checked = Predictions.of(numbers.infer_objects()) if kind == "checked" else None
        sides.append({"paths": path, "texts": str(path)}.get(kind, checked))
    positive = 0 if kind == "checked" else "hire"
    other = kdplatform.compare(*sides, attributes="race", positive=positive)  # type: ignore[arg-type]
    columns = ["a", "b", "low", "high"]
    np.testing.assert_allclose(
        other.verdicts[columns].astype(float),
        result.verdicts[columns].astype(float),
        rtol=1e-5,
        atol=1e-9,
    )
    assert other.verdicts["verdict"].fillna("").tolist() == (
        result.verdicts["verdict"].fillna("").tolist()
    )


def test_several_tables_are_the_seeds_of_a_side() -> None:
    a, b = [people(i) for i in range(3)], [people(10 + i, against=1.5) for i in range(3)]
    found = kdplatform.compare(a, b, attributes=["race"], positive="hire")
    accuracy = found.verdicts.set_index("what").loc["accuracy"]
    expected = np.mean([(t["label"] == t["prediction"]).mean() for t in a])
    assert accuracy["a"] == pytest.approx(expected)
    assert "A: table a[0], table a[1], table a[2] (3 models)" in repr(found)
    assert "p_max" in found.shifts


def test_indexes_of_ids_and_truth_values_are_read_as_in_a_file() -> None:
    hired = FAIR.assign(label=FAIR["label"] == "hire", prediction=FAIR["prediction"] == "hire")
    hired = hired.drop(columns="logits").set_index("id")
    sides = read_sides([[hired], [hired]])
    assert sides.first.class_names == ("False", "True")
    assert sides.attributes == ("race", "sex")
    assert sides.first.tables[0].ids.tolist() == FAIR["id"].tolist()


def test_frames_of_a_csv_file_are_read_as_the_file_is() -> None:
    for name, table in (("a.csv", FAIR), ("b.csv", UNFAIR)):
        margin = (table["prediction"] == "reject") - 0.5
        logits = [json.dumps([-own, own]) for own in margin]
        table.assign(logits=logits).to_csv(name, index=False)
    frames = [pd.read_csv(name) for name in ("a.csv", "b.csv")]
    by_frame = kdplatform.compare(*frames, attributes=["race"])
    by_path = kdplatform.compare("a.csv", "b.csv", attributes=["race"])
    assert "NLL" in set(by_frame.verdicts["what"])
    pd.testing.assert_frame_equal(by_frame.verdicts, by_path.verdicts)
    named = FAIR.assign(label=0, prediction=0, logits=json.dumps([0.5, -0.5]))
    assert Predictions.of(named).logits is not None
    frames[1].loc[3, "logits"] = "0.5 -0.5"
    with pytest.raises(UserError) as caught:
        kdplatform.compare(*frames)
    assert str(caught.value) == (
        "table b: logits '0.5 -0.5' are not a list of numbers; allowed: [0.5, -1.0]"
    )


def test_notes_name_parameters_as_python_has_them() -> None:
    small = FAIR.assign(race=FAIR["race"].where(FAIR.index != 0, "c"), age=FAIR.index)
    text = str(kdplatform.compare(small, small.copy(), positive="hire"))
    assert "min_group_size=1 counts them" in text
    assert "; attributes names columns that are; put numbers into bands first." in text
    assert re.search("--[a-z]", text) is None


def test_the_page_is_one_file_and_names_are_text(tmp_path: Path) -> None:
    named = [t.replace({"race": {"c": "<script>c"}}) for t in (FAIR, UNFAIR)]
    found = kdplatform.compare(*named, attributes=["race"], positive="hire")
    page = found.to_html(tmp_path / "page.html").read_text()
    assert page.startswith("<!doctype html>")
    shown = found._repr_html_()
    assert "B less fair" in shown
    for text in (page, shown):
        assert "<script>c" not in text
    assert "A: table a (1 model); B: table b (1 model)" in str(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"attributes": ["rac"]}, "attributes='rac' is not a column"),
        ({"positive": "hired"}, "positive='hired' does not exist; did you mean 'hire'"),
        ({"min_group_size": 0}, "min_group_size='0' is not allowed; allowed: integer >= 1"),
        ({"min_group_share": 1.5}, "min_group_share='1.5' is not allowed"),
    ],
)
def test_what_the_command_refuses_is_refused(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        kdplatform.compare(FAIR, UNFAIR, **arguments)  # type: ignore[arg-type]


def test_a_frame_that_is_no_prediction_table_is_refused_by_its_side() -> None:
    with pytest.raises(UserError, match="table b: prediction table lacks column 'prediction'"):
        kdplatform.compare(FAIR, UNFAIR.drop(columns="prediction"))
    with pytest.raises(UserError, match="side a is empty"):
        kdplatform.compare([], UNFAIR)
    with pytest.raises(UserError, match="side b has a ndarray; allowed: data frames, paths"):
        kdplatform.compare(FAIR, UNFAIR.to_numpy())  # type: ignore[arg-type]
    numbers = FAIR.assign(prediction=(FAIR["prediction"] == "hire").astype(int))
    with pytest.raises(UserError, match="table a has names of classes in one column and numbers"):
        kdplatform.compare(numbers, UNFAIR)
    with pytest.raises(UserError, match="side a names the same predictions twice"):
        kdplatform.compare([FAIR, FAIR], UNFAIR)


def test_a_column_whose_name_is_a_number_is_an_attribute() -> None:
    sides = [table.rename(columns={"race": 0}) for table in (FAIR, UNFAIR)]
    found = kdplatform.compare(*sides, attributes=[0])  # type: ignore[list-item]
    assert set(found.groups["attribute"]) == {"0"}


def test_a_page_cannot_be_a_folder(result: kdplatform.ComparisonResult, tmp_path: Path) -> None:
    for folder in (tmp_path, Path()):
        with pytest.raises(UserError, match="is a folder; allowed: the path of a file"):
            result.to_html(folder)


def test_a_bootstrap_alone_says_no_more_than_the_command(
    result: kdplatform.ComparisonResult,
) -> None:
    """Of EOD and DPD it takes the chance levels away, as the command does."""
    numbers = {"hire": 0, "reject": 1}
    tables = {
        side: [t.assign(label=t["label"].map(numbers), prediction=t["prediction"].map(numbers))]
        for side, t in (("A", FAIR), ("B", UNFAIR))
    }
    boot = bootstrap_fairness(tables, "race")
    verdicts = result.verdicts.set_index("what")["verdict"]
    for metric, name in (("eod", "EOD"), ("dpd", "DPD"), ("accuracy_gap", "accuracy gap")):
        word = boot.compare("B", "A", metric).verdict
        assert verdicts[f"{name}, race"].removeprefix("B ").partition(" (")[0] == word


def test_an_interval_that_chance_explains_is_no_verdict() -> None:
    """Two models that ignore groups: more errors alone give a larger EOD."""
    rng = np.random.default_rng(5)
    n = 3000
    labels, groups = rng.integers(0, 2, n), rng.integers(0, 12, n)
    arms = {}
    for side, error in (("good", 0.005), ("bad", 0.45)):
        prediction = np.where(rng.random(n) < error, 1 - labels, labels)
        arms[side] = [
            pd.DataFrame(
                {"id": range(n), "label": labels, "prediction": prediction, "g": groups.astype(str)}
            )
        ]
    boot = bootstrap_fairness(arms, "g", draws=1000)
    assert boot.difference("bad", "good", "eod").low > 0
    assert boot.compare("bad", "good", "eod").verdict == "undecided"


def test_public_names_load_when_they_are_asked_for() -> None:
    code = (
        "import sys, kdplatform; slow = {'torch', 'pandas', 'mlflow', 'scipy'}; "
        "assert not slow & set(sys.modules), slow & set(sys.modules); kdplatform.compare; "
        "assert not {'torch', 'mlflow', 'scipy', 'fairlearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
