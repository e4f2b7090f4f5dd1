"""Texts that stand for several values."""

from collections.abc import Callable

import pytest

from kdplatform.settings.schema import integers, names, numbers, optional, parse_integers

Reader = Callable[[object], object]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0-4", [0, 1, 2, 3, 4]),
        ("0,2,5-7", [0, 2, 5, 6, 7]),
        (" 1 , 3 ", [1, 3]),
        ("3-3", [3]),
        ("none", []),
    ],
)
def test_integers_are_single_numbers_and_ranges(text: str, numbers: list[int]) -> None:
    assert parse_integers(text) == numbers


@pytest.mark.parametrize("text", ["4-0", "x", "", "-1", "1-", "1-x", "1.5", "0-99999999999"])
def test_what_is_no_rising_range_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"numbers|downwards|neither"):
        parse_integers(text)


@pytest.mark.parametrize("read", [integers, numbers, names, optional])
@pytest.mark.parametrize("value", [[1, "a"], {"a": 1}, None])
def test_what_is_no_text_is_left_to_the_fields_type(read: Reader, value: object) -> None:
    assert read(value) is value


@pytest.mark.parametrize(("read", "value"), [(integers, 3), (numbers, 2.5)])
def test_a_single_number_is_a_list_of_one(read: Reader, value: object) -> None:
    assert read(value) == (value,)


def test_ranges_and_fractions_mix() -> None:
    assert numbers("1-3,20,0.5") == [1, 2, 3, "20", "0.5"]


@pytest.mark.parametrize("text", ["none", "None", "null"])
def test_none_is_a_word(text: str) -> None:
    assert optional(text) is None
