"""The words of a command line are told apart into parameters and fields."""

import re
from pathlib import Path

import pytest

from kdplatform.arguments import ENTRY_POINTS, report_formats
from kdplatform.cli import read_words
from kdplatform.errors import UserError


def test_no_words_mean_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KDPLATFORM_HOME", str(tmp_path))
    arguments = read_words("distill", [])
    assert arguments.project == "trifeature"
    assert arguments.overrides == {}
    assert arguments.data_folder == tmp_path
    assert arguments.device == "auto"
    assert arguments.reuse is True


@pytest.mark.parametrize("entry_point", ENTRY_POINTS)
def test_the_defaults_may_be_spelled_out(entry_point: str) -> None:
    words = [w for p in ENTRY_POINTS[entry_point] for w in (f"--{p.name}", p.default)]
    assert read_words(entry_point, words) == read_words(entry_point, [])


@pytest.mark.parametrize(
    "words",
    [["--student.epochs", "3", "--temperature", "10"], ["--student.epochs=3", "--temperature=10"]],
)
def test_names_that_are_not_declared_are_fields(words: list[str]) -> None:
    overrides = read_words("distill", words).overrides
    assert overrides == {"student.epochs": "3", "temperature": "10"}


def test_a_value_may_hold_what_looks_like_syntax() -> None:
    words = ["--temperature", "-1", "--name", "", "--attributes=a=b"]
    overrides = read_words("distill", words).overrides
    assert overrides == {"temperature": "-1", "name": "", "attributes": "a=b"}


def test_from_project_overrides_nothing() -> None:
    assert read_words("distill", ["--alpha", "from-project"]).overrides == {}


def test_the_data_folder_may_begin_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert read_words("teacher", ["--data_folder", "~/kd"]).data_folder == Path("/home/me/kd")


@pytest.mark.parametrize(
    ("words", "reuse"),
    [
        (["--reuse", "true"], True),
        (["--reuse", "False"], False),
        (["--reuse=false"], False),
        (["--no-reuse"], False),
    ],
)
def test_reuse_is_a_switch(words: list[str], reuse: bool) -> None:
    assert read_words("distill", words).reuse is reuse


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reuse", "maybe"], "reuse='maybe' is not allowed; allowed: true | false"),
        (["--beta"], "--beta is given without a value; allowed: --beta value"),
        (["alpha=1"], "'alpha=1' is not expected here; allowed: --name value"),
        (["-a", "1"], "'-a' is not expected here; allowed: --name value"),
        (["--alpha", "0", "--alpha=1"], "--alpha is given twice: '0' and '1'"),
        (["--no-reuse", "--reuse", "true"], "--reuse is given twice: 'false' and 'true'"),
    ],
)
def test_words_that_make_no_sense_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_words("distill", words)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["data_folder", "config"])
def test_a_path_of_an_unknown_user_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"^{name}='~nosuchuser/a\.yaml' cannot be used as a path"):
        read_words("distill", [f"--{name}", "~nosuchuser/a.yaml"])


def test_a_configuration_that_is_not_there_is_answered_with_where_it_leads() -> None:
    with pytest.raises(UserError, match=rf"is no file \(looked at '{Path.cwd()}/a\.yaml'\); all"):
        read_words("distill", ["--config", "a.yaml"])


@pytest.mark.parametrize(
    ("text", "formats"),
    [
        ("none", ()),
        ("markdown", ("markdown",)),
        ("latex, markdown", ("latex", "markdown")),
    ],
)
def test_a_report_is_written_in_the_forms_that_are_asked_for(
    text: str, formats: tuple[str, ...]
) -> None:
    assert report_formats(text) == formats


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("html", "format='html' does not exist"),
        ("markdwn", "did you mean 'markdown'"),
        ("latex,latex", "names 'latex' twice"),
        ("", "format='' does not exist"),
        ("none,latex", "format='none' does not exist"),
    ],
)
def test_other_forms_of_a_report_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        report_formats(text)


@pytest.mark.parametrize(
    ("command", "name", "said"),
    [
        ("distill", "temperatures", "; allowed: temperature, or temperatures with sweep, tune or"),
        ("distill", "methods", "; allowed: methods with sweep, tune or report"),
        ("teacher", "temperatures", ", which distils nothing; allowed: temperatures with sweep"),
        ("student", "temperatures", ", which distils nothing; allowed: temperatures with sweep"),
        ("teacher", "temperature", "; allowed: temperature with distill or tune"),
        ("student", "distillation.alpha", "; allowed: distillation.alpha with distill, sweep"),
        ("predict", "min_group_size", ", which trains nothing; allowed: fields of dataset"),
        ("sweep", "temperature", "; allowed: temperatures, such as"),
        ("report", "tuning.keep", "; allowed: tuning.keep with tune"),
        ("tune", "seeds", "; allowed: seeds_per_trial and confirm_seeds"),
    ],
)
def test_a_field_that_the_command_would_ignore_is_refused(
    command: str, name: str, said: str
) -> None:
    with pytest.raises(UserError) as caught:
        read_words(command, [f"--{name}", "2"])
    assert str(caught.value).startswith(f"{name} is not for {command}")
    assert said in str(caught.value)


@pytest.mark.parametrize("command", ["sweep", "tune", "report"])
def test_temperatures_are_for_those_that_use_them(command: str) -> None:
    assert read_words(command, ["--temperatures", "1-4"]).overrides == {"temperatures": "1-4"}


def test_a_folder_for_no_gate_is_refused() -> None:
    with pytest.raises(UserError, match=r"^gate_out='x' is given without a gate; allowed: with ga"):
        read_words("distill", ["--gate_out", "x"])
