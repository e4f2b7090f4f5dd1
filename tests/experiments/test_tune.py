"""The entry point `tune`, with real trainings that run in this process, one after the other."""

import contextlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import optuna
import pandas as pd
import pytest
from helpers.inline import Ended, run_inline
from helpers.refusals import last_line

from kdplatform import cli, data
from kdplatform.errors import UserError
from kdplatform.experiments import logged_models, records, workspace
from kdplatform.methods import cist
from kdplatform.settings.project import load_project
from kdplatform.tuning import trials as books
from kdplatform.tuning import tuner

SEARCH = {"trials": 4, "seeds_per_trial": 1, "temperatures": "1,10", "student__epochs": 1}
NAME = "small-eod-color"


def tuned(place: Any, monkeypatch: pytest.MonkeyPatch, **parameters: object) -> Ended:
    return run_inline(place, monkeypatch, tuner, "tune", **{**SEARCH, **parameters})


def poisoned(load: Any) -> Any:
    """Loads datasets whose test labels are all wrong; everything else is as it was."""

    def load_poisoned(*arguments: Any) -> Any:
        dataset = load(*arguments)
        labels = (dataset.test.labels + 1) % len(dataset.class_names)
        test = data.Split(dataset.test.inputs, labels, dataset.test.ids, dataset.test.columns)
        return replace(dataset, test=test)

    return load_poisoned


@dataclass(frozen=True)
class Story:
    """A search, the same with poisoned test labels, and what came after the first."""

    place: Any
    first: Ended
    poisoned_place: Any
    poisoned: Ended
    resumed: Ended
    distilled: int
    models_before: int
    impossible: Ended


@contextlib.contextmanager
def entered(place: Any) -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        place.enter(monkeypatch)
        monkeypatch.setattr(mlflow, "set_tracking_uri", lambda uri: None)
        # Figures of the models and the models as graphs take most of a small run's time.
        monkeypatch.setattr(logged_models, "log_model", lambda *arguments: None)
        log = records.log_figures
        monkeypatch.setattr(
            records, "log_figures", lambda figures: log(figures) if "pareto" in figures else None
        )
        yield monkeypatch


def best_of(place: Any) -> Path:
    [path] = place.home.glob(f"tuning/{NAME}-*/best.yaml")
    return path


