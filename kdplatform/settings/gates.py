"""The file of a gate: rules that metrics must keep, checked before anything is measured."""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from kdplatform.errors import UserError
from kdplatform.files import file_digest, not_there, user_path
from kdplatform.settings.yaml_files import read_mapping

NONE = "none"
ALLOWED = "none | the path of a YAML file with rules"


def _finite(value: float | None) -> float | None:
    if value is not None and not isfinite(value):
        raise ValueError("a bound is a finite number")
    return value


def _no_truth_value(value: object) -> object:
    if isinstance(value, bool):  # YAML reads yes, on and true alike, and they would count as 1
        raise ValueError(f"{value} is no number; allowed: a finite number")
    return value


Bound = Annotated[float | None, BeforeValidator(_no_truth_value), AfterValidator(_finite)]


class Rule(BaseModel):
    """The bounds of one metric, in the metric's own unit: 0.02 are two points of accuracy.

    Attributes:
        min: the least value that is allowed.
        max: the largest.
        max_drop: by how much it may fall below the reference's.
        max_rise: by how much it may rise above it.
        by: what must keep the bounds: the estimate, or the worse end of its 95% interval.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min: Bound = None
    max: Bound = None
    max_drop: Bound = None
    max_rise: Bound = None
    by: Literal["estimate", "interval"] = "estimate"

    @model_validator(mode="after")
    def _some_that_can_be_kept(self) -> Self:
        if not self.bounds:
            raise ValueError("no bound is given; allowed: min, max, max_drop, max_rise")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}; no value keeps both")
        drop, rise = self.max_drop, self.max_rise
        if drop is not None and rise is not None and -drop > rise:
            raise ValueError(
                f"max_drop {drop:g} and max_rise {rise:g} exclude each other; no change keeps both"
            )
        return self

    @property
    def bounds(self) -> dict[str, float]:
        """The bounds that are given, by name."""
        named = {
            "min": self.min,
            "max": self.max,
            "max_drop": self.max_drop,
            "max_rise": self.max_rise,
        }
        return {name: value for name, value in named.items() if value is not None}


class Gates(BaseModel):
    """The rules of a gate.

    Attributes:
        rules: by name of the metric.
        cannot_tell: how a rule counts that the interval can neither affirm nor deny. It must be
            said where a rule is judged by its interval.
        against: the role that `max_drop` and `max_rise` are measured from. In a comparison of two
            sides the reference is side A, whatever stands here.
        arms: whether every arm of a study must pass, or any one of them.
        date: when the thresholds were set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: dict[str, Rule] = Field(min_length=1)
    cannot_tell: Literal["passed", "failed"] | None = None
    against: Literal["teacher", "student"] = "teacher"
    arms: Literal["every", "any"] = "every"
    date: datetime.date | None = None

    @model_validator(mode="after")
    def _says_what_cannot_tell_is(self) -> Self:
        by_interval = [name for name, rule in self.rules.items() if rule.by == "interval"]
        if by_interval and self.cannot_tell is None:
            raise ValueError(
                f"{by_interval[0]} is judged by its interval, and cannot_tell is not given; allowed"
                ": cannot_tell: passed | failed"
            )
        return self


@dataclass(frozen=True)
class GateFile:
    """A file of rules as it was read.

    Attributes:
        digest: SHA-256 of the file.
    """

    path: Path
    digest: str
    gates: Gates


def read_gate(given: str) -> GateFile | None:
    """Reads the file of a gate; None where none is asked for.

    Raises:
        UserError: it is no file of rules.
    """
    if given == NONE:
        return None
    path = user_path("gate", given)
    if path.suffix not in {".yaml", ".yml"} or not path.is_file():
        raise not_there("gate", given, path, ALLOWED)
    content = read_mapping("gate", path, example="rules: {accuracy: {min: 0.9}}")
    try:
        return GateFile(path, file_digest(path), Gates.model_validate(content))
    except ValidationError as error:
        problems = "; ".join(_problems(error))
        raise UserError(f"gate={given!r}: {problems}") from None


# What stands where a rule, or the rules, should: by pydantic's name of the mistake.
_NO_RULES = {
    "too_short": "accuracy: {min: 0.9}",
    "dict_type": "accuracy: {min: 0.9}",
    "model_type": "{min: 0.9}",
}


def _problems(error: ValidationError) -> Iterator[str]:
    for each in error.errors():
        where = ".".join(map(str, each["loc"]))
        if each["type"] == "extra_forbidden":
            own = Rule if each["loc"][0] == "rules" else Gates
            known = ", ".join(own.model_fields)
            yield f"{where} does not exist; known: {known}"
        elif each["type"] in _NO_RULES:
            example = _NO_RULES[each["type"]]
            yield f"{where}: {each['input']!r} is no rule; allowed: such as {example}"
        elif each["type"] == "value_error":
            yield f"{where}: {each['ctx']['error']}".removeprefix(": ")
        else:
            message = each["msg"]
            yield f"{where}: {message[0].lower()}{message[1:]}, given {each['input']!r}"
