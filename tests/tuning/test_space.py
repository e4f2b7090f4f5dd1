"""What a search varies: of every method its own fields, and no other's."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import toy
import yaml

from kdplatform import cli
from kdplatform.errors import UserError
from kdplatform.reporting import tuning_figures
from kdplatform.settings.project import PROJECTS_FOLDER, dump_yaml, load_project
from kdplatform.tuning import results, search
from kdplatform.tuning import trials as books
from kdplatform.tuning.dimensions import check_search
from kdplatform.tuning.front import Outcome
from kdplatform.tuning.results import Found, trial_table
from kdplatform.tuning.selection import Choice
from kdplatform.tuning.space import Point, draw, first_points
from kdplatform.tuning.storage import quiet_optuna
from kdplatform.tuning.text import methods_notes, unsearched_note

pytestmark = pytest.mark.usefixtures("stubbed")


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Any]:
    return loader(tmp_path)


def loader(folder: Path) -> Callable[..., Any]:
    """What writes a project file, the digits with a space, and loads it."""

    def load(space: Any = None, **overrides: str) -> Any:
        content = yaml.safe_load((PROJECTS_FOLDER / "digits.yaml").read_text())
        content["tuning"] |= {} if space is None else {"space": space}
        path = folder / "own.yaml"
        path.write_text(yaml.safe_dump(content))
        given = {"temperatures": "1,4,10"} | overrides
        return load_project(str(path), {k.replace("__", "."): v for k, v in given.items()})

    return load


def drawn(config: Any, count: int = 1) -> list[tuple[dict[str, Any], Point]]:
    """Parameters and points of the first trials of a random search."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = []
    for _ in range(count):
        trial = study.ask()
        point = draw(trial, config)
        found.append((trial.params, point))
    return found


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("kd", ["temperature", "alpha"]),
        ("dkd", ["temperature"]),
        ("rld", ["temperature"]),
        ("adaptive_alpha", ["temperature"]),
        ("cist", []),
    ],
)
def test_only_a_methods_own_temperature_and_alpha_are_varied(
    method: str, fields: list[str], project: Any
) -> None:
    config = project(method=method, attributes="", tuning__learning_rate="0.001,0.01")
    [(params, point)] = drawn(config)
    assert [name for name, _ in point.fields] == fields
    assert set(params) == {*fields, "learning_rate"}
    at_point = point.config(config).distillation
    assert at_point.model_dump() == config.distillation.model_dump() | dict(point.fields)


def test_points_and_parameters_of_one_method_are_those_of_older_studies() -> None:
    config = toy.config()
    older = {"temperature": 4.0, "alpha": 0.8, "method": "kd", "learning_rate": 3e-3, "epochs": 20}
    assert Point.read(older) == Point.of(config)
    assert list(Point.of(config).as_dict().items()) == list(older.items())
    [(params, _)] = drawn(config)
    assert list(params) == ["temperature", "alpha"]


