"""Attacks and corruptions: of training images, and as named conditions of the test split."""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from kdplatform.settings.schema.fields import NEUTRAL, Optional, PixelDistance, Section


class AttackFields(Section):
    """How far and in which way an attack changes an image."""

    eps: PixelDistance = Field(
        8 / 255, description="largest change of an image, in norm, such as 8/255; pixels are 0 to 1"
    )
    steps: int = Field(10, ge=1, description="steps of pgd")
    step_size: PixelDistance = Field(2 / 255, gt=0, description="size of a step of pgd")
    norm: Annotated[Literal["inf", "2"], BeforeValidator(str)] = Field(
        "inf", description="inf: largest change of a pixel; 2: Euclidean length of the change"
    )
    random_start: bool = Field(True, description="begin pgd at a random place within eps")

    def _refuse(self, names: Iterable[str], reason: str) -> None:
        """Refuses fields that mean nothing here and have another value than their default."""
        for name in names:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(f"{name}={value!r} is not allowed {reason}")


_OF_PGD = ("steps", "step_size", "random_start")
_ONE_STEP = "with attack='fgsm', which is one step of the size eps; allowed: with attack='pgd'"


class AttackConfig(AttackFields):
    """How images are changed to mislead a model; pixels are 0 to 1, whatever the normalisation."""

    attack: Literal["pgd", "fgsm"] = Field(
        "pgd", description="pgd: projected gradient descent; fgsm: one step of the size eps"
    )

    @model_validator(mode="after")
    def _one_step_has_no_choices(self) -> Self:
        self._refuse(_OF_PGD if self.attack == "fgsm" else (), _ONE_STEP)
        return self


class ConditionConfig(AttackFields):
    """What is done to test images before a model is asked about them: an attack or a corruption."""

    attack: Annotated[Literal["pgd", "fgsm"] | None, Optional] = Field(
        None, description="pgd: projected gradient descent; fgsm: one step of the size eps"
    )
    corruption: Annotated[
        Literal["gaussian_noise", "gaussian_blur", "contrast"] | None, Optional
    ] = Field(None, description="a common corruption, the same for every model")
    severity: int = Field(3, ge=1, le=5, description="strength of the corruption; 5: the strongest")
    seed: int = Field(0, ge=0, description="seed of noise and random starts")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.attack is None) == (self.corruption is None):
            given = "neither attack nor" if self.attack is None else "both attack and"
            raise ValueError(f"{given} corruption is given; allowed: one of them")
        if self.attack is None:
            self._refuse(AttackFields.model_fields, "without attack")
        else:
            self._refuse(["severity"], "without corruption")
            self._refuse(_OF_PGD if self.attack == "fgsm" else (), _ONE_STEP)
        return self

    @property
    def as_attack(self) -> AttackConfig | None:
        """The attack; None for a corruption."""
        fields = {name: getattr(self, name) for name in AttackFields.model_fields}
        return None if self.attack is None else AttackConfig(attack=self.attack, **fields)

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide a result, as plain JSON values."""
        mattering: tuple[str, ...] = ("corruption", "severity", "seed")
        if self.attack is not None:
            mattering = ("attack", *AttackFields.model_fields, "seed")
        return self.model_dump(mode="json", include=set(mattering))

    def given(self) -> dict[str, Any]:
        """Returns the fields that have another value than their default, as plain JSON values."""
        return self.model_dump(mode="json", exclude_defaults=True)


# A run's tag, of 8,000 characters at most, has their settings.
_MOST_CONDITIONS = 30


def named_conditions(value: object) -> object:
    """Returns conditions by their names, sorted.

    Args:
        value: a block such as `dark: {corruption: contrast}`, or as text
            `pgd20: attack=pgd, eps=8/255, steps=20; dark: corruption=contrast, severity=5`.

    Raises:
        ValueError: a name or a field is not allowed, or a name is given twice.
    """
    if isinstance(value, str):
        parts = [] if value.strip().lower() == "none" else value.split(";")
        pairs = [part.partition(":")[::2] for part in parts if part.strip()]
        if len({name.strip() for name, _ in pairs}) != len(pairs):
            raise ValueError("a condition is given twice")
        value = {name.strip(): _fields_of(name.strip(), words) for name, words in pairs}
    if not isinstance(value, dict):
        raise ValueError("not a block of conditions")
    if len(value) > _MOST_CONDITIONS:
        raise ValueError(f"{len(value)} conditions are given; allowed: at most {_MOST_CONDITIONS}")
    return {str(name): _condition(str(name), value[name]) for name in sorted(value, key=str)}


def _fields_of(name: str, text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    for field, equals, _ in pairs:
        if not equals:
            raise ValueError(f"{name}: {field.strip()!r} is not field=value, such as attack=pgd")
    if len({field.strip() for field, _, _ in pairs}) != len(pairs):
        raise ValueError(f"{name}: a field is given twice")
    return {field.strip(): value.strip() for field, _, value in pairs}


def _condition(name: str, fields: object) -> ConditionConfig:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,60}", name) or name in ("clean", ".", ".."):
        raise ValueError(f"{name!r} is no name of a condition; allowed: letters, digits, _ . -")
    if isinstance(fields, ConditionConfig):
        return fields
    try:
        return ConditionConfig.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            known = ", ".join(ConditionConfig.model_fields)
            raise ValueError(f"{name}: unknown field {place!r}; known: {known}") from None
        said = problem["msg"].removeprefix("Value error, ")
        where = f"{place}={problem['input']!r}: " if place else ""
        raise ValueError(f"{name}: {where}{said[:1].lower()}{said[1:]}") from None


class EvaluationConfig(Section):
    """What models are measured on beside the test split as it is."""

    conditions: Annotated[dict[str, ConditionConfig], BeforeValidator(named_conditions)] = Field(
        {},
        description="attacks and corruptions of the test split, such as pgd20: attack=pgd, "
        "eps=8/255, steps=20; none: only the unchanged test split",
        json_schema_extra=NEUTRAL,
    )