@pytest.fixture(scope="module")
def story(empty_place: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    places = []
    for name in ("tune", "poisoned"):
        place = type(empty_place)(tmp_path_factory.mktemp(name))
        shutil.copy(empty_place.project, place.project)
        places.append(place)
    place, other = places
    with entered(other) as monkeypatch:
        workspace._loaded_dataset.cache_clear()
        monkeypatch.setattr(workspace, "load_dataset", poisoned(workspace.load_dataset))
        wrong = tuned(other, monkeypatch, confirm_seeds=0)
        workspace._loaded_dataset.cache_clear()
    with entered(place) as monkeypatch:
        first = tuned(place, monkeypatch, confirm_seeds=2)
        before = len(place.runs())
        best = best_of(place)
        code = cli.main(["distill", "--config", str(best)])
        resumed = tuned(place, monkeypatch, confirm_seeds=0, trials=5)
        impossible = tuned(
            place, monkeypatch, study="impossible", trials=1, tuning__worst_group_floor=1.0
        )
        yield Story(place, first, other, wrong, resumed, code, before, impossible)


@pytest.fixture
def place(story: Story, monkeypatch: pytest.MonkeyPatch) -> Any:
    story.place.enter(monkeypatch)
    return story.place


def study_in(place: Any) -> optuna.Study:
    return optuna.load_study(study_name=NAME, storage=f"sqlite:///{place.folder}/optuna.db")


def command_runs(place: Any) -> list[Any]:
    return [run for run in place.commands() if run.data.tags.get("kd.command") == "tune"]


def trial_runs(place: Any, parent: Any) -> list[Any]:
    return [
        run
        for run in place.commands()
        if "kd.trial" in run.data.tags and run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    ]


def test_it_searches_confirms_and_says_so(story: Story) -> None:
    assert story.first.code == 0, story.first.err
    for words in ("search", "trials: 4 completed, 0 failed", "confirmed", "hypervolume", "NDS"):
        assert words in story.first.out
    assert "seeds 1-2 that the search has not seen" in story.first.out
    assert "[4/4] trial 3 " in story.first.err


def test_teacher_and_nds_are_trained_once_for_all_trials(story: Story) -> None:
    handed = story.first.handed
    assert handed.count("Teacher lenet5 seed 0") == handed.count("NDS lenet5 seed 0") == 1
    assert len(list((story.place.home / "teacher_logits").glob("*.npz"))) == 3  # seeds 0, 1 and 2


def test_the_papers_grid_is_tried_first(story: Story) -> None:
    found = books.all_evaluated(study_in(story.place))
    assert [dict(trial.point.fields)["temperature"] for trial in found[:3]] == [4, 1, 10]


def test_the_search_is_the_same_whatever_the_test_labels_are(story: Story) -> None:
    assert story.poisoned.code == 0, story.poisoned.err
    [run] = story.poisoned_place.runs(role="teacher")
    assert run.data.metrics["test/accuracy"] < 0.5 or run.data.metrics["val/accuracy"] < 0.5
    values = [
        [(trial.point, trial.outcome) for trial in books.all_evaluated(study_in(place))[:4]]
        for place in (story.place, story.poisoned_place)
    ]
    assert values[0] == values[1]


def test_a_trials_value_is_what_its_models_logged_on_validation(story: Story) -> None:
    models = {run.info.run_id: run for run in story.place.runs(role="distilled")}
    for trial in books.all_evaluated(study_in(story.place)):
        [run_id] = trial.run_ids
        assert trial.outcome.accuracy == pytest.approx(models[run_id].data.metrics["val/accuracy"])


def test_trials_and_runs_name_each_other(story: Story) -> None:
    parent = command_runs(story.place)[0]
    runs = {run.info.run_id: run for run in trial_runs(story.place, parent)}
    trials = books.all_evaluated(study_in(story.place))[:4]
    assert {trial.run_id for trial in trials} == set(runs)
    for trial in trials:
        run = runs[trial.run_id]
        assert run.data.tags["kd.study"] == NAME
        assert int(run.data.tags["kd.trial"]) == trial.number
        assert run.data.metrics["val/eod-color"] == pytest.approx(trial.outcome.unfairness)
        assert float(run.data.params["temperature"]) == dict(trial.point.fields)["temperature"]
    assert study_in(story.place).user_attrs["mlflow.run_ids"][0] == parent.info.run_id


def test_the_models_of_a_trial_are_below_its_run(story: Story) -> None:
    trials = {trial.run_id: trial for trial in books.all_evaluated(study_in(story.place))}
    below = [
        run
        for run in story.place.runs(role="distilled")
        if run.data.tags["mlflow.parentRunId"] in trials
    ]
    # The project's own point is trained as the baseline, below the command.
    assert len(below) == len(trials) - 1


def test_the_parent_run_holds_tables_figures_and_the_hypervolume(story: Story) -> None:
    parent = command_runs(story.place)[0]
    for path in ("figures/pareto.png", "figures/hypervolume.png", "figures/optuna.html"):
        assert story.place.artifact(parent, path).stat().st_size > 10_000
    table = pd.read_csv(story.place.artifact(parent, "trials.csv"))
    assert list(table["trial"]) == [0, 1, 2, 3]
    assert table["hypervolume"].is_monotonic_increasing
    assert table["grid"].tolist() == [True, True, True, False]
    history = story.place.client.get_metric_history(parent.info.run_id, "search/hypervolume")
    assert [point.step for point in history] == [1, 2, 3, 4]
    assert [point.value for point in history] == pytest.approx(table["hypervolume"].tolist())


def test_the_chosen_points_are_judged_on_test_and_fresh_seeds(story: Story) -> None:
    parent = command_runs(story.place)[0]
    content = json.loads(story.place.artifact(parent, "confirmed_seeds.json").read_text())
    rows = pd.DataFrame(content["data"], columns=content["columns"])
    assert set(rows["seed"]) == {1, 2}
    assert {"Teacher", "NDS"} < set(rows["arm"])
    baseline = rows[rows["chosen_as"].str.startswith("baseline")]
    runs = {
        int(run.data.tags["kd.seed"]): run.data.metrics["test/accuracy"]
        for run in story.place.runs(role="distilled")
        if run.data.tags["kd.temperature"] == "4"
    }
    assert {seed: runs[seed] for seed in (1, 2)} == {
        seed: pytest.approx(value)
        for seed, value in zip(baseline["seed"], baseline["test_accuracy"], strict=True)
    }


def test_distill_takes_up_the_best_configuration(story: Story) -> None:
    assert story.distilled == 0
    best = load_project(str(best_of(story.place)))
    found = {
        dict(trial.point.fields)["temperature"]
        for trial in books.all_evaluated(study_in(story.place))
    }
    assert best.distillation.temperature in found
    # All its models were there from the search.
    command = [r for r in story.place.commands() if r.data.tags.get("kd.command") == "distill"][-1]
    assert not [
        run
        for run in story.place.runs()
        if run.data.tags["mlflow.parentRunId"] == command.info.run_id
    ]


def test_the_same_study_goes_on_with_what_is_missing(story: Story) -> None:
    assert story.resumed.code == 0, story.resumed.err
    assert "4 of 5 trials are done" in story.resumed.err
    assert len(story.resumed.handed) == 1
    assert "confirmed" not in story.resumed.out


def test_that_nothing_is_searched_is_said_before_anything_is_trained(story: Story) -> None:
    said = story.impossible.err
    assert said.index("tune: nothing is searched") < said.index("tune: study impossible")


def test_when_no_trial_keeps_the_constraints_the_nearest_is_named(story: Story) -> None:
    assert story.impossible.code == 3
    line = story.impossible.err.splitlines()[-1]
    assert line.startswith("kdplatform: none of 1 trials satisfies the constraints; the nearest")
    # A student that gives everyone one class is infeasible by itself.
    assert "trial 0, T=4 alpha=0.8, which violates collapsed by 2" in line
    assert ", worst_group_accuracy by 0." in line


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"trials": 0}, "trials='0' is not allowed; allowed: integer >= 1"),
        ({"trials": -3}, "trials='-3' is not allowed"),
        ({"unfairness": "eo"}, "unfairness='eo' is not allowed; allowed: eod | dpd | accuracy_gap"),
        ({"sampler": "grid"}, "sampler='grid' is not allowed; allowed: tpe | gp | nsgaii | random"),
        ({"mode": "best"}, "mode='best' is not allowed; allowed: pareto | constrained"),
        ({"attribute": "colour"}, "attribute='colour' does not exist; did you mean 'color'"),
        ({"tuning__temperature": "40,1"}, "the range is empty: 40 is above 1"),
        ({"tuning__temperature": "0,40"}, "is not allowed; allowed: list of number >= 0.000001"),
        ({"tuning__temperature": "-2,4"}, "is not allowed; allowed: list of number >= 0.000001"),
        ({"tuning__temperature": "4"}, "a range has two ends, such as 1,40"),
        ({"tuning__temperature": "none"}, "tuning.temperature='none' is not allowed"),
        ({"tuning__alpha": "0,1.5"}, "is not allowed; allowed: list of number >= 0 and <= 1"),
        ({"tuning__methods": "kd,kdd"}, "tuning.methods='kdd' does not exist"),
        ({"confirm_seeds": 1}, "confirm_seeds=1 is not allowed; allowed: 0, or at least 2"),
        ({"seeds": "0-4"}, "seeds is not for tune; allowed: seeds_per_trial and confirm_seeds"),
        ({"storage": "optuna.db"}, "storage='optuna.db' is not allowed; allowed: auto | sqlite"),
        ({"storage": "mysql://a/b"}, "storage='mysql://a/b' is not allowed"),
        ({"mode": "constrained", "study": NAME}, "exists with directions maximize, minimize"),
        ({"tuning__alpha": "0.5,1"}, "exists with tuning.alpha=0,1, not tuning.alpha=0.5,1"),
        ({"student__epochs": 9}, "exists with student.epochs=1, not student.epochs=9"),
    ],
)
def test_bad_input_is_one_line(
    parameters: dict[str, object], said: str, place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("tune", **{**SEARCH, **parameters}) == 2
    line = last_line(capsys)
    assert said in line
    if "exists with" in said:
        assert f"another name such as study={NAME}-2" in line


def test_a_method_that_cannot_learn_from_the_data_is_refused_before_anything_is_trained(
    place: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(method: Any, dataset: Any) -> None:
        raise UserError(f"{method} is not for {dataset.name}")

    monkeypatch.setattr(cist.InformativeTemperature, "check", refuse, raising=False)
    ended = tuned(place, monkeypatch, study="refused", methods="kd,cist", temperatures="2")
    assert (ended.code, ended.handed) == (2, [])
    assert ended.err.splitlines()[-1].startswith("kdplatform: cist(ce_weight=0.1,")


@pytest.mark.parametrize(
    ("storage", "said"),
    [
        (
            "postgresql://me:secret@127.0.0.1:1/tuning",
            "storage='postgresql+psycopg://***@127.0.0.1",
        ),
        ("sqlite:////nowhere/at/all.db", "storage='sqlite:////nowhere/at/all.db' does not answer"),
        ("journal:////proc/no/log", "storage='journal:////proc/no/log' cannot be written"),
    ],
)
def test_a_storage_that_does_not_answer_is_one_line(
    storage: str, said: str, place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place.run("tune", **SEARCH, storage=storage) == 1
    line = last_line(capsys)
    assert said in line
    assert "secret" not in line


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"unfairness": "eod"}, "unfairness='eod' needs attributes, and project digits has none"),
        ({"unfairness": "dpd"}, "allowed: n_sc"),
        ({"unfairness": "individual"}, "needs a feature space, and project digits has none"),
        ({"attribute": "color"}, "attribute='color' is not allowed: project digits has no attrib"),
        (
            {"unfairness": "n_sc", "tuning.worst_group_floor": "0.5"},
            "tuning.worst_group_floor=0.5 needs attributes, and project digits has none",
        ),
    ],
)
def test_a_project_without_attributes_says_what_it_allows(
    parameters: dict[str, str], said: str, new_place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{name}={value}" for name, value in parameters.items()]
    assert cli.main(["tune", "--project", "digits", *words]) == 2
    line = last_line(capsys)
    assert said in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["distill", "--trials", "4"], "trials is not for distill; allowed: trials with tune"),
        (["distill", "--methods", "kd"], "methods is not for distill; allowed: methods with sweep"),
        (["sweep", "--tuning.grid", "false"], "tuning.grid is not for sweep"),
        (["distill", "--config", "no.yaml"], "config='no.yaml' is no file"),
        (
            ["distill", "--config", "small.yaml", "--project", "digits"],
            "config='small.yaml' and project='digits' are both given",
        ),
    ],
)
def test_what_belongs_to_tune_is_refused_elsewhere(
    words: list[str], said: str, place: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 2
    assert said in capsys.readouterr().err
