"""`kdplatform compare`: what auditors ask for, weights, and what is refused of either."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.prediction_files import PEOPLE, people, weights
from helpers.refusals import failure

import kdplatform
from kdplatform import cli
from kdplatform.experiments.compared_sides import read_sides

FAIR, UNFAIR = people(1), people(2, skill=1.4, against=1.2)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def csv(name: str, table: pd.DataFrame) -> str:
    table.to_csv(name, index=False)
    return name


def compare(*words: str) -> int:
    return cli.main(["compare", *words])


def rows(folder: str = "out", name: str = "verdicts") -> pd.DataFrame:
    return pd.read_csv(Path(folder) / f"{name}.csv").set_index("what")


def read(name: str, folder: str = "out") -> pd.DataFrame:
    return pd.read_csv(Path(folder) / f"{name}.csv", keep_default_na=True)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code, line = failure(["compare", *words], capsys)
    assert code == 2
    return line


# ---- measures


def test_the_rule_is_printed_with_its_chance_and_p(capsys: pytest.CaptureFixture[str]) -> None:
    sides = csv("a.csv", FAIR), csv("b.csv", UNFAIR)
    assert compare(*sides, "--attributes", "race", "--positive", "hire", "--out", "out") == 0
    rule = read("four_fifths").set_index(["side", "rate"])
    flagged = rule.loc[("B", "selection")]
    assert (flagged["group"], flagged["below_four_fifths"]) == ("b", "b")
    assert flagged["p_value"] < 0.02
    assert pd.isna(rule.loc[("A", "selection"), "below_four_fifths"])
    assert 0 < rule.loc[("A", "selection"), "chance_of_below"] < 1
    assert rows().loc["demographic parity ratio, race", "verdict"] == "B less fair"
    printed = capsys.readouterr().out
    assert "Favourable class: hire." in printed
    assert "lowest impact ratio" in printed
    assert "4 of 800 examples are in no group" in printed


def test_the_favourable_class_is_said_where_it_was_not_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Class 1 of two: of names the second."""
    sides = csv("a.csv", FAIR), csv("b.csv", UNFAIR)
    words = ("--attributes", "race", "--min_group_share", "0.15")
    assert compare(*sides, *words) == 0
    said = capsys.readouterr()
    printed = said.out
    assert "Favourable class: reject." in printed
    assert said.err.splitlines() == [
        "reject is taken as the favourable class, because it is the second of two classes; "
        "--positive hire takes the other"
    ]
    assert "race: c has less than 15% of the examples and no impact ratio" in printed


def test_a_favourable_class_that_is_named_is_not_said_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = csv("a.csv", FAIR), csv("b.csv", UNFAIR)
    assert compare(*sides, "--attributes", "race", "--positive", "reject") == 0
    assert capsys.readouterr().err == ""


def test_an_attribute_of_many_numbers_is_not_compared_and_that_comes_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = [
        csv(n, t.assign(age=18 + t["id"] % 60)) for n, t in (("a.csv", FAIR), ("b.csv", UNFAIR))
    ]
    assert compare(*sides, "--attributes", "age", "--positive", "hire") == 0
    first = capsys.readouterr().out.strip().splitlines()[0]
    assert first.startswith("WARNING: age was not compared: 0 of its 60 groups have the 30 ")
    assert "Put its numbers into ranges first" in first


def test_many_classes_need_a_favourable_one(capsys: pytest.CaptureFixture[str]) -> None:
    sides = []
    for name, table in (("a.csv", FAIR), ("b.csv", UNFAIR)):
        label = table["label"].where(table["id"] % 4 > 0, "interview")
        sides.append(csv(name, table.assign(label=label).drop(columns="logits")))
    assert compare(*sides, "--attributes", "race") == 0
    printed = capsys.readouterr().out
    assert "--positive names the favourable class" in printed
    assert "demographic parity ratio" not in printed


# ---- weights


