"""The file of a gate: what is refused before anything is measured."""

from pathlib import Path

import pytest
from helpers.refusals import refusal_of

from kdplatform.settings.gates import read_gate


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "gates.yaml"
    path.write_text(text)
    return str(path)


def test_a_file_of_rules_is_read_with_its_date_and_digest(tmp_path: Path) -> None:
    text = "date: 2026-11-26\ncannot_tell: passed\nrules:\n  accuracy: {min: 0.9, by: interval}\n"
    found = read_gate(file(tmp_path, text))
    assert found is not None
    assert found.gates.rules["accuracy"].bounds == {"min": 0.9}
    assert (str(found.gates.date), found.gates.cannot_tell) == ("2026-11-26", "passed")
    assert (found.gates.against, found.gates.arms) == ("teacher", "every")
    assert len(found.digest) == 64


def test_no_gate_is_no_file() -> None:
    assert read_gate("none") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "rules: {accuracy: {min: 0.9, max: 0.8}}",
            "min 0.9 is above max 0.8; no value keeps both",
        ),
        ("rules: {accuracy: {max_drop: -0.1, max_rise: 0.05}}", "exclude each other"),
        ("rules: {accuracy: {}}", "accuracy: no bound is given; allowed: min, max, max_drop"),
        ("rules: {accuracy: {maxx: 2}}", "rules.accuracy.maxx does not exist; known: min, max,"),
        ("rulez: {accuracy: {max: 2}}", "rulez does not exist; known: rules, cannot_tell"),
        ("rules: {accuracy: {min: .nan}}", "a bound is a finite number"),
        ("rules: {accuracy: {min: high}}", "given 'high'"),
        ("rules: {accuracy: {min: 0.9, by: interval}}", "cannot_tell: passed | failed"),
        ("rules: {accuracy: {min: 0.9}}\narms: some", "given 'some'"),
        ("rules: {accuracy: {min: 0.9}, accuracy: {max: 1}}", "'accuracy' is given twice"),
        ("rules: {accuracy: {max_drop: true}}", "True is no number"),
        ("rules: {accuracy: {max: on}}", "True is no number"),
        ("rules: {accuracy: 0.9}", "rules.accuracy: 0.9 is no rule; allowed: such as {min: 0.9}"),
        ("rules: {}", "rules: {} is no rule; allowed: such as accuracy: {min: 0.9}"),
        (
            "date: 2026-13-45\nrules: {accuracy: {min: 0.9}}",
            "not valid YAML: month must be in 1..12",
        ),
        ("just words", "holds no fields, it is a str; allowed: a mapping such as 'rules: {acc"),
        ("", "holds no fields, it is empty; allowed: a mapping such as 'rules: {accuracy: {min"),
        ("- accuracy", "holds no fields, it is a list; allowed: a mapping such as 'rules: {acc"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    line = refusal_of(read_gate, file(tmp_path, text))
    assert line.startswith("gate=")
    assert said in line


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    line = refusal_of(read_gate, str(tmp_path / "none.yaml"))
    assert "is no file" in line
