"""Project files and overrides: what is read, what is refused, and in which words."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml
from helpers.refusals import refusal_of

from kdplatform.data import dataset_names
from kdplatform.settings.fields import Known, describe_fields
from kdplatform.settings.methods import with_method
from kdplatform.settings.paths import with_absolute_paths
from kdplatform.settings.project import dump_yaml, load_project, project_names
from kdplatform.settings.remarks import method_remarks, own_alpha_remark, shortened_warmups
from kdplatform.settings.schema import ProjectConfig, flatten

TEMPERATURES = "numbers and ranges such as 1-10,20,30.5, each >= 0.000001 and <= 1000000"
TEMPERATURE = "number >= 0.000001 and <= 1000000"
MINIMAL = {
    "name": "small",
    "dataset": {"name": "trifeature"},
    "teacher": {"model": "resnet20", "epochs": 2, "learning_rate": 0.1},
    "student": {"model": "lenet5", "epochs": 3, "learning_rate": 0.1},
    "distillation": {"temperature": 4},
    "temperatures": "1-3,20",
}


def written(folder: Path, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def project_with(folder: Path, **changes: object) -> str:
    return written(folder, yaml.safe_dump(MINIMAL | changes))


refusal = partial(refusal_of, load_project)


def test_where_the_data_lie_can_be_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"dataset.file": "loans.csv", "dataset.label": "approved"}
    config = with_absolute_paths(load_project("table", given))
    assert flatten(config)["dataset.file"] == str(tmp_path / "loans.csv")
    config = with_absolute_paths(load_project("imagefolder", {"dataset.root": "photos"}))
    assert flatten(config)["dataset.root"] == str(tmp_path / "photos")
    # Nothing is made up where the data are downloaded or generated.
    for name in ("cifar10", "trifeature"):
        assert with_absolute_paths(load_project(name)) == load_project(name)


@pytest.mark.parametrize("name", project_names())
def test_a_project_survives_being_written_and_read_again(name: str, tmp_path: Path) -> None:
    config = load_project(name)
    assert load_project(written(tmp_path, dump_yaml(config))) == config


def test_an_override_replaces_the_files_value_and_nothing_else() -> None:
    before, after = flatten(load_project("digits")), None
    after = flatten(load_project("digits", {"student.epochs": "3"}))
    assert {k: v for k, v in after.items() if before[k] != v} == {"student.epochs": 3}


@pytest.mark.parametrize(
    ("short", "path", "text", "value"),
    [
        ("temperature", "distillation.temperature", "2.5", 2.5),
        ("alpha", "distillation.alpha", "0", 0.0),
        ("method", "distillation.method", "kd", "kd"),
    ],
)
def test_short_names_set_their_field(short: str, path: str, text: str, value: object) -> None:
    assert flatten(load_project("digits", {short: text}))[path] == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("temperatures", "1-3,20,0.5", (1.0, 2.0, 3.0, 20.0, 0.5)),
        ("seeds", "0,2", (0, 2)),
        ("attributes", "color, texture", ("color", "texture")),
        ("attributes", "none", ()),
        ("attributes", "", ()),
        ("teacher.gradient_clip", "none", None),
        ("teacher.gradient_clip", "1.5", 1.5),
        ("distillation.teacher_seed", "same", "same"),
        ("distillation.teacher_seed", "3", 3),
        ("teacher.augmentation.horizontal_flip", "true", True),
        ("student.learning_rate", "1e-3", 0.001),
    ],
)
def test_texts_of_the_command_line_become_values(name: str, text: str, value: object) -> None:
    assert flatten(load_project("trifeature", {name: text}))[name] == value


def test_every_field_takes_the_text_help_shows_as_its_value() -> None:
    from kdplatform.settings.words import plain_text

    config = load_project("trifeature")
    texts = {name: plain_text(value) for name, value in flatten(config).items()}
    assert load_project("trifeature", texts) == config


def test_another_dataset_starts_from_its_own_defaults() -> None:
    config = load_project("trifeature", {"dataset.name": "digits", "dataset.seed": "3"})
    assert config.dataset.model_dump() == {
        "name": "digits",
        "imbalance": 1.0,
        "imbalance_seed": 0,
        "unlabeled_fraction": 0.0,
        "unlabeled_seed": 0,
        "val_fraction": 0.15,
        "test_fraction": 0.25,
        "seed": 3,
    }


def test_a_tables_sensitive_columns_are_compared_unless_others_are_named() -> None:
    sensitive = {"dataset.attributes": "sex,race"}
    assert load_project("table", sensitive).attributes == ("sex", "race")
    assert load_project("table", sensitive | {"attributes": "sex"}).attributes == ("sex",)
    assert load_project("table", sensitive | {"attributes": "none"}).attributes == ()
    assert load_project("digits").attributes == ()


def test_naming_the_files_own_dataset_keeps_its_fields(tmp_path: Path) -> None:
    project = project_with(tmp_path, dataset={"name": "trifeature", "image_size": 20})
    config = load_project(project, {"dataset.name": "trifeature"})
    assert config.dataset.model_dump()["image_size"] == 20


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("temperature", "0", TEMPERATURE),
        ("temperature", "-1", TEMPERATURE),
        ("temperature", "abc", TEMPERATURE),
        ("temperature", "nan", TEMPERATURE),
        ("temperature", "inf", TEMPERATURE),
        ("distillation.temperature", "1e7", TEMPERATURE),
        ("alpha", "2", "number >= 0 and <= 1"),
        ("alpha", "-0.1", "number >= 0 and <= 1"),
        ("alpha", "nan", "number >= 0 and <= 1"),
        ("student.epochs", "0", "integer >= 1"),
        ("student.epochs", "1.5", "integer >= 1"),
        ("student.epochs", "many", "integer >= 1"),
        ("student.optimizer", "adam", "sgd | adamw"),
        ("student.channels_last", "maybe", "true | false"),
        ("teacher.momentum", "1", "number >= 0 and < 1"),
        ("teacher.gradient_clip", "0", "number > 0 | none"),
        ("dataset.image_size", "500", "integer >= 8 and <= 224"),
        ("dataset.correlation", "2", "number >= 0 and <= 1"),
        ("distillation.teacher_seed", "maybe", "same | integer >= 0"),
        ("seeds", "4-0", "numbers and ranges such as 0,2,5-9"),
        ("seeds", "a-b", "numbers and ranges such as 0,2,5-9"),
        ("temperatures", "0", TEMPERATURES),
        ("seeds", "-1", "numbers and ranges such as 0,2,5-9"),
        ("seeds", "0,0", "numbers and ranges such as 0,2,5-9"),
        ("seeds", "none", "numbers and ranges such as 0,2,5-9"),
        ("temperatures", "1-x", TEMPERATURES),
    ],
)
def test_a_bad_value_is_answered_with_name_value_and_what_is_allowed(
    name: str, text: str, allowed: str
) -> None:
    message = refusal("trifeature", {name: text})
    assert message.startswith(f"{name}=")
    assert message.endswith(f"; allowed: {allowed}")
    assert text in message or text == "none"


def test_of_a_list_the_bad_element_is_shown() -> None:
    message = refusal("trifeature", {"temperatures": "3,0,5"})
    assert message == f"temperatures='0' is not allowed; allowed: {TEMPERATURES}"


@pytest.mark.parametrize(
    ("name", "text", "nearest", "known"),
    [
        ("teacher.model", "resnet21", "'resnet20'", "known: "),
        ("method", "kdd", "'kd'", "known: adaptive_alpha, "),
        ("dataset.name", "trifeatures", "'trifeature'", f"known: {', '.join(dataset_names())}"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(
    name: str, text: str, nearest: str, known: str
) -> None:
    message = refusal("trifeature", {name: text})
    assert message.startswith(f"{name}={text!r} does not exist; did you mean ")
    assert nearest in message
    assert known in message


def test_an_unknown_project_is_answered_with_the_nearest_and_all() -> None:
    message = refusal("trifature")
    assert message.startswith("project='trifature' does not exist; did you mean 'trifeature'")
    assert message.endswith(f"? known: {', '.join(project_names())}")


def test_an_unknown_field_is_answered_with_the_nearest_and_the_blocks() -> None:
    message = refusal("trifeature", {"studnet.epochs": "3"})
    assert "parameter='studnet.epochs' does not exist; did you mean 'student.epochs'" in message
    plain = {field.name.partition(".")[0] for field in describe_fields(load_project("trifeature"))}
    assert all(name in message for name in plain)
    assert "student.* (" in message
    assert len(message) < 400


def test_parameters_of_the_command_are_suggested_too() -> None:
    message = refusal("trifeature", {"divice": "cpu"}, known=Known(("device", "reuse")))
    assert "did you mean 'device'?" in message


def test_a_field_cannot_be_set_by_both_of_its_names() -> None:
    message = refusal("digits", {"temperature": "2", "distillation.temperature": "3"})
    assert message.startswith("temperature and distillation.temperature set the same field")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"teacher.milestones": "3"}, "teacher: milestones='3' is not allowed with"),
        ({"teacher.frozen": "true"}, "teacher: frozen=True is not allowed for fresh weights"),
        (
            {"teacher.pretrained": "true"},
            "teacher: pretrained=True is not allowed with model='resnet20'; allowed: with ",
        ),
    ],
)
def test_values_that_do_not_go_together_are_named(overrides: dict[str, str], words: str) -> None:
    assert refusal("trifeature", overrides).startswith(words)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"student": {**MINIMAL["student"], "epochs": [1, 2]}},  # type: ignore[dict-item]
            "student.epochs=[1, 2] is not allowed; allowed: integer >= 1",
        ),
        (
            {"student": {**MINIMAL["student"], "epochs": True}},  # type: ignore[dict-item]
            "student.epochs=True is not allowed: a truth value; allowed: integer >= 1",
        ),
        ({"student": 3}, "student=3 is not allowed; allowed: a block of fields"),
        ({"student": [1]}, "student=[1] is not allowed; allowed: a block of fields"),
        ({"temperatures": []}, "temperatures=[] is not allowed: empty; allowed: numbers and "),
        (
            {"seeds": {"a": 1}},
            "seeds={'a': 1} is not allowed; allowed: numbers and ranges such as 0,2,5-9",
        ),
        ({"dataset": [1]}, "dataset.name is missing in the project file"),
        ({"dataset": {}}, "dataset.name is missing in the project file"),
        ({"distillation": [1]}, "distillation=[1] is not allowed; allowed: a block of fields"),
        ({"teacher": {"epochs": 1}}, "teacher.model is missing in the project file"),
        (
            {"distillation": {"method": "kd", "temperatur": 8}},
            "field='distillation.temperatur' does not exist; did you mean",
        ),
        (
            {"distillation": {"method": "kd", "robustness": 1}},
            "distillation.robustness is no field of method='kd'; methods that have it: worst_class",
        ),
        ({"name": "a/b"}, "name='a/b' is not allowed"),
        ({"colours": 1}, "field='colours' does not exist; known: attributes, "),
        ({"studnet": {"epochs": 1}}, "field='studnet' does not exist; did you mean 'student."),
        (
            {"dataset": {"name": "digits", "image_size": 8}},
            "field='dataset.image_size' does not exist",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    assert refusal(project_with(tmp_path, **changes)).startswith(message)


def test_an_override_inside_what_is_no_block_is_refused(tmp_path: Path) -> None:
    message = refusal(project_with(tmp_path, student=3), {"student.epochs": "1"})
    assert message == "student is 3 in the project file; allowed: a block"


def test_a_project_file_is_named_by_its_path(tmp_path: Path) -> None:
    assert load_project(project_with(tmp_path)).name == "small"


@pytest.mark.parametrize("field", ["attributes", "leave_out", "categorical"])
def test_a_name_given_twice_to_a_dataset_is_refused(field: str) -> None:
    assert refusal("table", {f"dataset.{field}": "g,h,g"}) == (
        f"dataset.{field}='g,h,g' is not allowed: a value is given twice; allowed: list of text"
    )


def test_a_relative_path_that_is_no_file_is_answered_with_where_it_leads() -> None:
    assert f" is no file (looked at '{Path.cwd()}/absent.yaml'); " in refusal("absent.yaml")
    assert "cannot be used as a path" in refusal("~nosuchuser/a.yaml")


@pytest.mark.parametrize("name", ["absent.yaml", "folder.yaml"])
def test_a_path_that_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    message = refusal(str(tmp_path / name))
    allowed = ", ".join(project_names())
    assert f"is no file; allowed: a YAML file or a name of {allowed}" in message


def test_a_configuration_cannot_be_changed() -> None:
    config: ProjectConfig = load_project("digits")
    with pytest.raises(ValueError, match="frozen"):
        config.name = "other"


# ---- methods


def test_another_method_starts_from_its_own_defaults_and_keeps_which_teacher(
    tmp_path: Path,
) -> None:
    block = {"method": "kd", "temperature": 7, "teacher_seed": 3}
    config = load_project(project_with(tmp_path, distillation=block))
    assert flatten(config)["distillation.temperature"] == 7
    other = with_method(config, "kd")
    assert other == config.distillation


def test_a_method_that_needs_a_teacher_is_none_of_a_teachers() -> None:
    message = refusal("digits", {"teacher.method": "kd"})
    start, _, allowed = message.partition("; allowed: ")
    assert start == "teacher.method='kd' learns from a teacher"
    assert {"cross_entropy", "group_dro"} <= set(allowed.split(", "))
    message = refusal("digits", {"method": "cross_entropy"})
    start, _, allowed = message.partition("; allowed: ")
    assert start == "method='cross_entropy' needs no teacher"
    assert {"kd", "group_dro"} <= set(allowed.split(", "))


def test_a_method_of_both_kinds_has_the_fields_of_its_place() -> None:
    words = {"method": "group_dro", "teacher.method": "group_dro", "temperature": "7"}
    fields = flatten(load_project("trifeature", words))
    assert fields["distillation.temperature"] == 7
    assert fields["teacher.method.step_size"] == fields["distillation.step_size"] == 0.01
    assert "teacher.method.temperature" not in fields
    message = refusal("trifeature", {"teacher.method": "group_dro", "teacher.method.alpha": "0.5"})
    assert message == (
        "teacher.method.alpha is no field of method='group_dro'; methods that have it: "
        "self_distillation"
    )


# ---- methods that a sweep compares


def test_a_compared_method_has_its_own_defaults_and_the_projects_block_is_for_its_own() -> None:
    config = load_project("digits", {"methods": "dkd,kd,cist", "distillation.scale_by_t2": "false"})
    dkd, kd, cist = config.methods
    assert dkd == with_method(config, "dkd")
    assert kd == config.distillation
    assert kd.model_dump()["scale_by_t2"] is False
    assert cist.softmax_temperature is None


def test_a_field_given_is_for_the_methods_that_have_it_and_the_others_are_named() -> None:
    words = {"methods": "kd,dkd,cist", "distillation.warmup_epochs": "2", "alpha": "0.3"}
    config = load_project("digits", words)
    kd, dkd, _ = config.methods
    assert dkd.model_dump()["warmup_epochs"] == 2
    # The alpha of dkd is another weight.
    assert (kd.distillation_weight, dkd.model_dump()["alpha"]) == (0.3, 1.0)
    assert method_remarks(config, words) == [
        "cist: has no temperature; one arm each, whatever T",
        "distillation.warmup_epochs is not for kd, cist; it sets the other methods alone",
        "alpha is not for dkd, cist; it sets the other methods alone",
    ]


def test_compared_methods_may_stand_in_a_file_and_survive_being_written(tmp_path: Path) -> None:
    content = {"methods": ["kd", "dkd"], "distillation": {"temperature": 7, "teacher_seed": 3}}
    project = project_with(tmp_path, **content)
    config = load_project(project, {"distillation.beta": "2"})
    assert [m.model_dump()["temperature"] for m in config.methods] == [7, 4]
    assert {method.teacher_seed for method in config.methods} == {3}
    assert flatten(config)["methods"] == ("kd", "dkd")
    assert load_project(written(tmp_path, dump_yaml(config))) == config


def test_one_method_asked_for_by_name_is_swept_alone(tmp_path: Path) -> None:
    config = load_project(project_with(tmp_path, methods="kd,dkd"), {"method": "rld"})
    assert [method.method for method in config.compared_methods] == ["rld"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"methods": "kd,kd"}, "methods: 'kd' is given twice; allowed: each method once"),
        ({"methods": "kd,dkdd"}, "methods='dkdd' does not exist; did you mean 'dkd'"),
        ({"methods": "kd,cross_entropy"}, "methods='cross_entropy' needs no teacher; allowed: "),
        ({"methods": "kd,group_dro"}, "method='group_dro' uses groups, and project digits has"),
        ({"methods": "kd", "method": "dkd"}, "methods='kd' and method='dkd' are both given"),
        ({"methods": "kd,dkd", "distillation.robustness": "1"}, "methods that have it: worst_cl"),
        ({"methods": "kd,dkd", "distillation.beta": "x"}, "distillation.beta='x' is not allowed"),
    ],
)
def test_methods_that_cannot_be_compared_are_refused(words: dict[str, str], message: str) -> None:
    assert message in refusal("digits", words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            {"methods": "cist,mlkd", "temperatures": "1,2"},
            "temperatures=1,2 is not allowed with cist,mlkd, which have no temperature; allowed: "
            "without temperatures",
        ),
        (
            {"methods": "dkd,rld", "alpha": "0.5"},
            "alpha is not for dkd, rld: none of them takes it",
        ),
    ],
)
def test_what_no_compared_method_has_is_refused(words: dict[str, str], message: str) -> None:
    assert refusal_of(method_remarks, load_project("digits", words), words) == message


@pytest.mark.parametrize("block", ["teacher.method", "student.method", "distillation"])
def test_a_method_goes_by_the_projects_first_attribute(block: str) -> None:
    method = block if block.endswith("method") else f"{block}.method"
    words = {method: "group_dro"}
    assert flatten(load_project("trifeature", words))[f"{block}.attribute"] == "color"
    words["attributes"] = "texture"
    assert flatten(load_project("trifeature", words))[f"{block}.attribute"] == "texture"
    words[f"{block}.attribute"] = "label"
    assert flatten(load_project("trifeature", words))[f"{block}.attribute"] == "label"


def test_a_method_by_groups_needs_a_project_with_attributes() -> None:
    message = (
        "method='group_dro' uses groups, and project digits has no attributes; allowed: data "
        "with attributes, or attribute='label' for the classes as groups"
    )
    assert refusal("digits", {"method": "group_dro"}) == message
    assert refusal("digits", {"tuning.methods": "kd,group_dro"}) == message
    assert refusal("digits", {"student.method": "group_dro"}) == message
    load_project("digits", {"method": "group_dro", "distillation.attribute": "label"})


def test_a_tuned_method_goes_by_the_projects_first_attribute() -> None:
    other = with_method(load_project("trifeature"), "group_dro")
    assert flatten(other)["attribute"] == "color"


def test_a_teachers_method_may_be_a_name_or_a_block(tmp_path: Path) -> None:
    teacher = MINIMAL["teacher"]
    assert isinstance(teacher, dict)
    named = load_project(project_with(tmp_path, teacher={**teacher, "method": "cross_entropy"}))
    block = {**teacher, "method": {"method": "cross_entropy"}}
    assert load_project(project_with(tmp_path, teacher=block)) == named
    assert flatten(named)["teacher.method"] == "cross_entropy"
    assert load_project("digits", {"teacher.method": "cross_entropy"}) == load_project("digits")


# ---- warm-up


def test_a_warm_up_longer_than_the_training_is_cut_to_it_and_said() -> None:
    config = load_project("trifeature", {"student.epochs": "1"})
    assert config.student.warmup == 1
    [line] = shortened_warmups(config)
    whole = config.student.warmup_epochs
    assert line == f"student.warmup_epochs={whole:g} is cut to student.epochs=1"
    assert shortened_warmups(load_project("trifeature")) == []


@pytest.mark.parametrize("name", project_names())
def test_every_project_may_be_trained_for_one_epoch(name: str) -> None:
    config = load_project(name)
    overrides = {
        f"{section}.epochs": "1"
        for section in ("teacher", "student")
        if not getattr(config, section).frozen
    }
    assert load_project(name, overrides).student.epochs == 1


# ---- what is read without torch


def test_a_project_is_loaded_without_torch_pandas_and_mlflow() -> None:
    code = (
        "import sys\n"
        "from kdplatform.settings.project import load_project, project_names\n"
        "for name in project_names(): load_project(name)\n"
        "print(sorted({'torch', 'pandas', 'mlflow', 'sklearn', 'scipy'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_an_alpha_of_a_methods_own_is_said() -> None:
    words = {"method": "dkd", "alpha": "0.5"}
    [line] = own_alpha_remark(load_project("digits", words), words)
    assert line.startswith("alpha is that of dkd's paper: the weight of one part of its loss")
    for quiet in ({"method": "kd", "alpha": "0.5"}, {"method": "dkd"}):
        assert own_alpha_remark(load_project("digits", quiet), quiet) == []
