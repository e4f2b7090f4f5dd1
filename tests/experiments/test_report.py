"""A study's report from the tracking store alone; its runs are logged here, nothing is trained."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from helpers.refusals import last_line
from mlflow import MlflowClient

import kdplatform
from kdplatform import cli
from kdplatform.data import Dataset
from kdplatform.errors import UserError
from kdplatform.experiments import commands, records, report, tracking
from kdplatform.experiments.examples import EXAMPLES as EXAMPLES_LOGGED
from kdplatform.experiments.graph import Step, study_steps
from kdplatform.experiments.stored_predictions import TEST
from kdplatform.experiments.tracking import log_verified_artifacts
from kdplatform.experiments.trained import TAG_NEEDS
from kdplatform.predictions import Predictions
from kdplatform.reporting.study_page import build_report
from kdplatform.roles import Role
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import ProjectConfig, flatten
from kdplatform.study.fairness import Effort
from kdplatform.study.metrics import SPEED

CLASSES, COLORS = ("circle", "square", "star"), ("red", "green", "blue")
DIGEST = "ab" * 32
EXAMPLES = 240
FEW = Effort(draws=50, permutations=20)


def predictions(accuracy: float, seed: int, first_id: int = 0) -> pd.DataFrame:
    """A model's predictions of generated examples, with the factors they are made from."""
    of_examples, rng = np.random.default_rng(1), np.random.default_rng(seed)
    labels = np.arange(EXAMPLES) % len(CLASSES)
    wrong = rng.random(EXAMPLES) > accuracy
    logits = rng.normal(0, 0.2, (EXAMPLES, len(CLASSES)))
    logits[np.arange(EXAMPLES), (labels + wrong) % len(CLASSES)] += 3
    table = pd.DataFrame(
        {
            "id": first_id + np.arange(EXAMPLES),
            "label": labels,
            "prediction": logits.argmax(axis=1),
            "logits": list(logits.astype(np.float32)),
            "shape": np.array(CLASSES)[labels],
            "color": np.array(COLORS)[of_examples.integers(0, 3, EXAMPLES)],
            "texture": np.array(["dots", "rain"])[of_examples.integers(0, 2, EXAMPLES)],
        }
    )
    for name in ("shape_rotation", "texture_rotation", "position_x", "position_y"):
        table[name] = of_examples.uniform(-45, 45, EXAMPLES)
    return table


def log_step(
    project: ProjectConfig, step: Step, table: pd.DataFrame, folder: Path, digest: str = DIGEST
) -> str:
    """Logs a run as training does, as far as a report reads it; returns its id."""
    path = folder / f"{step.key}-{len(list(folder.iterdir()))}" / TEST
    path.parent.mkdir(parents=True)
    table.to_parquet(path)  # as any writer would, sound or not
    with mlflow.start_run(run_name=step.title, tags=records.step_tags(project, step)) as run:
        parameters: dict[str, Any] = flatten(project.dataset, "dataset.")
        section = "teacher" if step.role is Role.TEACHER else "student"
        parameters |= flatten(step.training, f"{section}.")
        if step.distillation is not None:
            parameters |= flatten(step.distillation, "distillation.")
        mlflow.log_params(parameters)
        records.log_dataset(_dataset(digest))
        mlflow.set_tags(log_verified_artifacts(path.parent.parent))
        # Of weights that are always the same, namely none.
        mlflow.set_tag(TAG_NEEDS, json.dumps(dict.fromkeys(step.needs, "")))
        mlflow.log_metric("val/calibrating_temperature", 1.2)
        mlflow.log_metric(SPEED, 50.0 if step.role is Role.DISTILLED else 100.0)
        names = pd.DataFrame({"class": range(len(CLASSES)), "name": CLASSES})
        mlflow.log_table(names, "classwise.json")
        return str(run.info.run_id)


def _dataset(digest: str) -> Dataset:
    return SimpleNamespace(name="trifeature", digest=digest)  # type: ignore[return-value]


class Store:
    """A place with a study's runs in it."""

    def __init__(self, place: Any, folder: Path) -> None:
        self.place = place
        self.folder = folder
        self.out = folder / "out"
        self.logs = folder / "logs"
        self.logs.mkdir()

    def steps(self, **overrides: str) -> list[Step]:
        project = load_project(self.place.project, overrides)
        return study_steps(project, DIGEST, project.temperatures)

    def log(self, skip: str = "", **overrides: str) -> dict[str, str]:
        """Logs the study's runs, except titles that match `skip`; returns their ids by title."""
        ids = {}
        project = load_project(self.place.project, overrides)
        for number, step in enumerate(self.steps(**overrides)):
            if not (skip and re.search(skip, step.title)):
                table = predictions(0.7 + 0.05 * (step.role is not Role.STUDENT), number)
                ids[step.title] = log_step(project, step, table, self.logs)
        return ids

    def study(self, given: tuple[str, ...] = (), **overrides: str) -> Any:
        config = load_project(self.place.project, overrides)
        return report.load_study(config, given, intersections=False)

    def frame(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.out / f"{name}.csv")


