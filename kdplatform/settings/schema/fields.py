"""What the fields of all blocks share: their types, and the rules of a block."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from kdplatform.settings.schema.notation import INTEGERS, NUMBERS
from kdplatform.settings.schema.texts import (
    channels,
    entries,
    integers,
    names,
    numbers,
    optional,
    quotient,
    shares,
    span,
)

# The temperatures that the loss takes. Beyond them float32 has no digits left: the relative error
# of the gradient is about 2e-8 T, and T^2 nears the ends of float32's range.
LOWEST_TEMPERATURE = 1e-6
HIGHEST_TEMPERATURE = 1e6
# Marks a field whose default changes nothing. At its default it enters no key and no digest, so
# that runs from before the field keep their keys.
NEUTRAL: dict[str, Any] = {"neutral": True}

Temperature = Annotated[float, Field(ge=LOWEST_TEMPERATURE, le=HIGHEST_TEMPERATURE)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
# A distance between images whose pixels are 0 to 1, as a number or such as 8/255.
PixelDistance = Annotated[float, BeforeValidator(quotient), Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Optional = BeforeValidator(optional)
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(integers), INTEGERS]
Temperatures = Annotated[tuple[Temperature, ...], BeforeValidator(numbers), NUMBERS]
Names = Annotated[tuple[str, ...], BeforeValidator(names)]
Entries = Annotated[tuple[str, ...], BeforeValidator(entries)]
Span = BeforeValidator(span)
OptionalSpan = BeforeValidator(lambda value: None if optional(value) is None else span(value))
Channels = BeforeValidator(channels)
Shares = BeforeValidator(shares)
# Two ends, and whether what lies between is searched on a linear or a log scale.
SearchedRange = tuple[float, float, Literal["linear", "log"]]


class Section(BaseModel):
    """A block of the configuration: immutable, with finite numbers only and no unknown names."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuses YAML's yes and no for a number. They would count as 1 and 0."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError("a truth value")
        return value

    @field_validator("*")
    @classmethod
    def _each_value_once(cls, value: object, info: ValidationInfo) -> object:
        """Refuses a value given twice in a list; ends of a range, channels, shares may be equal."""
        metadata = cls.model_fields[str(info.field_name)].metadata
        listed = not any(kind in metadata for kind in (Span, OptionalSpan, Channels, Shares))
        if isinstance(value, tuple) and listed and len(set(value)) != len(value):
            raise ValueError("a value is given twice")
        return value

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide a result, as plain JSON values.

        A field marked `NEUTRAL` is omitted at its default, so that a new field changes no key.
        """
        neutral = {
            name
            for name, field in type(self).model_fields.items()
            if field.json_schema_extra == NEUTRAL and getattr(self, name) == field.default
        }
        return self.model_dump(mode="json", exclude=neutral)
