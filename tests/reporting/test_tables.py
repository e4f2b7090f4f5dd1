"""Tables as plain text."""

import math

import pytest

from kdplatform.reporting.tables import percent, text_table


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5], "50.00"),
        ([0.123456], "12.35"),
        ([1.0, 0.9], "95.00 ± 7.07"),
        ([0.5, 0.5, 0.5], "50.00 ± 0.00"),
        ([], "-"),
        ([math.nan], "-"),
        ([math.nan, 0.25], "25.00"),
    ],
)
def test_fractions_are_shown_in_per_cent_with_their_spread(values: list[float], text: str) -> None:
    assert percent(values) == text


def test_the_first_column_is_aligned_left_and_numbers_right() -> None:
    rows = [("Teacher", "100.00", "-"), ("DS", "93.3", "1 of 3")]
    assert text_table(("", "accuracy", "n_tc"), rows).splitlines() == [
        "         accuracy    n_tc",
        "-------  --------  ------",
        "Teacher    100.00       -",
        "DS           93.3  1 of 3",
    ]


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(("role", "n"), []).splitlines() == ["role  n", "----  -"]


def test_no_line_ends_in_spaces() -> None:
    table = text_table(("what", "is"), [("a", ""), ("b", "x")])
    assert all(line == line.rstrip() for line in table.splitlines())
