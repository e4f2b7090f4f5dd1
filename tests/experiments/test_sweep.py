"""The study as steps, and what a sweep logs; its steps run in this process, one after the other."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pandas as pd
import pytest
from helpers.inline import Ended, run_inline
from helpers.place import copied, spare_figures_and_graphs
from scipy import stats

from kdplatform.errors import UserError
from kdplatform.experiments import commands, logged_models, progress, records
from kdplatform.experiments.graph import study_steps
from kdplatform.experiments.results import step_scale
from kdplatform.roles import Role
from kdplatform.settings.project import load_project

TEMPERATURES, SEEDS = (1.0, 2.5), (0, 1)


def config(**overrides: str) -> Any:
    return load_project("digits", {"temperatures": "1,2.5", "seeds": "0-1", **overrides})


@dataclass(frozen=True)
class Story:
    """The same sweep three times: a teacher fails, it is tried again, nothing is left to do."""

    place: Any
    failed: Ended
    mended: Ended
    repeated: Ended


@pytest.fixture(scope="module")
def story(empty_place: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    place = type(empty_place)(tmp_path_factory.mktemp("sweep"))
    shutil.copy(empty_place.project, place.project)
    with pytest.MonkeyPatch.context() as monkeypatch:
        place.enter(monkeypatch)
        # A worker's store would stay this process's.
        monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
        for module, name in ((logged_models, "log_model"), (records, "log_figures")):
            monkeypatch.setattr(module, name, lambda *arguments: None)
        yield Story(
            place,
            _swept(place, monkeypatch, failing="Teacher lenet5 seed 1"),
            _swept(place, monkeypatch),
            _swept(place, monkeypatch),
        )


def _swept(place: Any, monkeypatch: pytest.MonkeyPatch, failing: str = "") -> Ended:
    words = {"temperatures": "1,2.5", "seeds": "0-1"}
    return run_inline(place, monkeypatch, commands, "sweep", failing, **words)


@dataclass(frozen=True)
class Compared:
    """A sweep of two methods, one without a temperature, where the first is trained already."""

    place: Any
    ended: Ended

    def table(self, name: str) -> pd.DataFrame:
        content = json.loads(self.place.artifact(self.place.commands()[-1], name).read_text())
        return pd.DataFrame(content["data"], columns=content["columns"])

    def steps_of(self, metric: str) -> set[int]:
        run_id = self.place.commands()[-1].info.run_id
        return {m.step for m in self.place.client.get_metric_history(run_id, metric)}


@pytest.fixture(scope="module")
def compared(story: Story, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compared]:
    place = copied(story.place, tmp_path_factory.mktemp("compared"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        place.enter(monkeypatch)
        spare_figures_and_graphs(monkeypatch)
        words = {"methods": "kd,cist", "temperatures": "1,2.5", "seeds": "0-1"}
        yield Compared(place, run_inline(place, monkeypatch, commands, "sweep", **words))


def parent(story: Story, number: int) -> Any:
    return story.place.commands()[number]


def table(story: Story, number: int, name: str) -> pd.DataFrame:
    content = json.loads(story.place.artifact(parent(story, number), name).read_text())
    return pd.DataFrame(content["data"], columns=content["columns"])


def history(story: Story, number: int, metric: str) -> dict[int, float]:
    run_id = parent(story, number).info.run_id
    return {m.step: m.value for m in story.place.client.get_metric_history(run_id, metric)}


def steps(**overrides: str) -> Any:
    project = config(**overrides)
    return study_steps(project, "digest", project.temperatures)


def test_a_study_is_a_teacher_and_a_student_per_seed_and_a_grid_of_distilled_students():
    found = steps()
    grid = [(s.method.softmax_temperature, s.seed) for s in found if s.role is Role.DISTILLED]
    assert [step.role for step in found[:4]] == [Role.TEACHER] * 2 + [Role.STUDENT] * 2
    assert grid == [(1.0, 0), (1.0, 1), (2.5, 0), (2.5, 1)]


def test_one_teacher_for_all_is_one_step_even_of_a_seed_that_is_not_studied():
    found = steps(**{"distillation.teacher_seed": "7"})
    assert [step.seed for step in found if step.role is Role.TEACHER] == [7]


@pytest.mark.parametrize(
    ("temperatures", "scale"),
    [((1.0, 40.0), 1), ((1.0, 2.5), 10), ((0.25, 3.0), 100), ((1.0, 1.1, 1.15), 100)],
)
def test_every_temperature_has_a_step_of_its_own(temperatures, scale):
    assert step_scale(temperatures) == scale
    assert len({round(t * scale) for t in temperatures}) == len(temperatures)


def test_temperatures_too_fine_for_steps_are_refused():
    with pytest.raises(UserError, match="at most 6 decimals"):
        step_scale((1.0, 1e-9))


def test_a_step_that_fails_does_not_stop_the_others(story):
    assert story.failed.handed == [
        "Teacher lenet5 seed 0",
        "Teacher lenet5 seed 1",
        "NDS lenet5 seed 0",
        "NDS lenet5 seed 1",
        "DS lenet5 kd T=1 alpha=0.8 seed 0",
        "DS lenet5 kd T=2.5 alpha=0.8 seed 0",
    ]


def test_failures_are_reported_at_the_end_with_reason_and_exit_code_1(story):
    assert story.failed.code == 1
    *_, last = story.failed.err.splitlines()
    assert last.startswith("kdplatform: 3 models failed")
    assert "failed: Teacher lenet5 seed 1: it would not learn" in story.failed.err
    assert (
        "failed: DS lenet5 kd T=1 alpha=0.8 seed 1: "
        "not tried: it needs Teacher lenet5 seed 1, which failed" in story.failed.err
    )
    assert parent(story, 0).info.status == "FAILED"
    trace = story.place.artifact(parent(story, 0), "failures.txt").read_text()
    assert "Traceback: here" in trace


def test_missing_seeds_are_listed_and_the_others_used(story):
    assert "T=2.5 has seeds 0 alone" in story.failed.out
    assert list(table(story, 0, "sweep.json")["seed"]) == [0, 0]


def test_one_model_against_one_model_is_named_mcnemar(story):
    metrics = parent(story, 0).data.metrics
    assert "classwise/n_sc_mcnemar" in metrics
    assert "classwise/n_sc" not in metrics
    assert "(McNemar)" in story.failed.out


def test_started_again_it_trains_what_is_missing_alone(story):
    assert story.mended.code == 0
    assert story.mended.handed == [
        "Teacher lenet5 seed 1",
        "DS lenet5 kd T=1 alpha=0.8 seed 1",
        "DS lenet5 kd T=2.5 alpha=0.8 seed 1",
    ]


def test_a_finished_study_hands_out_nothing(story):
    assert (story.repeated.code, story.repeated.handed) == (0, [])
    assert story.repeated.out.split("see it")[0] == story.mended.out.split("see it")[0]
    assert "8 models, all of them reused" in story.repeated.err


def test_models_are_runs_below_the_command_that_trained_them(story):
    below = [
        [r for r in story.place.runs() if r.data.tags["mlflow.parentRunId"] == c.info.run_id]
        for c in story.place.commands()
    ]
    assert [len(runs) for runs in below] == [5, 3, 0]
    assert {run.info.status for runs in below for run in runs} == {"FINISHED"}


def test_every_line_says_how_far_the_sweep_is(story):
    lines = [line for line in story.mended.err.splitlines() if line.startswith("[")]
    assert [line.split()[0] for line in lines] == ["[6/8]", "[7/8]", "[8/8]"]
    assert "done 3, running 0, reused 5, failed 0" in lines[-1]


@pytest.mark.parametrize(
    "metric",
    [
        "distilled/test/accuracy",
        "distilled/test/worst_class_accuracy",
        "distilled/fairness/color/dpd",
        "distilled/fairness/color/eod",
        "distilled/fairness/color/worst_group_accuracy",
        "teacher/test/accuracy",
        "student/fairness/color/dpd",
        "classwise/n_sc",
        "classwise/n_tc",
        "classwise/n_sc_expected_by_chance",
        "classwise/n_tc_bh",
        "classwise/n_tc_permutation_p",
        "groupwise/n_sg",
        "groupwise/n_tg_expected_by_chance",
        "groupwise/n_sg_permutation_p",
        "temperature",
    ],
)
def test_the_command_has_the_metric_against_the_temperature(story, metric):
    assert parent(story, 1).data.params["step_scale"] == "10"
    assert set(history(story, 1, metric)) == {10, 25}


def test_teacher_and_student_are_constant_lines(story):
    assert len(set(history(story, 1, "teacher/test/accuracy").values())) == 1
    assert len(set(history(story, 1, "student/test/accuracy").values())) == 1


def test_the_metric_is_the_mean_of_the_seeds_runs(story):
    accuracies = {1.0: [], 2.5: []}
    for run in story.place.runs("distilled"):
        temperature = float(run.data.tags["kd.temperature"])
        accuracies[temperature].append(run.data.metrics["test/accuracy"])
    means = {round(10 * t): sum(values) / 2 for t, values in accuracies.items()}
    assert history(story, 1, "distilled/test/accuracy") == pytest.approx(means)


def test_the_table_has_a_row_per_temperature_and_seed(story):
    rows = table(story, 1, "sweep.json")
    found = list(zip(rows["temperature"], rows["seed"], strict=True))
    assert found == [(t, s) for t in TEMPERATURES for s in SEEDS]
    assert set(rows["run_id"]) == {run.info.run_id for run in story.place.runs("distilled")}


def test_the_printed_table_has_a_row_per_arm(story):
    lines = story.mended.out.splitlines()
    titles = [line.split("  ")[0] for line in lines if line.startswith(("Tea", "NDS", "DS"))]
    assert titles == ["Teacher", "NDS", "DS T=1", "DS T=2.5"]
    [header] = [line.split() for line in lines if line.split()[:1] == ["accuracy"]]
    assert header[1:] == ["DPD", "color", "EOD", "color", "n_tc", "n_sc", "n_tg", "n_sg"]


def test_what_was_found_leads_what_is_printed(story):
    lines = [line for line in story.mended.out.splitlines() if line]
    found = [line for line in lines if line.startswith(("- ", "WARNING: "))]
    assert 0 < len(found) <= 7
    assert lines[: len(found)] == found


def test_every_group_is_logged_with_its_change(story):
    shifts = table(story, 1, "group_shifts.json")
    found = set(zip(shifts["arm"], shifts["reference"], strict=True))
    assert found == {(f"DS T={t:g}", name) for t in TEMPERATURES for name in ("Teacher", "NDS")}
    assert {"group", "n", "difference", "low", "p_value", "p_holm", "verdict"} <= set(shifts)


def test_a_sweep_of_methods_trains_what_no_other_sweep_has(compared):
    assert compared.ended.code == 0
    assert compared.ended.handed == ["DS lenet5 cist seed 0", "DS lenet5 cist seed 1"]
    said = "cist: has no temperature; one arm each, whatever T"
    assert sum(said in line for line in compared.ended.err.splitlines()) == 1


def test_tables_of_methods_have_a_row_per_arm(compared):
    names = ["DS kd T=1", "DS kd T=2.5", "DS cist"]
    assert list(compared.table("temperatures.json")["arm"]) == names
    assert list(dict.fromkeys(compared.table("sweep.json")["arm"])) == names
    lines = [line.split("  ")[0] for line in compared.ended.out.splitlines()]
    assert [line for line in lines if line.startswith("DS")] == names


def test_metrics_of_methods_begin_with_their_names_and_have_step_0_without_a_temperature(compared):
    assert compared.steps_of("kd/distilled/test/accuracy") == {10, 25}
    assert compared.steps_of("cist/distilled/test/accuracy") == {0}
    assert compared.steps_of("cist/classwise/n_sc") == {0}
    assert compared.steps_of("student/test/accuracy") == {0, 10, 25}
    assert compared.steps_of("distilled/test/accuracy") == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"workers": "0"}, "workers='0' is not allowed; allowed: auto | integer >= 1"),
        ({"workers": "many"}, "workers='many' is not allowed"),
        ({"executor": "rai"}, "executor='rai' does not exist; did you mean 'ray'"),
        ({"address": "here:1"}, "address='here:1' is not for executor='local'"),
        ({"executor": "ray", "workers": "2"}, "workers='2' is not for executor='ray'"),
        ({"temperature": "3"}, "temperature is not for sweep; allowed: temperatures"),
        ({"temperatures": ""}, "temperatures"),
        ({"temperatures": "1,1"}, "given twice"),
        ({"methods": "cist", "temperatures": "1,2"}, "temperatures=1,2 is not allowed with cist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(new_place, capsys, words, message):
    assert new_place.run("sweep", **words) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert new_place.commands() == []


def test_time_left_is_that_of_the_roles_left(monkeypatch):
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: 0.0))
    found = steps()
    shown = progress.GraphProgress(found, reused=0, slots=2, title="sweep")
    assert shown.seconds_left() is None
    shown.done(found[0], [], 100.0, reused=False)
    shown.done(found[2], [], 10.0, reused=False)
    shown.done(found[4], [], 20.0, reused=False)
    # One teacher, one student and three distilled students on two slots.
    assert shown.seconds_left() == pytest.approx((100 + 10 + 3 * 20) / 2)


def test_what_a_model_says_before_its_end_has_lines_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = steps()
    shown = progress.GraphProgress(found, reused=0, slots=2, title="sweep")
    shown.done(found[0], ["waiting for another process", "Teacher: test accuracy"], 1, reused=False)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "waiting for another process"
    assert second.startswith(f"[1/{len(found)}] Teacher: test accuracy (done 1, ")


def test_arms_have_mean_deviation_and_interval_over_seeds_at_their_step(story: Story) -> None:
    own = table(story, 2, "sweep.json")
    values = own.loc[own["temperature"] == 2.5, "test/accuracy"]
    found = {
        part: history(story, 2, f"distilled/test/accuracy{part}").get(25)
        for part in ("", "_sd", "_low", "_high")
    }
    assert found[""] == pytest.approx(values.mean())
    assert found["_sd"] == pytest.approx(values.std())
    reach = stats.t.ppf(0.975, 1) * values.std() / 2**0.5
    # Seeds that agree show no spread, and have no interval.
    limits = [values.mean() - reach, values.mean() + reach] if reach else [None, None]
    assert [found["_low"], found["_high"]] == pytest.approx(limits)


def test_a_sweeps_run_has_a_table_per_view_and_says_what_a_step_is(story: Story) -> None:
    arms = table(story, 2, "arms.json")
    one = arms[(arms["arm"] == "DS T=2.5") & (arms["metric"] == "test/accuracy")]
    assert list(one["seeds"]) == [2]
    assert one["mean"].item() == pytest.approx(history(story, 2, "distilled/test/accuracy")[25])
    classes = table(story, 2, "classes.json")
    assert classes.groupby("arm", sort=False)["name"].nunique().tolist() == [3] * 4
    assert classes.groupby("arm", sort=False)["n"].sum().nunique() == 1
    assert table(story, 2, "groups.json")["attribute"].unique().tolist() == ["color"]
    note = parent(story, 2).data.tags["mlflow.note.content"]
    assert "The step of a chart is the temperature T times 10" in note
    assert table(story, 2, "arms.json")["arm"].drop_duplicates().tolist() == [
        *("Teacher", "NDS", "DS T=1", "DS T=2.5")
    ]


def test_a_sweeps_name_says_methods_temperatures_and_seeds(
    story: Story, compared: Compared
) -> None:
    assert parent(story, 2).info.run_name == "sweep small kd T=1,2.5 seeds 0,1"
    assert compared.place.commands()[-1].info.run_name == "sweep small kd,cist T=1,2.5 seeds 0,1"


def test_a_sweeps_gate_tags_every_student_with_the_outcome_of_its_arm(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = copied(story.place, tmp_path / "gated")
    place.enter(monkeypatch)
    spare_figures_and_graphs(monkeypatch)
    accuracies = {t: history(story, 2, "distilled/test/accuracy")[round(10 * t)] for t in (1, 2.5)}
    gate = tmp_path / "gates.yaml"
    gate.write_text(f"rules: {{accuracy: {{min: {max(accuracies.values())}}}}}\n")
    words = {"temperatures": "1,2.5", "seeds": "0-1", "gate": gate, "gate_out": tmp_path / "out"}
    ended = run_inline(place, monkeypatch, commands, "sweep", **words)
    outcomes = {t: "passed" if a == max(accuracies.values()) else "failed"
                for t, a in accuracies.items()}  # fmt: skip
    assert ended.code == (3 if "failed" in outcomes.values() else 0)
    for run in place.runs("distilled", status="FINISHED"):
        assert run.data.tags["kd.gate"] == outcomes[float(run.data.tags["kd.temperature"])]
    assert (tmp_path / "out" / "gate.junit.xml").is_file()
