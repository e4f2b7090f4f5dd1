"""The block `tuning:` of a project: what is looked for, where, and how long."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from kdplatform import text_values
from kdplatform.training_config import LOSS_TEMPERATURES, NotAmongError, Section

Unfairness = Literal["eod", "dpd", "accuracy_gap", "individual", "n_sc"]


def _range(value: object) -> object:
    """Returns the two ends of a text such as `1,40`.

    Raises:
        ValueError: there are not two, or they run downwards.
    """
    if isinstance(value, str):
        value = tuple(float(part) for part in value.split(",") if part.strip())
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError("a range has two ends, such as 1,40")
    low, high = value
    if low > high:
        raise ValueError(f"the range is empty: {low:g} is above {high:g}")
    return low, high


def _optional_range(value: object) -> object:
    value = text_values.optional(value)
    return value if value is None else _range(value)


Temperature = Annotated[float, LOSS_TEMPERATURES]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Optional = BeforeValidator(text_values.optional)


class TuningConfig(Section):
    """A search for the temperature and weight that trade accuracy against fairness."""

    trials: int = Field(40, ge=1, description="points tried in all, the paper's grid among them")
    unfairness: Unfairness = Field("eod", description="what is to fall, on validation data")
    attribute: str = Field(
        "auto", description="whose groups unfairness compares; auto: the project's first"
    )
    mode: Literal["pareto", "constrained"] = Field(
        "pareto", description="both objectives, or the fairest that keeps enough accuracy"
    )
    sampler: Literal["tpe", "gp", "nsgaii", "random"] = Field("tpe", description="Optuna's sampler")
    sampler_seed: int = Field(0, ge=0, description="seed of the sampler")
    seeds_per_trial: int = Field(3, ge=1, description="students whose mean is a point's value")
    confirm_seeds: int = Field(
        5, ge=0, description="fresh seeds for the chosen points; 0: not trained again"
    )
    confirm_points: int = Field(5, ge=1, description="most points of the front trained again")
    grid: bool = Field(True, description="try the project's own point and temperatures first")
    keep: float = Field(
        0.99, gt=0, le=1, description="share of the baseline's accuracy to keep in mode constrained"
    )
    accuracy_margin: Annotated[Fraction | None, Optional] = Field(
        None, description="constraint: accuracy at least NDS minus this"
    )
    worst_group_floor: Annotated[Fraction | None, Optional] = Field(
        None, description="constraint: worst-group accuracy at least this"
    )
    temperature: Annotated[tuple[Temperature, Temperature], BeforeValidator(_range)] = Field(
        (1.0, 40.0), description="searched range of T, on a log scale"
    )
    alpha: Annotated[tuple[Fraction, Fraction], BeforeValidator(_range)] = Field(
        (0.0, 1.0), description="searched range of alpha"
    )
    methods: Annotated[tuple[str, ...], BeforeValidator(text_values.names)] = Field(
        (), description="objectives to choose from; none: the project's"
    )
    learning_rate: Annotated[tuple[Positive, Positive] | None, BeforeValidator(_optional_range)] = (
        Field(None, description="searched range of the student's learning rate; none: fixed")
    )
    epochs: Annotated[tuple[Count, Count] | None, BeforeValidator(_optional_range)] = Field(
        None, description="searched range of the student's epochs; none: fixed"
    )

    @field_validator("methods")
    @classmethod
    def _known_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            return value
        from kdplatform.objectives import method_names

        for name in value:
            if name not in method_names():
                raise NotAmongError(name, method_names())
        return value

    @model_validator(mode="after")
    def _intervals_are_possible(self) -> Self:
        if self.confirm_seeds == 1:
            raise ValueError("confirm_seeds=1 is not allowed; allowed: 0, or at least 2")
        return self
