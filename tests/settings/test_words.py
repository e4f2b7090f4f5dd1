"""Fields in words."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

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
