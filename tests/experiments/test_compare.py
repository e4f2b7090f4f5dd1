"""`kdplatform compare`: runs and files that need not come from this platform."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mlflow
import numpy as np
import pandas as pd
import pytest
from helpers.refusals import failure
from helpers.two_groups import two_groups

from kdplatform import cli
from kdplatform.analysis.disagreement import disagreement
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.individual_fairness import (
    factor_space,
    individual_unfairness,
    sample_pairs,
)
from kdplatform.analysis.significance import mcnemar_by_class
from kdplatform.experiments.compare import run_compare
from kdplatform.experiments.stored_predictions import TEST
from kdplatform.experiments.tracking import log_verified_artifacts
from kdplatform.files import file_digest
from kdplatform.predictions import Predictions

EXAMPLES, COLORS = 300, ("red", "green", "NA")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def predictions(accuracy: float, seed: int = 0, *, unfair: float = 0.0) -> pd.DataFrame:
    """Predictions of three classes, worse for red examples."""
    colors = np.random.default_rng(1).integers(0, 3, EXAMPLES)
    rng = np.random.default_rng(seed)
    labels = np.arange(EXAMPLES) % 3
    wrong = rng.random(EXAMPLES) > accuracy - unfair * (colors == 0)
    return pd.DataFrame(
        {
            "id": np.arange(EXAMPLES),
            "label": labels,
            "prediction": (labels + wrong) % 3,
            "color": np.array(COLORS)[colors],
            "brightness": rng.random(EXAMPLES),
            "name": np.array(["circle", "square", "star"])[labels],
        }
    )


def with_logits(table: pd.DataFrame) -> pd.DataFrame:
    logits = np.eye(3, dtype=np.float32)[table["prediction"]] * 2
    return table.assign(logits=list(logits))


def csv(name: str, table: pd.DataFrame) -> str:
    table.to_csv(name, index=False)
    return name


def compare(*words: str) -> int:
    return cli.main(["compare", *words])


def rows(folder: str = "out") -> pd.DataFrame:
    return pd.read_csv(Path(folder) / "verdicts.csv").set_index("what")


def test_two_files_are_compared_example_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = predictions(0.7, unfair=0.3), predictions(0.95, 1)
    b.sample(frac=1, random_state=0).to_parquet("b.parquet")
    assert compare(csv("a.csv", a), "b.parquet", "--out", "out") == 0
    found = rows()
    assert found.loc["accuracy", "verdict"] == "B better"
    assert found.loc["disagreement", "difference"] == pytest.approx(disagreement(a, b))
    metrics = fairness_metrics(a, "color"), fairness_metrics(b, "color")
    row = found.loc["EOD, color"]
    assert [row["a"], row["b"]] == pytest.approx([m.eod for m in metrics])
    assert row["low"] < row["difference"] < row["high"] < 0
    assert row["verdict"] == "B fairer"
    classes = pd.read_csv("out/classes.csv")
    assert classes["p_value"].tolist() == pytest.approx(mcnemar_by_class(a, b)["p_value"].tolist())
    printed = capsys.readouterr().out
    assert "One model on each side" in printed
    assert "B fairer" in printed
    assert (Path("out") / "comparison.html").read_text().startswith("<!doctype html>")


def test_groups_of_files_are_tested_over_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    sides = [
        ",".join(csv(f"{side}{i}.csv", predictions(accuracy, 10 * i + k)) for i in range(4))
        for k, (side, accuracy) in enumerate({"a": 0.7, "b": 0.9}.items())
    ]
    assert compare(*sides, "--out=out") == 0
    found = rows()
    assert found.loc["accuracy", "verdict"] == "B better"
    assert found.loc["classes that differ", "expected_by_chance"] == pytest.approx(0.15)
    assert 0 < found.loc["classes that differ", "p_value"] <= 1
    assert found.loc["disagreement", "a"] > found.loc["disagreement", "b"] > 0
    assert "p_holm" in pd.read_csv("out/classes.csv")
    assert "One model" not in capsys.readouterr().out


def test_one_model_against_several_has_no_class_tests(capsys: pytest.CaptureFixture[str]) -> None:
    several = ",".join(csv(f"b{i}.csv", predictions(0.8, i)) for i in range(3))
    assert compare(csv("a.csv", predictions(0.7, 9)), several, "--out", "out") == 0
    assert rows().loc["accuracy", "verdict"] == "no interval"
    assert "classes that differ" not in rows().index
    assert "p_value" not in pd.read_csv("out/classes.csv")
    assert "1 and 3 models: one side has no spread" in capsys.readouterr().out


def test_attributes_are_found_or_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    sides = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.8, 1))
    assert compare(*sides) == 0
    printed = capsys.readouterr().out
    assert "EOD, color" in printed  # a group may be called NA
    assert "color: 3 groups" in printed
    assert "EOD, brightness" not in printed  # a measurement
    assert "EOD, name" not in printed  # the label under another name
    assert "brightness (fractions), name (the label under another name); --attr" in printed
    assert compare(*sides, "--attributes", " color ") == 0
    assert "EOD, color" in capsys.readouterr().out


def named(table: pd.DataFrame) -> pd.DataFrame:
    names = np.array(["square", "circle", "star"])
    return table.assign(label=names[table["label"]], prediction=names[table["prediction"]])


def test_classes_may_be_names() -> None:
    a, b = predictions(0.7).drop(columns="name"), predictions(0.8, 1).drop(columns="name")
    assert compare(csv("a.csv", a), csv("b.csv", b), "--out", "numbers") == 0
    assert compare(csv("a.csv", named(a)), csv("b.csv", named(b)), "--out", "names") == 0
    columns = ["a", "b", "difference"]
    numbers, names = (rows(folder)[columns].astype(float) for folder in ("numbers", "names"))
    pd.testing.assert_frame_equal(names, numbers, atol=0.02)
    classes = pd.read_csv("names/classes.csv").set_index("name")["accuracy_a"]
    assert list(classes.index) == ["circle", "square", "star"]
    right = a["label"] == a["prediction"]
    assert classes["square"] == pytest.approx(right[a["label"] == 0].mean())
    assert "square" in Path("names/comparison.html").read_text()


def test_blanks_behind_commas_belong_to_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (named(predictions(accuracy, seed)) for accuracy, seed in ((0.7, 0), (0.8, 1)))
    table = csv("a.csv", a[a.columns[::-1]])
    text = Path(table).read_text()
    assert compare(table, csv("b.csv", b)) == 0
    plain = capsys.readouterr().out
    Path(table).write_text(text.replace(",", ", "))
    assert compare(table, "b.csv") == 0
    assert capsys.readouterr().out == plain


def test_quotes_behind_blanks_are_quotes() -> None:
    lines = ["id, label, prediction, logits"]
    lines += [f'{i}, {i % 2}, {i % 2}, "[{1 - i % 2}.5, {i % 2}.5]"' for i in range(40)]
    Path("a.csv").write_text("\n".join(lines))
    assert compare("a.csv", "a.csv", "--out", "out") == 0
    assert rows().loc["NLL", "a"] == pytest.approx(np.log1p(np.exp(-1)))


def test_a_class_without_a_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    a = named(predictions(0.7))
    a.loc[7, "prediction"] = None
    line = refusal(capsys, csv("a.csv", a), csv("b.csv", named(predictions(0.8, 1))))
    assert "a.csv: column 'prediction' has no value in row 8" in line


def test_a_column_of_numbers_and_one_text_is_text() -> None:
    table = predictions(0.7).assign(id=[*map(str, range(EXAMPLES - 1)), "z"])
    assert compare(csv("a.csv", table), csv("b.csv", table.iloc[::-1])) == 0


def test_long_numbers_are_ids_to_the_last_digit() -> None:
    table = predictions(0.7).assign(id=[10**25 + number for number in range(EXAMPLES)])
    assert compare(csv("a.csv", table), csv("b.csv", table.iloc[::-1])) == 0


def test_names_with_commas_stand_in_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    sides = [
        csv(f"{i}, old.csv", predictions(0.8, i).rename(columns={"color": "a, b"})) for i in (0, 1)
    ]
    assert compare(*(f'"{side}"' for side in sides), "--attributes", '"a, b"') == 0
    assert "EOD, a, b" in capsys.readouterr().out


def test_columns_of_lists_are_no_attributes(capsys: pytest.CaptureFixture[str]) -> None:
    for name, table in (("a.parquet", predictions(0.7)), ("b.parquet", predictions(0.8, 1))):
        table.assign(tags=[["x"]] * len(table)).to_parquet(name)
    assert compare("a.parquet", "b.parquet") == 0
    capsys.readouterr()
    line = refusal(capsys, "a.parquet", "b.parquet", "--attributes", "tags")
    assert "attribute 'tags' holds values of type" in line


def test_levelling_down_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = predictions(0.99, unfair=0.5), predictions(0.3, 1)
    assert compare(csv("a.csv", a), csv("b.csv", b)) == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("accuracy gap, color")]
    assert line.endswith("(levelling down)")


def test_models_that_agree_everywhere_are_undecided() -> None:
    table = predictions(0.8)
    assert compare(csv("a.csv", table), csv("b.csv", table), "--out", "out") == 0
    verdicts = rows()["verdict"].dropna()
    assert set(verdicts) <= {"undecided", "no interval"} | {
        "McNemar, these two models",
        "undecided, these two models",
    }
    assert rows().loc["disagreement", "difference"] == 0


def test_predictions_that_are_all_equal_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    same = predictions(0.8).assign(prediction=0)
    assert compare(csv("a.csv", same), csv("b.csv", predictions(0.8)), "--out", "out") == 0
    printed = capsys.readouterr().out
    assert printed.startswith(
        "WARNING: A (a.csv) predicts class 0 for every example; that looks fa"
    )
    assert rows().loc["DPD, color", "a"] == 0
    assert compare("b.csv", "a.csv") == 0
    [first, *others] = capsys.readouterr().out.splitlines()
    assert first.startswith("WARNING: B (a.csv) predicts class 0 for every example")
    assert not any(line.startswith("- EOD by color got better") for line in others)


def test_models_of_a_side_are_named_by_their_place_and_paired_by_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    same = csv("same.csv", predictions(0.8).assign(prediction=0))
    others = [csv(f"{seed}.csv", predictions(0.7 + seed / 20, seed)) for seed in range(3)]
    assert compare(f"{others[0]},{same}", f"{others[1]},{others[2]}") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("WARNING: A (0.csv, same.csv) model 2 predicts class 0 for every")
    assert "Intervals pair the models of A and B in the given order" in printed
    assert compare(others[0], others[1]) == 0
    assert "in the given order" not in capsys.readouterr().out


def test_sides_and_seeds_of_equal_predictions_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.8, 1))
    copy = csv("copy.csv", predictions(0.7).sample(frac=1, random_state=0))
    assert compare(a, copy) == 0
    [first, *_] = capsys.readouterr().out.splitlines()
    assert first.startswith("WARNING: A and B predict the same class for every example")
    assert compare(f"{a},{copy}", b) == 0
    [first, *_] = capsys.readouterr().out.splitlines()
    assert first.startswith("WARNING: A has 2 models and 1 different predictions; equal ones say")
    assert compare(a, b) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_a_group_of_one_example_is_listed_and_counts_only_when_asked_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lonely(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(color=table["color"].where(table["id"] != 3, "purple"))

    sides = [csv(f"{i}.csv", lonely(predictions(0.8, i))) for i in range(2)]
    assert compare(*sides, "--out", "out") == 0
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("color: purple (1) is smaller than 30")]
    assert line.endswith("; --min_group_size 1 counts them.")
    expected = fairness_metrics(lonely(predictions(0.8, 0)), "color", min_group_size=2).dpd
    assert rows().loc["DPD, color", "a"] == pytest.approx(expected)
    assert compare(*sides, "--min_group_size", "1") == 0
    printed = capsys.readouterr().out
    assert "color: 4 groups, the smallest of 1 examples." in printed
    assert "leaves out purple" in printed


def test_groups_that_are_all_too_small_have_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    sides = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.8, 1))
    assert compare(*sides, "--min_group_size=200") == 0
    printed = capsys.readouterr().out
    assert "no group is left to measure" in printed
    assert "EOD, color" not in printed


def test_ids_may_be_numbers_in_one_file_and_text_in_the_other() -> None:
    a, b = predictions(0.7), predictions(0.9, 1)
    b.assign(id=b["id"].astype(str)).to_parquet("b.parquet")
    assert compare(csv("a.csv", a), "b.parquet", "--out", "out") == 0
    assert rows().loc["disagreement", "difference"] == pytest.approx(disagreement(a, b))


def test_logits_are_scored_where_both_sides_have_them() -> None:
    a = with_logits(predictions(0.7))
    b = with_logits(predictions(0.9, 1))
    a.assign(logits=[list(map(float, row)) for row in a["logits"]]).to_csv("a.csv", index=False)
    b.to_parquet("b.parquet")
    assert compare("a.csv", "b.parquet", "--out", "out") == 0
    assert rows().loc["NLL", "b"] < rows().loc["NLL", "a"]
    assert compare("a.csv", csv("c.csv", predictions(0.9, 1)), "--out", "other") == 0
    assert "NLL" not in rows("other").index


def test_scores_of_probabilities_have_intervals_over_examples() -> None:
    with_logits(predictions(0.6)).to_parquet("a.parquet")
    with_logits(predictions(0.95, 1)).to_parquet("b.parquet")
    assert compare("a.parquet", "b.parquet", "--out", "out") == 0
    for score in ("Brier score", "NLL"):
        row = rows().loc[score]
        assert row["low"] < row["difference"] < row["high"] < 0
        assert row["verdict"] == "B better"
    assert np.isnan(rows().loc["ECE", "low"])


def test_differences_of_accuracies_end_at_one_hundred_points() -> None:
    for seed, rights in enumerate(((0.0, 1.0), (0.9, 0.95))):
        for side, right in zip("ab", rights, strict=True):
            table = predictions(right, seed).drop(columns=["color", "name"])
            if right == 0:
                table["prediction"] = (table["label"] + 1).where(
                    table["id"] > 5, table["label"]
                ) % 3
            csv(f"{side}{seed}.csv", table)
    assert compare("a0.csv,a1.csv", "b0.csv,b1.csv", "--out", "out") == 0
    row = rows().loc["accuracy"]
    assert row["low"] < 0 < row["difference"] < row["high"] == 1.0


def test_pairs_of_attributes_are_compared_too() -> None:
    sizes = np.random.default_rng(2).choice(["big", "small"], EXAMPLES)
    for name, accuracy in (("a.csv", 0.7), ("b.csv", 0.9)):
        csv(name, predictions(accuracy, unfair=0.2).assign(size=sizes))
    assert compare("a.csv", "b.csv", "--attributes", "color,size", "--out", "out") == 0
    table = pd.read_csv("a.csv", keep_default_na=False)
    expected = fairness_metrics(table, ("color", "size")).dpd
    assert rows().loc["DPD, color & size", "a"] == pytest.approx(expected)


def test_similar_examples_are_compared_by_the_columns_named() -> None:
    for seed in range(3):
        csv(f"a{seed}.csv", predictions(0.6, seed))
        csv(f"b{seed}.csv", predictions(0.98, seed + 10))
    sides = [",".join(f"{side}{seed}.csv" for seed in range(3)) for side in "ab"]
    assert compare(*sides, "--similar_by", "name,color", "--out", "out") == 0
    table = pd.read_csv("a0.csv", keep_default_na=False)
    space = factor_space(table, ["name", "color"])
    pairs = sample_pairs(space)
    tables = [pd.read_csv(f"a{seed}.csv", keep_default_na=False) for seed in range(3)]
    expected = [individual_unfairness(t, pairs, output="labels").unfairness for t in tables]
    row = rows().loc["I(f) on labels"]
    assert row["a"] == pytest.approx(np.mean(expected))
    assert row["verdict"] == "B better"
    assert rows().loc["consistency", "verdict"] == "B better"
    assert "I(f) on probabilities" not in rows().index


def test_a_column_of_whole_numbers_with_a_gap_has_groups(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, table in (("a", predictions(0.7)), ("b", predictions(0.8, 1))):
        # pandas makes fractions of them, in CSV and in Parquet.
        size = (table["id"] % 2).where(table["id"] != 7).astype(float)
        csv(f"{name}.csv", table.assign(size=size))
        table.assign(size=size).to_parquet(f"{name}.parquet")
    for kind in ("csv", "parquet"):
        assert compare(f"a.{kind}", f"b.{kind}", "--out", kind) == 0
        printed = capsys.readouterr().out
        assert "size: 2 groups, the smallest of 149 examples." in printed
        assert "size: 1 of 300 examples are in no group." in printed
        found = rows(kind)
        expected = fairness_metrics(table.assign(size=size), "size").dpd
        assert found.loc["DPD, size", "b"] == pytest.approx(expected)
        assert found.loc["DPD, size", ["n", "in_no_group"]].tolist() == [299, 1]
        assert found.loc["DPD, color", "in_no_group"] == 0


def test_columns_that_are_not_compared_are_listed_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a = predictions(0.7).assign(age=np.arange(EXAMPLES) % 30, one="x", extra=["p", "q", "r"] * 100)
    b = predictions(0.8, 1).assign(age=a["age"], one="x", **{"a b": ["p", "q"] * 150})
    assert compare(csv("a.csv", a), csv("b.csv", b)) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if "Not compared" in line]
    assert line == (
        "Not compared by group: brightness (fractions), name (the label under another name), age "
        "(30 values), one (fewer than two values), extra (the label under another name), a b (not "
        "in a.csv); --attributes names columns that are; put numbers into bands first."
    )


def test_fairness_is_explained_only_if_groups_are_compared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b = (csv(f"{i}.csv", predictions(0.8, i)) for i in range(2))
    explained = "EOD, DPD, gap, ratios and similar metrics: B is called fairer"
    assert compare(a, b) == 0
    printed = capsys.readouterr().out
    assert explained in printed
    assert "Values are in %, except ratios, ECE, Brier score, NLL, I(f) and consi" in printed
    assert compare(a, b, "--attributes", "none") == 0
    assert explained not in capsys.readouterr().out


def test_a_form_of_no_page_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (csv(f"{i}.csv", predictions(0.8, i)) for i in range(2))
    assert refusal(capsys, a, b, "--format", "latex").endswith(
        "format='latex' has nowhere to go; allowed: with out=folder, or a run of its own"
    )


def test_columns_beside_the_named_ones_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = (predictions(0.7 + i / 10, i).assign(prob_0=0.5, sex=["f", "m"] * 150) for i in (0, 1))
    assert compare(csv("a.csv", a), csv("b.csv", b), "--attributes", "sex") == 0
    printed = capsys.readouterr().out
    [line] = [line for line in printed.splitlines() if "because not named" in line]
    assert "prob_0" in line
    assert "sex" not in line


def test_pairs_of_many_attributes_are_left_out_with_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = {f"c{i}": np.random.default_rng(i).integers(0, 2, EXAMPLES) for i in range(4)}
    sides = [csv(f"{i}.csv", predictions(0.8, i).assign(**more)) for i in range(2)]
    assert compare(*sides) == 0
    assert "Pairs of the 5 attributes are not compared" in capsys.readouterr().out


def test_scores_that_one_side_cannot_have_are_left_out_with_a_word(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_logits(predictions(0.7)).to_parquet("a.parquet")
    assert compare("a.parquet", csv("b.csv", predictions(0.8, 1))) == 0
    printed = capsys.readouterr().out
    assert "b.csv has no column 'logits', so ECE, Brier score and NLL are not measured;" in printed
    assert "I(f): not measured; --similar_by names" in printed


def test_blanks_around_names_belong_to_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    def blank(table: pd.DataFrame) -> pd.DataFrame:
        padded = {name: " " + table[name] + " " for name in ("label", "prediction", "color")}
        return table.assign(**padded).rename(columns={"color": " color"})

    a, b = named(predictions(0.7)), named(predictions(0.8, 1))
    for name, table in (("b", b), ("c", blank(b))):
        table.to_parquet(f"{name}.parquet")
    csv("c.csv", blank(b))
    assert compare(csv("a.csv", a), "b.parquet") == 0
    plain = capsys.readouterr().out
    for file in ("c.parquet", "c.csv"):
        assert compare("a.csv", file) == 0
        assert capsys.readouterr().out.replace(file, "b.parquet") == plain


def test_a_class_that_is_predicted_and_no_label_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a, b = named(predictions(0.7)), named(predictions(0.8, 1))
    b.loc[0, "prediction"] = "cube"
    assert compare(csv("a.csv", a), csv("b.csv", b)) == 0
    assert (
        "b.csv: class cube is predicted but is never a label, so these predictions are always "
        "wrong." in capsys.readouterr().out
    )


def test_letters_of_both_sizes_may_be_classes() -> None:
    sides = []
    for i in range(2):
        table = predictions(0.8, i).drop(columns="name")
        names = np.array(["a", "A", "b"])
        both = {column: names[table[column]] for column in ("label", "prediction")}
        sides.append(csv(f"{i}.csv", table.assign(**both)))
    assert compare(*sides, "--out", "out") == 0
    assert list(pd.read_csv("out/classes.csv")["name"]) == ["A", "a", "b"]


# ---- what is refused


def test_a_class_in_two_spellings_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = named(predictions(0.7)), named(predictions(0.8, 1))
    b["prediction"] = b["prediction"].replace("circle", "Circle")
    line = refusal(capsys, csv("a.csv", a), csv("b.csv", b))
    assert "classes 'Circle' and 'circle' look alike, and not all of them are labels of a.csv" in (
        line
    )


def test_predictions_that_name_no_label_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = predictions(0.7), predictions(0.8, 1)
    line = refusal(capsys, csv("a.csv", a), csv("b.csv", b.assign(prediction=b["prediction"] + 3)))
    assert "b.csv: no prediction is one of the labels" in line


def unseen(table: pd.DataFrame, width: int) -> pd.DataFrame:
    """Logits in a wider table of classes than the names that occur."""
    logits = np.zeros((len(table), width), dtype=np.float32)
    logits[np.arange(len(table)), table["prediction"]] = 5
    return named(table).assign(logits=list(logits))


@pytest.mark.parametrize(("width", "right"), [(4, 0.8), (2, 1.0)])
def test_more_or_fewer_logits_than_names_are_refused(
    width: int, right: float, capsys: pytest.CaptureFixture[str]
) -> None:
    table = predictions(right)
    if width == 2:  # one of three classes is never predicted, and has no logit
        table = table.assign(prediction=0)
    names = np.array(["circle", "square", "star"])
    logits = 5 * np.eye(width, dtype=np.float32)[table["prediction"]]
    both = {column: names[table[column]] for column in ("label", "prediction")}
    table.assign(**both, logits=list(logits)).to_parquet("a.parquet")
    said = f"a.parquet: {width} logits, and the tables name 3 classes (circle, square, star)"
    if width == 2:
        said = "a.parquet: class 2 has no logit; allowed: 0 to 1"
    assert said in refusal(capsys, "a.parquet", "a.parquet")


def test_logits_in_another_order_than_the_names_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    unseen(predictions(0.8), 3).to_parquet("a.parquet")  # square, circle, star
    line = refusal(capsys, "a.parquet", "a.parquet")
    assert "a.parquet: id 0: the largest of 3 logits is that of class 0, the prediction is 1" in (
        line
    )
    assert "3 classes are named, in this order: circle, square, star" in line


def test_probabilities_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    table = predictions(0.8)
    odds = np.full((EXAMPLES, 3), 0.1)
    odds[np.arange(EXAMPLES), table["prediction"]] = 0.8
    table.assign(logits=list(odds)).to_parquet("a.parquet")
    assert "a.parquet: logits of every row are at least 0 and add up to 1" in refusal(
        capsys, "a.parquet", "a.parquet"
    )


def test_logits_of_other_classes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with_logits(predictions(0.8)).to_parquet("a.parquet")
    wide = [[*row, -9.0] for row in with_logits(predictions(0.7, 1))["logits"]]
    predictions(0.7, 1).assign(logits=wide).to_parquet("b.parquet")
    line = refusal(capsys, "a.parquet", "b.parquet")
    assert (
        "b.parquet has logits of 4 classes, another table of 3; allowed: the same classes" in line
    )


def test_an_index_of_ids_is_a_column_and_columns_of_one_name_are_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    predictions(0.7).set_index("id").to_parquet("a.parquet")
    assert compare("a.parquet", csv("b.csv", predictions(0.8, 1))) == 0
    capsys.readouterr()
    predictions(0.7).rename(columns={"name": " color"}).to_parquet("c.parquet")
    assert "c.parquet has column 'color' twice" in refusal(capsys, "c.parquet", "b.csv")


def test_a_line_with_a_cell_too_many_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path(csv("a.csv", predictions(0.7))).read_text().splitlines()
    Path("b.csv").write_text("\n".join([lines[0], *(f"{line}," for line in lines[1:])]))
    assert "'b.csv', line 2: 7 cells; allowed: 6, one per column" in refusal(
        capsys, "a.csv", "b.csv"
    )


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code, line = failure(["compare", *words], capsys)
    assert code == 2
    return line


def test_different_examples_are_refused_with_their_digests(
    capsys: pytest.CaptureFixture[str],
) -> None:
    a = predictions(0.7)
    line = refusal(capsys, csv("a.csv", a), csv("b.csv", a.assign(id=a["id"] + 1)))
    assert "different examples: a.csv has digest" in line
    assert line.count("(300 rows)") == 2


def test_another_label_of_an_example_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    a = predictions(0.7)
    relabelled = a.assign(label=a["label"].where(a["id"] != 5, 0))
    assert "digest" in refusal(capsys, csv("a.csv", a), csv("b.csv", relabelled))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(id=t["id"].replace(4, 3)), "id 3 occurs more than once"),
        (lambda t: t.drop(columns="prediction"), "lacks column 'prediction'"),
        (lambda t: t.drop(columns="label"), "lacks column 'label'"),
        (lambda t: t.assign(label=t["label"].where(t["id"] != 4)), "'label' has no value in row 5"),
        (lambda t: t.assign(label=t["label"] + 0.5), "holds 0.5: scores of a regression"),
        (lambda t: t.assign(label="circle"), "has numbers; allowed: the same"),
        (lambda t: t.set_axis([*t.columns[:-1], "label"], axis=1), "column 'label' twice"),
        (lambda t: t.assign(prediction=-1), "holds -1"),
        (lambda t: t.iloc[:0], "no lines of data"),
        (lambda t: t.assign(logits="[1, NaN, 0]"), "logits of row 0 are not finite"),
        (lambda t: t.assign(logits="1 2 3"), "are not a list of numbers"),
        (lambda t: t.assign(logits="[" * 100_000), "are not a list of numbers"),
        (lambda t: t.assign(logits="[1]"), "allowed: one length, at least 2"),
    ],
)
def test_a_table_that_is_none_is_refused_by_name(
    change: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    a = predictions(0.7)
    line = refusal(capsys, csv("a.csv", a), csv("bad.csv", change(a)))
    assert "bad.csv" in line
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "two sides, 0 are given"),
        (["a.csv"], "two sides, 1 are given"),
        (["a.csv", "b.csv", "a.csv"], "two sides, 3 are given"),
        (["a.csv", "missing.csv"], "missing.csv is no file"),
        (["a.csv", "broken.parquet"], "broken.parquet cannot be read"),
        (["a.csv", "a.txt"], "'a.txt' is neither a run id nor a prediction file"),
        (["a.csv,./a.csv", "b.csv"], "names the same predictions twice"),
        (["a.csv", ","], "is empty"),
        (["a.csv", "b.csv", "--attributes", "colour"], "attributes='colour' is not a column"),
        (["a.csv", "b.csv", "--attributes", "label"], "attributes='label' is not a column"),
        (["a.csv", "b.csv", "--attributes", '"color'], 'one with a comma: "a, b",c'),
        (["a.csv", "b.csv", "--attributes", "color,color"], "attributes has 'color' twice"),
        (["a.csv", "b.csv", "--attributes", "name"], "attribute 'name' is the label under another"),
        (["a.csv", "b.csv", "--seeds", "3"], "No such option"),
        (
            ["a.csv", "b.csv", "--min_group_size", "0"],
            "min_group_size='0' is not allowed; allowed: ",
        ),
        (["a.csv", "b.csv", "--min_group_size", "9" * 5000], "allowed: integer >= 1"),
        (["a.csv", "b.csv", "--out"], "--out is given without a value"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    csv("a.csv", predictions(0.7))
    csv("b.csv", predictions(0.8, 1))
    Path("broken.parquet").write_bytes(b"no parquet")
    assert said in refusal(capsys, *words)


def test_groups_that_differ_between_files_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = predictions(0.7), predictions(0.8, 1)
    b["color"] = b["color"].to_numpy()[::-1]
    line = refusal(capsys, csv("a.csv", a), csv("b.csv", b))
    assert "disagree on the groups of 'color'" in line


# ---- runs


def log_run(
    table: pd.DataFrame, folder: Path, names: Sequence[str] = (), experiment_id: str | None = None
) -> str:
    Predictions.of(with_logits(table)).write(folder / TEST)
    with mlflow.start_run(experiment_id=experiment_id) as run:
        mlflow.set_tags(log_verified_artifacts(folder))
        if names:
            mlflow.log_table(pd.DataFrame({"name": names}), "classwise.json")
        mlflow.log_metric("fairness/color/dpd", 0.1)
        return str(run.info.run_id)


def test_runs_are_paired_by_their_seeds(
    new_place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def runs(side: str, accuracies: Sequence[float]) -> list[str]:
        found = []
        for seed, accuracy in enumerate(accuracies):
            found.append(log_run(predictions(accuracy, seed), tmp_path / f"{side}{seed}"))
            new_place.client.set_tag(found[-1], "kd.seed", str(seed))
        return found

    a, b = runs("a", [0.6, 0.7, 0.8]), runs("b", [0.65, 0.75, 0.85])
    ordered = ([",".join(a), ",".join(b)], [",".join(a[::-1]), ",".join([b[1], b[0], b[2]])])
    found = []
    for number, sides in enumerate(ordered):
        run_compare(sides, out=f"out{number}")
        found.append(rows(f"out{number}").loc["accuracy", ["low", "high"]].tolist())
        assert ("ordered by their seeds" in capsys.readouterr().err) == (number == 1)
    assert found[0] == pytest.approx(found[1])
    new_place.client.set_tag(b[0], "kd.seed", "7")
    run_compare(ordered[0], out="out2")
    assert (
        "seeds 0, 1, 2 and 7, 1, 2: they are paired in the order given" in capsys.readouterr().err
    )


def test_runs_and_files_are_compared_alike(
    new_place: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = predictions(0.7, unfair=0.3), predictions(0.95, 1)
    run = log_run(a, tmp_path / "logged")
    run_compare([run, csv("b.csv", b)], out="out")
    assert rows().loc["EOD, color", "verdict"] == "B fairer"
    assert f"A: {run[:8]} (1 model)" in capsys.readouterr().out
    # The names that a run has give its files' classes their numbers.
    order = ["square", "circle", "star"]
    with_names = log_run(a, tmp_path / "named", order)
    csv("named.csv", named(b))
    run_compare([with_names, "named.csv"], out="named")
    values = ["a", "b", "low", "high"]
    assert list(rows("named").loc["accuracy", values]) == list(rows().loc["accuracy", values])
    assert list(pd.read_csv("named/classes.csv")["name"]) == order
    other = log_run(b, tmp_path / "other", order[::-1])
    capsys.readouterr()
    line = refusal(capsys, with_names, other)
    assert f"run {other} star, circle, square; allowed: the same classes in the same order" in line
    csv("cube.csv", named(b).replace("star", "stare"))
    assert ": class='stare' does not exist; did you mean 'star'" in refusal(
        capsys, with_names, "cube.csv"
    )
    new_place.artifact(new_place.client.get_run(run), TEST).write_bytes(b"altered")
    assert "its predictions are not what was logged" in refusal(capsys, run, "b.csv")
    with mlflow.start_run() as empty:
        pass
    assert f"it has logged no {TEST}" in refusal(capsys, empty.info.run_id, "b.csv")
    assert "is not in the tracking store" in refusal(capsys, "0" * 32, "b.csv")


def test_the_group_that_got_worse_leads_what_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = (csv(f"{name}.csv", table) for name, table in zip("ab", two_groups(), strict=True))
    assert compare(*sides, "--out", "out") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(
        "- sex f got worse: 95.1 to 84.9% (-10.2, -12.0 to -8.3; Holm p < .0"
    )
    assert lines[1].startswith("- sex m got better: 83.7 to 95.2%")
    assert lines[2].startswith("- Undecided: 2 of 2 classes, accuracy, EOD by sex, DPD by sex")
    row = rows().loc["groups that changed"]
    assert row[["difference", "tested", "after_holm"]].tolist() == [2, 2, 2]
    assert row["verdict"] == "groups differ, these two models"
    shifts = pd.read_csv(Path("out") / "group_shifts.csv")
    [own] = shifts[(shifts["kind"] == "group") & (shifts["group"] == "f")].to_dict("records")
    assert own["verdict"] == "worse"


def test_a_count_of_zero_is_no_all_clear(capsys: pytest.CaptureFixture[str]) -> None:
    a = predictions(0.9)
    b = a.assign(prediction=a["prediction"].where(a["id"] > 2, (a["prediction"] + 1) % 3))
    assert compare(csv("a.csv", a), csv("b.csv", b)) == 0
    printed = capsys.readouterr().out
    assert "0 of 3 (0 by chance, 0 after BH, 0 after Holm)" in printed
    assert "In 3 of 3 tests of a class the models differ on too few examples for p < .05." in (
        printed
    )
    assert "Could have hidden (power .8): a change of a class by 7.9 points." in printed


def gate(text: str) -> str:
    Path("gates.yaml").write_text(text)
    return "gates.yaml"


def test_a_gate_that_fails_ends_with_3_and_a_line_per_broken_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sides = csv("a.csv", predictions(0.95)), csv("b.csv", predictions(0.7, 1, unfair=0.3))
    rules = gate(
        "date: 2026-11-26\nrules:\n  accuracy: {max_drop: 0.02}\n"
        "  worst_group_drop: {max: 0.02}\n  fairness/color/eod: {max: 1}\n"
    )
    assert compare(*sides, "--gate", rules, "--out", "out") == 3
    *broken, last = capsys.readouterr().err.splitlines()
    assert [line.partition(" max")[0] for line in broken] == [
        *("failed: side B: test/accuracy", "failed: side B: worst_group_drop")
    ]
    assert last == (
        "kdplatform: gate failed: 2 of 3 rules broken (gates.yaml, thresholds of 2026-11-26)"
    )
    found = json.loads(Path("out/gate.json").read_text())
    assert (found["outcome"], found["thresholds"]["reference"]) == ("failed", "side A")
    suite = ElementTree.parse("out/gate.junit.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "2")


def test_a_gate_that_passes_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    sides = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.95, 1))
    assert compare(*sides, "--gate", gate("rules: {accuracy: {max_drop: 0}}")) == 0
    assert "gate passed: 0 of 1 rules broken" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("{fairness/colour/eod: {max: 1}}", "did you mean 'fairness/color/eod'"),
        ("{n_tc: {max: 1}}", "did you mean 'n_sc'"),
        ("{accuracy: {min: 0.9, max: 0.5}}", "min 0.9 is above max 0.5"),
    ],
)
def test_rules_that_cannot_be_are_refused_before_anything_is_compared(
    rules: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sides = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.8, 1))
    code, line = failure(["compare", *sides, "--gate", gate(f"rules: {rules}")], capsys)
    assert code == 2
    assert said in line


def test_a_file_where_the_report_would_go_is_refused_before_sides_are_read(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("taken").touch()
    for out in ("taken", "taken/below"):
        line = refusal(capsys, "none.csv", "none.csv", "--out", out)
        assert line == f"out={out!r}: 'taken' is a file; allowed: a folder, which need not exist"


def test_a_card_that_has_nowhere_to_go_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(variable, raising=False)
    sides = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.8, 1))
    assert "card=true has nowhere to go" in refusal(capsys, *sides, "--card", "true")


def test_a_comparison_says_what_it_rests_on() -> None:
    sides = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.95, 1))
    assert compare(*sides, "--out", "out", "--gate", gate("rules: {accuracy: {min: 0.5}}")) == 0
    found = json.loads(Path("out/provenance.json").read_text())
    [a], [b] = found["sides"]["A"], found["sides"]["B"]
    assert [a["predictions_sha256"], b["predictions_sha256"]] == [
        file_digest(Path(side)) for side in sides
    ]
    assert "better: accuracy" in found["verdict"]
    assert found["thresholds"] == {
        "file": "gates.yaml", "sha256": file_digest(Path("gates.yaml")), "date": None,
        "outcome": "passed",
    }  # fmt: skip
    assert {"kdplatform", "Python", "numpy", "scipy"} <= found["versions"].keys()
    assert a["predictions_sha256"] in Path("out/comparison.html").read_text()


def test_sides_may_be_given_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.8, 1))
    assert compare("--a", a, "--b", b) == 0
    by_name = capsys.readouterr().out
    assert compare(a, b) == 0
    assert capsys.readouterr().out == by_name
    code, line = failure(["compare", a, b, "--a", a], capsys)
    assert (code, "--a or --b and without" in line) == (2, True)
    code, line = failure(["compare", "--a", a], capsys)
    assert (code, "compare takes two sides, 1 are given" in line) == (2, True)


def test_files_alone_leave_no_run_behind(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    sides = csv("a.csv", predictions(0.7)), csv("b.csv", predictions(0.8, 1))
    assert compare(*sides) == 0
    assert not Path("mlflow.db").exists()
    capsys.readouterr()
    code, line = failure(["compare", *sides, "--log", "maybe"], capsys)
    assert (code, "log='maybe' is not allowed" in line) == (2, True)


def test_a_comparison_is_a_run_of_its_own(new_place: Any, tmp_path: Path) -> None:
    project = new_place.client.create_experiment("small")
    a, b = predictions(0.95), predictions(0.7, 1)
    mlflow_run = log_run(b, tmp_path / "logged", experiment_id=project)
    rules = gate("rules: {accuracy: {min: 0.99}}")
    assert compare(csv("a.csv", a), mlflow_run, "--gate", rules) == 3
    [run] = new_place.runs("comparison")
    assert run.info.status == "FINISHED"
    assert run.info.experiment_id == project
    tags, metrics = run.data.tags, run.data.metrics
    assert (tags["kd.a"], tags["kd.b"], tags["kd.gate"]) == ("a.csv", mlflow_run, "failed")
    assert tags["kd.verdict"].startswith("worse: accuracy")
    assert f"#/experiments/{project}/runs/{mlflow_run}" in tags["mlflow.note.content"]
    accuracies = [(t["label"] == t["prediction"]).mean() for t in (a, b)]
    assert [metrics["a/test/accuracy"], metrics["b/test/accuracy"]] == pytest.approx(accuracies)
    assert metrics["difference/test/accuracy"] == pytest.approx(accuracies[1] - accuracies[0])
    assert "classwise/n_sc" in metrics
    folder = new_place.artifact(run, "")
    assert (folder / "comparison" / "comparison.html").is_file()
    rests_on = json.loads((folder / "comparison" / "provenance.json").read_text())
    assert rests_on["sides"]["B"][0]["run_id"] == mlflow_run
    assert (folder / "gate" / "gate.junit.xml").is_file()
