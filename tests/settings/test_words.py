"""Fields in words."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from kdplatform.errors import UserError
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import names
from kdplatform.settings.schema.fields import Seeds, Temperatures
from kdplatform.settings.words import allowed, plain_text


class Fields(BaseModel):
    count: int = Field(1, ge=1)
    share: float = Field(0.5, gt=0, le=1)
    choice: Literal["a", "b"] = "a"
    optional: Annotated[float, Field(lt=3)] | None = None
    several: tuple[Annotated[int, Field(ge=0)], ...] = ()
    switch: bool = True
    text: str = ""
    place: Path = Path()
    tiny: float = Field(1.0, ge=1e-6, le=1e6)
    seeds: Seeds = ()
    temperatures: Temperatures = ()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("count", "integer >= 1"),
        ("share", "number > 0 and <= 1"),
        ("choice", "a | b"),
        ("optional", "number < 3 | none"),
        ("several", "list of integer >= 0"),
        ("switch", "true | false"),
        ("text", "text"),
        ("place", "path"),
        ("tiny", "number >= 0.000001 and <= 1000000"),
        ("seeds", "numbers and ranges such as 0,2,5-9"),
        (
            "temperatures",
            "numbers and ranges such as 1-10,20,30.5, each >= 0.000001 and <= 1000000",
        ),
    ],
)
def test_what_a_field_takes_is_said_in_words(name: str, words: str) -> None:
    assert allowed(Fields.model_fields[name]) == words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "none"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (0, "0"),
        (4.0, "4"),
        (0.1, "0.1"),
        ("same", "same"),
        ((), "none"),
        ((1, 2.5, "x"), "1,2.5,x"),
    ],
)
def test_values_are_written_as_on_the_command_line(value: object, text: str) -> None:
    assert plain_text(value) == text


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("color,texture", ("color", "texture")),
        (" color , texture,", ("color", "texture")),
        ('"income, yearly",sex', ("income, yearly", "sex")),
        ('sex, "the ""region""",6" tall', ("sex", 'the "region"', '6" tall')),
        ('"none"', ("none",)),
        ("none", ()),
        ("", ()),
    ],
)
def test_names_are_read_as_they_are_written(text: str, parts: tuple[str, ...]) -> None:
    assert names(text) == parts
    assert names(plain_text(parts)) == parts


@pytest.mark.parametrize("text", ['"income, yearly', '"income" yearly,sex'])
def test_a_quote_that_is_not_closed_says_what_is_allowed(text: str) -> None:
    with pytest.raises(UserError, match=r'names are separated by commas; .*: "a, b",c; allowed'):
        load_project("digits", {"attributes": text})