@pytest.mark.parametrize("words", [["--method", "cist"], ["--methods", "mlkd"]])
def test_a_method_with_nothing_to_search_is_refused_before_anything_is_loaded(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "check_dataset", lambda *arguments: pytest.fail("went on"))
    assert cli.main(["tune", "--project", "digits", *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"method={words[1]!r} has no temperature and no alpha, so tune has nothing" in line
    assert "allowed: tuning.space with distillation.ce_weight or distillation.kd_weight" in line


def test_fields_of_the_space_are_searched_within_their_ranges(project: Any) -> None:
    space = {"distillation.beta": [0.5, 8, "log"], "distillation.warmup_epochs": [0, 3]}
    config = project(space, method="dkd")
    points = [dict(point.fields) for _, point in drawn(config, 20)]
    assert list(points[0]) == ["temperature", "beta", "warmup_epochs"]
    assert all(0.5 <= point["beta"] <= 8 for point in points)
    assert all(point["beta"] == float(f"{point['beta']:.3g}") for point in points)
    # A logarithmic range has as much below its geometric middle as above.
    assert 5 <= sum(point["beta"] < 2 for point in points) <= 15
    assert all(point["warmup_epochs"] == round(point["warmup_epochs"], 2) for point in points)
    assert len({point["warmup_epochs"] for point in points}) > 15


def test_integers_stay_integers(project: Any) -> None:
    config = project({"distillation.strata": [2, 5]}, method="group_stratified")
    found = [point for _, point in drawn(config, 12)]
    assert {dict(point.fields)["strata"] for point in found} == {2, 3, 4, 5}
    for point in found:
        again = Point.read(point.as_dict())
        assert (again, type(dict(again.fields)["strata"])) == (point, int)
        assert point.config(config).distillation.strata == dict(point.fields)["strata"]


def test_a_space_may_be_given_as_text_and_is_written_so_that_it_is_read_again(
    project: Any, tmp_path: Path
) -> None:
    block = project({"distillation.gamma": "1,4", "distillation.beta": [0.5, 8, "log"]})
    text = "distillation.beta=0.5,8,log; distillation.gamma=1,4"
    assert project(tuning__space=text).tuning.space == block.tuning.space
    path = tmp_path / "written.yaml"
    path.write_text(dump_yaml(block))
    assert load_project(str(path)) == block
    assert project(text, tuning__space="none").tuning == project().tuning


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"distillation.beta": [8, 0.5]}, "distillation.beta=[8, 0.5]: the range is empty"),
        ({"distillation.beta": [0, 8, "log"]}, "a range on a log scale begins above 0"),
        ({"distillation.beta": [0.5]}, "distillation.beta=[0.5] is no range"),
        (
            {"distillation.beta": [0.5, 8, "exp"]},
            "is no range; allowed: two ends, such as 0.5,8 or 0.5,8,log",
        ),
        ({"distillation.beta": [True, 8]}, "has an end that is no finite number"),
        ({"distillation.beta": ["a", 8]}, "has an end that is no finite number"),
        ({"distillation.beta": [float("nan"), 8]}, "has an end that is no finite number"),
        ({"distillation.beta": [1, float("inf")]}, "has an end that is no finite number"),
        ({"distillation": {"beta": [0.5, 8]}}, "distillation={'beta': [0.5, 8]} is no range"),
        ([0.5, 8], "not a block of fields and their ranges"),
        ("distillation.beta=1,2;distillation.beta=1,3", "a field is given twice"),
        (
            {"distillation.beta": [-1, 8]},
            "tuning.space: distillation.beta=-1 is not allowed with method='dkd'; allowed: number "
            ">= 0",
        ),
        ({"distillation.bta": [1, 2]}, "did you mean 'distillation.beta'"),
        ({"distillation.gamma": [1, 2]}, "is no field of method='dkd'; methods that have it: dist"),
        ({"student.momentum": [0.5, 0.9]}, "tuning.space='student.momentum' is no field of a meth"),
        (
            {"distillation.temperature": [1, 9]},
            "tuning.space='distillation.temperature' is searched already; allowed: its range as "
            "tuning.temperature",
        ),
        ({"distillation.teacher_seed": [0, 2]}, "is no number; allowed: distillation.alpha or"),
    ],
)
def test_a_space_that_cannot_be_searched_is_one_line(space: Any, said: str, project: Any) -> None:
    with pytest.raises(UserError) as refused:
        check_search(project(space, method="dkd"))
    assert "tuning.space" in str(refused.value)
    assert said in str(refused.value)


def test_ends_of_an_integers_range_are_integers(project: Any) -> None:
    config = project({"distillation.strata": [2, 4.5]}, method="group_stratified")
    with pytest.raises(UserError, match=r"distillation.strata=4.5 is not .*allowed: integer >= 1"):
        check_search(config)


def test_a_temperature_that_the_method_does_not_take_is_refused(project: Any) -> None:
    words = {"method": "logit_standardization", "distillation__base": "cist"}
    with pytest.raises(UserError, match=r"^tuning.temperature=1 is not .*which has no temperature"):
        check_search(project(**words))
    check_search(project(tuning__temperature="2,2", tuning__epochs="1,2", **words))


def test_a_space_for_another_method_hinders_no_other_command(project: Any) -> None:
    assert project({"distillation.beta": [0.5, 8]}).distillation.method == "kd"


def test_a_study_refuses_to_go_on_with_another_space(project: Any, url: str) -> None:
    def begin(space: Any, name: str) -> Any:
        return toy.open_toy_study(toy.World(project(space, method="dkd")), url, name)

    begin({"distillation.beta": [1, 2]}, "with")
    begin({"distillation.beta": [1, 2]}, "with")
    with pytest.raises(UserError, match=r"tuning.space=distillation.beta=1,2,linear, not tuning."):
        begin({"distillation.beta": [1, 3]}, "with")
    # A study from before there was such a field.
    study, _ = begin(None, "without")
    older = study.user_attrs["kd.identity"]
    del older["tuning.space"]
    study.set_user_attr("kd.identity", older)
    begin(None, "without")
    with pytest.raises(UserError, match=r"exists with tuning.space=none, not tuning.space=dist"):
        begin({"distillation.beta": [1, 3]}, "without")


# ---- several methods

SEVERAL = {"tuning__methods": "kd,dkd,cist", "tuning__unfairness": "accuracy_gap"}
SPACE = {"distillation.beta": [0.5, 8, "log"]}


def several(project: Any, **overrides: str) -> Any:
    return project(SPACE, **{**SEVERAL, **overrides})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """A search over several methods."""
    folder = tmp_path_factory.mktemp("several")
    with pytest.MonkeyPatch.context() as monkeypatch, quiet_optuna():
        monkeypatch.setattr(search, "log_result", lambda *arguments: None)
        config = several(loader(folder), tuning__trials="20")
        opened = toy.open_search(toy.World(config), f"journal:///{folder}/log")
        opened.run(1)
        trials = books.all_evaluated(opened.study)
        yield Found(config, toy.MEASURE, toy.REFERENCES, opened.study, trials)


