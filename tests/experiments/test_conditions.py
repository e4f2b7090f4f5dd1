"""Conditions in a study: further tables of its runs, measured with them or later."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.refusals import failure, last_line

from kdplatform import cli
from kdplatform.files import file_digest

pytestmark = pytest.mark.usefixtures("spared")

CONDITIONS = "pgd3: attack=pgd, eps=16/255, steps=3; dark: corruption=contrast, severity=5"
ROLES = ("teacher", "student", "distilled")


def table(place: Any, run: Any, condition: str) -> pd.DataFrame:
    return place.predictions(run, f"test.{condition}")


def accuracy(frame: pd.DataFrame) -> float:
    return float((frame["label"] == frame["prediction"]).mean())


@pytest.fixture
def measured(trained_place: Any, as_before: dict[str, str], capsys: Any) -> Any:
    """The trained study, asked for again with conditions."""
    words = {**as_before, "evaluation__conditions": CONDITIONS}
    assert trained_place.run("distill", **words) == 0
    return trained_place


def test_a_reused_run_is_measured_later_and_keeps_what_it_was(
    measured: Any, as_before: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    said = capsys.readouterr()
    runs = [run for role in ROLES for run in measured.runs(role)]
    assert len(runs) == 3
    for run in runs:
        digests = json.loads(run.data.tags["kd.artifact_digests"])
        for name in ("pgd3", "dark"):
            path = f"predictions/test.{name}.parquet"
            assert digests[path] == file_digest(measured.artifact(run, path))
            found, clean = table(measured, run, name), measured.predictions(run)
            assert found["id"].tolist() == clean["id"].tolist()
            assert found["color"].tolist() == clean["color"].tolist()
            metric = f"conditions/{name}/test/accuracy"
            assert run.data.metrics[metric] == pytest.approx(accuracy(found))
        assert accuracy(table(measured, run, "pgd3")) < accuracy(clean)
        assert "conditions/pgd3/fairness/color/dpd" in run.data.metrics
    distilled = measured.runs("distilled")[0]
    assert "conditions/pgd3/classwise/n_sc" in distilled.data.metrics
    assert "under pgd3 (pgd eps=16/255 steps=3):" in said.out
    command = measured.commands()[-1]
    expected = accuracy(table(measured, distilled, "dark"))
    logged = command.data.metrics["conditions/dark/distilled/test/accuracy"]
    assert logged == pytest.approx(expected)

    again = {**as_before, "evaluation__conditions": CONDITIONS}
    assert measured.run("distill", **again) == 0
    assert "are right" not in capsys.readouterr().err  # nothing is measured a second time
    assert len(measured.runs()) == 3


def test_other_settings_are_measured_anew_and_a_new_run_has_the_same_tables(
    trained_place: Any, as_before: dict[str, str]
) -> None:
    words = {"student__epochs": as_before["student__epochs"]}
    stronger, weaker = (f"pgd3: attack=pgd, eps={eps}/255, steps=3" for eps in (16, 1))
    assert trained_place.run("student", evaluation__conditions=stronger, **words) == 0
    [run] = trained_place.runs("student")
    before = table(trained_place, run, "pgd3")
    assert trained_place.run("student", evaluation__conditions=weaker, **words) == 0
    [run] = trained_place.runs("student")
    after = table(trained_place, run, "pgd3")
    assert accuracy(after) > accuracy(before)
    settings = json.loads(run.data.tags["kd.conditions"])
    assert settings["pgd3"]["eps"] == pytest.approx(1 / 255)

    again = {**words, "evaluation__conditions": weaker, "reuse": "false"}
    assert trained_place.run("student", **again) == 0
    old, new = trained_place.runs("student")
    one, other = (np.stack(table(trained_place, each, "pgd3")["logits"]) for each in (old, new))
    np.testing.assert_array_equal(one, other)
    metric = "conditions/pgd3/fairness/color/dpd"
    assert old.data.metrics[metric] == new.data.metrics[metric]
    assert new.data.tags["kd.conditions"] == old.data.tags["kd.conditions"]


def test_report_and_compare_take_a_condition(
    measured: Any, as_before: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {**as_before, "temperatures": "10"}
    del asked["temperature"]
    [student] = measured.runs("student")
    under = measured.folder / "under"
    assert measured.run("report", condition="pgd3", out=under, **asked) == 0
    rows = pd.read_csv(under / "runs.csv").set_index("role")
    expected = accuracy(table(measured, student, "pgd3"))
    assert rows.loc["student", "test/accuracy"] == pytest.approx(expected)
    assert "pgd3: pgd eps=16/255 steps=3" in (under / "report.md").read_text()
    plain = measured.folder / "plain"
    assert measured.run("report", out=plain, **asked) == 0
    rows = pd.read_csv(plain / "conditions.csv")
    assert rows["conditions/pgd3/test/accuracy"].to_list()[1] == pytest.approx(expected)
    capsys.readouterr()
    assert measured.run("report", condition="pgd4", **asked) == 2
    line = last_line(capsys)
    assert line.startswith("condition='pgd4' does not exist; did you mean 'pgd3'?")

    run = student.info.run_id
    assert cli.main(["compare", run, f"{run}@pgd3"]) == 0
    assert f"B: {run[:8]}@pgd3 (1 model)" in capsys.readouterr().out
    code, line = failure(["compare", run, f"{run}@fog"], capsys)
    assert (code, line[:45]) == (2, f"run {run}: condition='fog'"[:45])


def test_a_search_measures_no_condition(
    trained_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained_place.run("tune", evaluation__conditions=CONDITIONS) == 2
    line = last_line(capsys)
    assert line.startswith("evaluation.conditions is not for tune, which looks at validation data")


def test_tables_are_refused_before_anything_is_trained(
    trained_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data = trained_place.folder / "loans.csv"
    rows = [f"{i % 7},{i % 3},{'yes' if i % 2 else 'no'}" for i in range(60)]
    data.write_text("\n".join(["a,b,paid", *rows]))
    words = ["distill", "--project", "table", f"--dataset.file={data}", "--dataset.label=paid"]
    for more in (["--evaluation.conditions=x: attack=pgd"], ["--method=adversarial"]):
        assert cli.main([*words, "--attributes=none", *more]) == 2
        line = last_line(capsys)
        assert "changes images, and dataset table holds features of a table of shape" in line
    assert len(trained_place.runs()) == 3