def test_weights_count_in_accuracy_and_scores_with_their_intervals() -> None:
    w = weights()
    sides = [table.assign(weight=w) for table in (FAIR, UNFAIR)]
    compared = kdplatform.compare(*sides, attributes=["race"], positive="hire")
    found = compared.verdicts.set_index("what")
    right = [(t["label"] == t["prediction"]).to_numpy() for t in (FAIR, UNFAIR)]
    assert found.loc["accuracy", "a"] == pytest.approx(np.average(right[0], weights=w))
    mean = np.average(right[1].astype(float) - right[0], weights=w)
    share = w / w.sum()
    spread = share * (right[1].astype(float) - right[0] - mean)
    error = np.sqrt((spread**2).sum() * PEOPLE / (PEOPLE - 1))
    assert found.loc["accuracy", "high"] - mean == pytest.approx(1.963 * error, rel=1e-3)
    hire = np.array(UNFAIR["logits"].tolist())[:, 0]
    p = 1 / (1 + np.exp(-hire))
    loss = -np.log(np.where(UNFAIR["label"] == "hire", p, 1 - p))
    assert found.loc["NLL", "b"] == pytest.approx(np.average(loss, weights=w))
    differs = (FAIR["prediction"] != UNFAIR["prediction"]).to_numpy()
    assert found.loc["disagreement", "difference"] == pytest.approx(np.average(differs, weights=w))
    classes = compared.classes.set_index("name")
    hired = (FAIR["label"] == "hire").to_numpy()
    assert classes.loc["hire", "accuracy_a"] == pytest.approx(
        np.average(right[0][hired], weights=w[hired])
    )
    [line] = [note for note in compared.notes if note.startswith("Weighted by")]
    effective = w.sum() ** 2 / (w**2).sum()
    assert f"800 examples are worth {effective:.0f} of equal weight." in line
    assert "McNemar's tests and their counts, I(f), consistency and warnings count" in line


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (lambda w: np.where(np.arange(PEOPLE) == 7, -1.0, w), "'weight' holds '-1.0' at id 7; all"),
        (lambda w: w * 0, "every weight is 0; allowed: some above 0"),
        (lambda w: np.where(np.arange(PEOPLE) == 7, np.nan, w), "'weight' has no value at id 7"),
        (lambda w: np.where(np.arange(PEOPLE) == 7, np.inf, w), "holds 'inf' at id 7"),
        (lambda w: np.where(w > 1, "heavy", "light"), "is no weight needs another name"),
        (lambda w: np.where(UNFAIR["race"] == "c", 0, w), "every example of race 'c' has weight 0"),
    ],
)
def test_weights_that_are_none_are_refused(
    column: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"weight": column(weights())}
    sides = csv("a.csv", FAIR.assign(**own)), csv("b.csv", UNFAIR.assign(**own))
    assert said in refusal(capsys, *sides, "--attributes", "race")


def test_both_sides_weigh_an_example_alike(capsys: pytest.CaptureFixture[str]) -> None:
    w = weights()
    csv("a.csv", FAIR.assign(weight=w))
    csv("b.csv", UNFAIR)
    csv("c.csv", UNFAIR.assign(weight=np.where(np.arange(PEOPLE) < 2, w + 1, w)))
    assert "a.csv has a column 'weight' and b.csv has none" in refusal(capsys, "a.csv", "b.csv")
    line = refusal(capsys, "a.csv", "c.csv")
    assert "a.csv and c.csv weigh 2 examples differently, such as id 0, 1" in line
    shuffled = UNFAIR.assign(weight=w).sample(frac=1, random_state=0)
    sides = read_sides([["a.csv"], [shuffled]])
    assert sides.second.tables[0].weights is not None
    assert "weight" not in sides.attributes


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--positive", "hired"], "positive='hired' does not exist; did you mean 'hire'"),
        (["--positive", "hire", "--positive", "reject"], "positive"),
        (["--min_group_share", "2%"], "min_group_share='2%' is not allowed; allowed: 0 <= number"),
        (["--min_group_share", "1"], "min_group_share='1' is not allowed"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(capsys, csv("a.csv", FAIR), csv("b.csv", UNFAIR), *words)


def test_a_rate_needs_two_classes(capsys: pytest.CaptureFixture[str]) -> None:
    hired = [t.assign(label="hire").drop(columns="logits") for t in (FAIR, UNFAIR)]
    sides = csv("a.csv", hired[0]), csv("b.csv", hired[1])
    line = refusal(capsys, *sides, "--attributes", "race", "--positive", "hire")
    assert "positive='hire': labels are hire, so there is no rate of it" in line
    assert compare(*sides, "--attributes", "race") == 0
    assert "--positive names the favourable class" in capsys.readouterr().out


def test_ids_that_do_not_match_are_counted_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    sides = csv("a.csv", FAIR), csv("b.csv", UNFAIR.iloc[5:])
    line = refusal(capsys, *sides)
    assert "5 ids of a.csv are not in b.csv (such as 0, 1, 2)" in line
    csv("c.csv", UNFAIR.assign(id=UNFAIR["id"] + 2))
    line = refusal(capsys, "a.csv", "c.csv")
    assert "2 ids of a.csv are not in c.csv (such as 0, 1); 2 ids of c.csv are not in a.csv" in line
    csv("e.csv", FAIR.assign(weight=weights()))
    csv("f.csv", UNFAIR.assign(id=UNFAIR["id"] + 2, weight=weights()))
    assert "2 ids of e.csv are not in f.csv (such as 0, 1)" in refusal(capsys, "e.csv", "f.csv")
    other = UNFAIR.assign(label=UNFAIR["label"].where(UNFAIR["id"] != 9, "reject"))
    other.loc[9, "label"] = "reject" if FAIR.loc[9, "label"] == "hire" else "hire"
    csv("d.csv", other)
    assert "1 ids have another label (such as 9)" in refusal(capsys, "a.csv", "d.csv")


def test_a_file_of_one_column_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.csv").write_text("id;label;prediction\n1;hire;hire\n2;reject;hire\n")
    line = refusal(capsys, "a.csv", csv("b.csv", UNFAIR))
    assert "a.csv has one column ('id;label;prediction'); allowed: id, label and prediction" in line


def test_scores_of_a_regression_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = FAIR.drop(columns="logits").assign(
        label=range(PEOPLE), prediction=np.linspace(0, 9, 800)
    )
    csv("a.csv", table)
    line = refusal(capsys, "a.csv", "a.csv")
    assert "scores of a regression are not compared; allowed: classes, as names or" in line
