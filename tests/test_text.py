"""Names of the user's are text wherever they stand."""

import io

import pandas as pd
import pytest

from kdplatform.progress import say, show
from kdplatform.reporting.report_table import file_stem
from kdplatform.reporting.tables import csv_text, text_table
from kdplatform.text import visible, visible_lines, without_formula

# A command to the terminal, a turned direction, a width of nothing, ends of lines, half a letter.
HIDDEN = "a\x1b]0;x\x07\u202eb\u2066c\u200bd\r\ne\ud800"
SHOWN = r"a\x1b]0;x\x07\u202eb\u2066c\u200bd\r\ne\ud800"


def test_nothing_is_hidden() -> None:
    assert visible(HIDDEN) == SHOWN
    assert visible(visible(HIDDEN)) == SHOWN
    assert visible("猫 é 😀 هر") == "猫 é 😀 هر"
    assert visible_lines("a\nb\tc") == "a\nb\\tc"


def test_a_terminal_is_given_text(capsys: pytest.CaptureFixture[str]) -> None:
    say(HIDDEN)
    show(f"one\n{text_table(['what', HIDDEN], [[HIDDEN, '1']])}")
    shown = capsys.readouterr()
    assert shown.err == f"{SHOWN}\n"
    assert [line.count(SHOWN) for line in shown.out.splitlines()] == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ('=HYPERLINK("http://x")', '\'=HYPERLINK("http://x")'),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+1+cmd|' /C calc'!A0", "'+1+cmd|' /C calc'!A0"),
        ("-2+3", "'-2+3"),
        *((text, text) for text in ("-2", "+0.5", "-1e-05", "-", "red", "a=b", "")),
    ],
)
def test_a_spreadsheet_is_given_no_formula(text: str, cell: str) -> None:
    assert without_formula(text) == cell


def test_cells_and_headings_of_a_csv_are_text_and_numbers_stay_numbers() -> None:
    frame = pd.DataFrame({"name": ["=1+1", HIDDEN[:-1], "red"], "@x": [-0.5, None, 2.0]})
    text = csv_text(frame)
    assert text.replace("\n", "").isprintable()
    read = pd.read_csv(io.StringIO(text))
    assert list(read.columns) == ["name", "'@x"]
    assert list(read["name"]) == ["'=1+1", SHOWN[:-6], "red"]
    assert list(read["'@x"].dropna()) == [-0.5, 2.0]


def test_a_long_name_fits_a_file() -> None:
    assert len(file_stem("n" * 300)) == 100