def test_of_several_methods_each_has_its_own_fields(found: Found) -> None:
    own: dict[str, set[str]] = {
        "kd": {"temperature", "alpha"},
        "dkd": {"temperature", "beta"},
        "cist": set(),
    }
    assert len(found.trials) == 20
    assert {trial.point.method for trial in found.trials} == set(own)
    for trial in found.trials:
        method = trial.point.method
        assert {name for name, _ in trial.point.fields} == own[method]
        params = found.study.trials[trial.number].params
        assert set(params) == {"method", *(f"{method}.{name}" for name in own[method])}
        assert trial.outcome == pytest.approx(toy.expected(trial.point))
    assert [trial.point for trial in found.trials[:5]] == first_points(found.config)
    # cist is one point, trained once and then taken over.
    assert [t.same_as for t in found.trials if t.point.method == "cist"].count(None) == 1


def test_every_method_is_tried_first_at_its_defaults_and_the_projects_at_its_temperatures(
    project: Any,
) -> None:
    titles = [point.title(several(project)) for point in first_points(several(project))]
    assert titles == [
        "kd T=4 alpha=0.8",
        "dkd T=4 beta=8",
        "cist",
        "kd T=1 alpha=0.8",
        "kd T=10 alpha=0.8",
    ]


@pytest.mark.parametrize("sampler", ["gp", "nsgaii"])
def test_other_samplers_search_several_methods(sampler: str, project: Any, tmp_path: Path) -> None:
    config = several(project, tuning__sampler=sampler, tuning__trials="12")
    opened = toy.open_search(toy.World(config), f"journal:///{tmp_path}/log")
    opened.run(1)
    assert len(books.all_evaluated(opened.study)) == 12
    assert f"sampler={sampler!r} draws the fields of each" in methods_notes(config)[-1]


def test_what_is_not_searched_of_several_methods_is_said(project: Any) -> None:
    config = several(project, tuning__trials="5")
    assert methods_notes(config) == ["no field of cist is searched: it is one point"]
    assert "and every other method at its defaults come first, 5 points" in unsearched_note(config)
    assert methods_notes(project()) == []


def test_tables_and_figures_name_the_method(found: Found) -> None:
    table = trial_table(found)
    assert list(table.columns[1:6]) == ["temperature", "alpha", "beta", "method", "learning_rate"]
    assert table.loc[table["method"] == "dkd", "alpha"].isna().all()
    assert table.loc[table["method"] == "kd", "beta"].isna().all()
    # Whole numbers stay whole where a method lacks the field.
    with_steps = [
        replace(own, point=replace(own.point, fields=(*own.point.fields, ("steps", 2))))
        if own.point.method == "dkd"
        else own
        for own in found.trials
    ]
    lines = trial_table(replace(found, trials=with_steps))[["steps"]].to_csv(index=False).split()
    assert set(lines) == {"steps", "2", '""'}
    renamed = table.rename(columns={"val_accuracy": "accuracy"})
    figure = tuning_figures.pareto_figure(
        renamed.rename(columns={f"val_{toy.MEASURE.slug}": "unfairness"}),
        {"Teacher": (0.02, 0.95), "NDS": (0.05, 0.9)},
        {},
        tuning_figures.Axis("gap", True),
        "several",
    )
    [legend] = figure.legends
    drawn_methods = {text.get_text().split(",")[0] for text in legend.get_texts()}
    assert {"kd", "dkd", "cist"} <= drawn_methods


def test_each_choice_is_a_file_of_its_own_that_names_its_method(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: dict[str, str] = {}
    monkeypatch.setattr(results.mlflow, "log_text", lambda text, name: logged.update({name: text}))
    own = Point.of(found.config)
    dkd = Point.of(found.config, "dkd")
    points = [own, replace(own, epochs=9), dkd, Point.of(found.config, "cist")]
    labels = ("baseline", "front", "constrained", "front")
    choices = [Choice(p, (n,), Outcome(0.9, 0.1)) for p, n in zip(points, labels, strict=True)]
    best = results.save_choices(found, choices, tmp_path / "chosen")
    assert sorted(logged) == [
        "best.yaml",
        "chosen/baseline-kd-T4-alpha0.8.yaml",
        "chosen/constrained-dkd-T4-beta8.yaml",
        "chosen/front-cist.yaml",
        "chosen/front-kd-T4-alpha0.8-epochs9.yaml",
    ]
    assert logged["best.yaml"].startswith("# constrained of study toy: dkd T=4 beta=8\n")
    assert load_project(str(best)).distillation == dkd.config(found.config).distillation


def test_methods_is_tuning_methods_for_tune(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = cli.read_words("tune", ["--methods", "kd,dkd"])
    assert arguments.overrides == {"tuning.methods": "kd,dkd"}
    words = ["--methods", "kd", "--tuning.methods", "dkd"]
    assert cli.main(["tune", *words]) == 2
    assert "tuning.methods and methods set the same field" in capsys.readouterr().err
