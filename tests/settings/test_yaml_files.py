"""YAML as users write it: mistakes are said with their place."""

from pathlib import Path

import pytest
from helpers.refusals import refusal_of

from kdplatform.settings.yaml_files import read_mapping

# Each line is ten times as long as the one before, written out.
ALIASES = "a0: &a0 x\n" + "".join(
    f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]\n" for n in range(30)
)


def refusal(path: Path) -> str:
    message = refusal_of(read_mapping, "project", path)
    assert message.startswith(f"project={str(path)!r}")
    return message


@pytest.mark.parametrize(
    ("text", "place", "problem"),
    [
        ("name: [1, 2\nseeds: 0\n", "line 2, column 6", "expected ',' or ']'"),
        ("a: 1\n b: 2\n", "line 2, column 3", "mapping values are not allowed"),
        ("a: 1\n\tb: 2\n", "line 2, column 1", "cannot start any token"),
        ("a: 'x\n", "line 2, column 1", "unexpected end of stream"),
        ("a: !!python/object:os.system x\n", "line 1, column 4", "could not determine"),
        ("a: *nothing\n", "line 1, column 4", "undefined alias"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4, column 3", "'c' is given twice"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1", "'a' is given twice"),
        ("a: {c: 1, c: 2}\n", "line 1, column 11", "'c' is given twice"),
        ("a: " + "[" * 600 + "]" * 600, "", "nested too deeply"),
        ("a: " + "{a: " * 600, "", "nested too deeply"),
        ("a: &a [*a]\n", "", "nested too deeply"),
        (ALIASES, "line 1, column 1", "more than 100,000 values"),
    ],
)
def test_a_malformed_file_is_answered_with_line_and_column(
    text: str, place: str, problem: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    message = refusal(path)
    assert place in message
    assert problem in message


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("[1, 2]\n", "is a list"),
        ("just words\n", "is a str"),
        ("3\n", "is a int"),
    ],
)
def test_a_file_without_fields_is_refused(text: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    assert refusal(path).endswith(
        f"holds no fields, it {kind}; allowed: a mapping such as 'name: digits'"
    )


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"a: \xff\xfe\n")
    assert "not valid YAML" in refusal(path)


def test_a_control_character_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes(b"a: \x00\n")
    assert "not valid YAML" in refusal(path)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in refusal(tmp_path)


def test_keys_of_a_merged_block_may_be_written_over(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: &base {a: 1, b: 2}\nown: {<<: *base, a: 3}\n")
    assert read_mapping("project", path)["own"] == {"a": 3, "b": 2}