@pytest.fixture
def store(new_place: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(report, "build_report", partial(build_report, effort=FEW))
    folder = tmp_path / "report_test"
    folder.mkdir()
    return Store(new_place, folder)


def seeds_of(study: Any) -> Mapping[str, tuple[int, ...]]:
    return {study.names[arm]: study.seeds(arm) for arm in study.arms}


def test_a_report_is_written_and_logged(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    ids = store.log(temperatures="1,10", seeds="0-1")
    # What the runs of the arm that is shown first have logged of their examples.
    of_first = [run for title, run in ids.items() if "T=10 " in title]
    assert len(of_first) == 2
    for run in of_first:
        shown = [{"id": number, "text": f"text {number}"} for number in range(EXAMPLES)]
        MlflowClient().log_text(run, json.dumps({"examples": shown}), EXAMPLES_LOGGED)
    words = {"seeds": "0-1", "temperatures": "1,10", "format": "latex"}
    assert store.place.run("report", out=store.out, **words) == 0
    printed = capsys.readouterr().out
    assert "Undecided: " in printed
    assert re.search(r"The paper's claims: \d+ supported, \d+ contradicted, \d+ undecided", printed)
    assert str(store.out / "report.html") in printed
    written = {path.name for path in store.out.iterdir()}
    assert {"report.html", "figure1_classes.png", "table1_classes.csv", "claims.csv"} <= written
    assert "report.tex" in written
    assert "report.md" not in written
    assert re.search(r"<blockquote>text \d+</blockquote>", (store.out / "report.html").read_text())
    [run] = store.place.commands()
    assert run.data.tags["kd.command"] == "report"
    logged = store.place.artifact(run, "report")
    assert {path.name for path in logged.iterdir()} == written
    assert (logged / "report.html").read_bytes() == (store.out / "report.html").read_bytes()
    assert list(store.frame("table1_classes")["arm"]) == ["Teacher", "NDS", "DS T=1", "DS T=10"]


def test_a_program_loads_a_study_by_the_names_of_its_fields(store: Store) -> None:
    store.log(temperatures="1,2", seeds="0-1")
    study = kdplatform.load_study(str(store.place.project), {"temperatures": "1"})
    assert seeds_of(study) == dict.fromkeys(("Teacher", "NDS", "DS T=1"), (0, 1))
    assert isinstance(study, kdplatform.Study)
    with pytest.raises(UserError, match="temperature"):
        kdplatform.load_study(str(store.place.project), {"temperatuers": "1"})


def test_seeds_and_temperatures_are_what_the_store_has(store: Store) -> None:
    store.log(temperatures="1,2,5.25", seeds="0-2")
    study = store.study()
    assert seeds_of(study) == dict.fromkeys(
        ("Teacher", "NDS", "DS T=1", "DS T=2", "DS T=5.25"), (0, 1, 2)
    )
    # The project file's own temperatures are 1 to 4, for which nobody asked.
    assert study.missing == ()
    assert store.study(("temperatures",), temperatures="1-3").missing == ("DS T=3: every seed",)
    assert study.class_names == CLASSES


def test_a_method_without_alpha_is_reported(store: Store) -> None:
    store.log(temperatures="1,2", seeds="0-1", method="nkd")
    study = store.study(method="nkd")
    assert seeds_of(study)["DS T=2"] == (0, 1)
    assert study.settings["Distillation"] == "nkd"


def test_methods_are_reported_side_by_side(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"methods": "kd,rld,cist", "temperatures": "1,2", "seeds": "0-1"}
    store.log(skip="rld T=2 .*seed 1", **words)
    study = store.study(("seeds", "temperatures"), **words)
    assert seeds_of(study) == {
        **dict.fromkeys(("Teacher", "NDS", "DS kd T=1", "DS kd T=2", "DS rld T=1"), (0, 1)),
        "DS rld T=2": (0,),
        "DS cist": (0, 1),
    }
    assert study.missing == ("DS rld T=2: seed 1",)
    assert study.settings["Distillation"].startswith("kd, alpha 0.8 on the distillation term")
    assert study.settings["Distillation"].endswith("; rld; cist")
    assert store.place.run("report", out=store.out, **words) == 0
    printed = capsys.readouterr().out
    assert "Methods against plain distillation: " in printed
    assert "The claims are about T, so they are not judged for cist" in printed
    table = store.frame("methods").set_index("arm")
    assert table.loc["DS cist", "against"] == "DS kd T=2"
    # The speeds of these runs are those of `log_step`.
    assert table.loc["DS cist", "seconds"] == 2.0


def test_what_is_asked_for_is_kept_to(store: Store) -> None:
    store.log(temperatures="1,2,3", seeds="0-2")
    study = store.study(("seeds", "temperatures"), temperatures="1,2", seeds="0,1")
    assert seeds_of(study) == dict.fromkeys(("Teacher", "NDS", "DS T=1", "DS T=2"), (0, 1))
    assert study.missing == ()


def test_missing_models_are_listed(store: Store) -> None:
    store.log(temperatures="1,2", seeds="0-2", skip="T=2 .*seed 1|Teacher .*seed 2")
    study = store.study(("seeds", "temperatures"), temperatures="1,2,3", seeds="0-2")
    assert study.missing == ("Teacher: seed 2", "DS T=2: seed 1", "DS T=3: every seed")
    assert seeds_of(study)["DS T=2"] == (0, 2)


def test_runs_of_another_configuration_are_not_mixed_in(store: Store) -> None:
    own = store.log(temperatures="1,2", seeds="0-1")
    other = store.log(temperatures="1,2,3", seeds="0-1", alpha="0.3", skip="Teacher|NDS")
    study = store.study()
    used = {model.run_id for models in study.arms.values() for model in models.values()}
    assert used == set(own.values())
    assert not used & set(other.values())
    assert "DS T=3" not in seeds_of(study)


def test_runs_of_other_data_of_the_same_settings_are_left_out(store: Store) -> None:
    older = "cd" * 32
    project = load_project(store.place.project)
    for number, step in enumerate(study_steps(project, older, project.temperatures)):
        log_step(project, step, predictions(0.8, number, first_id=5000), store.logs, older)
    ids = store.log(temperatures="1", seeds="0")
    study = store.study(("seeds", "temperatures"), temperatures="1", seeds="0")
    used = {model.run_id for models in study.arms.values() for model in models.values()}
    assert used == set(ids.values())
    assert any(older[:12] in reason for reason in study.left_out)


def test_one_teacher_may_serve_all_seeds(store: Store) -> None:
    shared = {"distillation.teacher_seed": "1"}
    store.log(temperatures="1,2", seeds="0-2", **shared)
    study = store.study(**shared)
    assert study.shared_teacher == 1
    assert seeds_of(study)["Teacher"] == (1,)
    assert study.missing == ()


def test_a_run_whose_predictions_were_altered_is_left_out(store: Store) -> None:
    ids = store.log(temperatures="1,2", seeds="0-1")
    [title] = [title for title in ids if "T=2 " in title and "seed 1" in title]
    run = store.place.client.get_run(ids[title])
    Predictions.of(predictions(0.99, 77)).write(store.place.artifact(run, TEST))
    study = store.study()
    assert seeds_of(study)["DS T=2"] == (0,)
    assert any(
        ids[title] in reason and "not what was logged" in reason for reason in study.left_out
    )


def test_the_newest_run_of_a_key_that_can_be_read_is_taken(store: Store) -> None:
    first = store.log(temperatures="1", seeds="0")
    second = store.log(temperatures="1", seeds="0")
    [title] = [title for title in second if "T=1" in title]
    run = store.place.client.get_run(second[title])
    store.place.artifact(run, TEST).unlink()
    study = store.study()
    used = {model.run_id for models in study.arms.values() for model in models.values()}
    assert used == {first[title], *(ids for name, ids in second.items() if name != title)}


def test_unsound_logits_leave_a_run_out_with_the_reason(store: Store) -> None:
    store.log(temperatures="1,2", seeds="0-1", skip="T=2 .*seed 1")
    steps = store.steps(temperatures="1,2", seeds="0-1")
    [step] = [step for step in steps if re.search("T=2 .*seed 1", step.title)]
    table = predictions(0.8, 9)
    table.at[3, "logits"] = np.array([np.nan, 0, 0], dtype=np.float32)
    log_step(load_project(store.place.project), step, table, store.logs)
    study = store.study()
    assert seeds_of(study)["DS T=2"] == (0,)
    assert any("not finite" in reason for reason in study.left_out)


def test_runs_on_different_examples_are_refused_with_their_digests(store: Store) -> None:
    store.log(temperatures="1", seeds="0", skip="NDS")
    [step] = [step for step in store.steps(seeds="0") if step.role is Role.STUDENT]
    log_step(
        load_project(store.place.project), step, predictions(0.8, 9, first_id=1000), store.logs
    )
    with pytest.raises(report.UserError, match=r"digest [0-9a-f]{12}, run .* of [0-9a-f]{12}"):
        store.study()


def test_the_generating_factors_are_the_feature_space(store: Store) -> None:
    store.log(temperatures="1", seeds="0")
    study = store.study()
    assert study.space.startswith("generating factors of trifeature (shape, color, texture")
    assert study.metrics["fairness/individual"].notna().all()
    assert study.pairs == EXAMPLES * (EXAMPLES - 1) // 2


def failure(store: Store, capsys: pytest.CaptureFixture[str], **parameters: object) -> str:
    assert store.place.run("report", out=store.out, **parameters) == 2
    assert not store.place.commands()
    return last_line(capsys)


def test_an_empty_store_is_said_to_be_empty(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no FINISHED run in the tracking store" in failure(store, capsys)


def test_the_setting_that_differs_is_named(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.log(temperatures="1", seeds="0", alpha="0.3")
    assert "distillation.alpha is '0.8' here and '0.3' in run" in failure(store, capsys)


def test_another_dataset_is_named(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    store.log(temperatures="1", seeds="0")
    assert "dataset.seed is '1' here and '0'" in failure(store, capsys, dataset__seed=1)


def test_an_attribute_the_predictions_lack_is_refused(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.log(temperatures="1", seeds="0")
    assert "attributes='colour' does not exist; did you mean 'color'" in failure(
        store, capsys, attributes="colour"
    )


def test_one_temperature_alone_is_refused(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "temperature is not for report" in failure(store, capsys, temperature=4)


def logged_command(store: Store, command: str, **overrides: str) -> str:
    """Logs the run of a command as the command does, without its training."""
    project = load_project(store.place.project, overrides)
    with tracking.command_run(command, project, commands.command_title(command, project)) as run:
        return run


def test_a_sweeps_run_is_reported_as_it_was_without_a_flag_again(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    words = {"temperatures": "1,2", "seeds": "0-1", "alpha": "0.6"}
    store.log(**words)
    store.log(temperatures="1,2,3", seeds="0-2", alpha="0.5")
    sweep = logged_command(store, "sweep", **words)
    assert cli.main(["report", "--run", sweep, "--out", str(store.out)]) == 0
    assert "Missing" not in capsys.readouterr().out
    assert list(store.frame("table1_classes")["arm"]) == ["Teacher", "NDS", "DS T=1", "DS T=2"]
    assert sorted(store.frame("runs")["seed"].unique()) == [0, 1]
    reported = store.place.commands()[-1]
    assert reported.data.tags["kd.reported_run"] == sweep
    assert reported.info.run_name == "report small kd T=1,2 seeds 0,1"


def test_a_distills_run_is_reported_at_its_own_temperature(store: Store) -> None:
    store.log(temperatures="1,2", seeds="0-1")
    distill = logged_command(store, "distill", temperature="2", seeds="0-1")
    assert cli.main(["report", "--run", distill, "--out", str(store.out)]) == 0
    assert list(store.frame("table1_classes")["arm"]) == ["Teacher", "NDS", "DS T=2"]


def test_what_is_no_run_of_a_command_cannot_be_reported(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = store.log(temperatures="1", seeds="0")
    tune = logged_command(store, "tune")
    for run, said in (
        (next(iter(ids.values())), "is no command; allowed: the id of a run of sweep or distill"),
        (tune, "is a run of tune; allowed"),
        ("0" * 32, "is not in sqlite:///"),
        ("mine", "is no run id; allowed: none | the id"),
    ):
        assert cli.main(["report", "--run", run]) == 2
        assert said in last_line(capsys)
    assert cli.main(["report", "--run", tune, "--project", "digits"]) == 2
    assert "are both given; allowed: one of them" in last_line(capsys)


@pytest.mark.parametrize(("bound", "code"), [("0.5", 0), ("0.99", 3)])
def test_a_gate_lets_a_report_pass_or_fail(
    bound: str, code: int, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    store.log(temperatures="1,2", seeds="0-1")
    gate = store.folder / "gates.yaml"
    gate.write_text(
        f"rules: {{accuracy: {{min: {bound}}}, fairness/color & texture/eod: {{max: 1}}}}\n"
    )
    words = {"attributes": "color,texture", "seeds": "0-1", "temperatures": "1,2"}
    assert store.place.run("report", out=store.out, gate=gate, **words) == code
    said = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("failed: DS T=") for line in said) == (2 if code else 0)
    [run] = store.place.commands()
    outcome = "failed" if code else "passed"
    assert run.data.tags["kd.gate"] == outcome
    assert run.info.status == "FINISHED"
    for folder in (store.out, store.place.artifact(run, "gate")):
        assert json.loads((folder / "gate.json").read_text())["outcome"] == outcome
        assert (folder / "gate.junit.xml").is_file()
