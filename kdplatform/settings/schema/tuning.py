"""A search for the temperature and weight that trade accuracy against fairness."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from kdplatform.settings.schema.fields import (
    NEUTRAL,
    Count,
    Fraction,
    Names,
    Optional,
    OptionalSpan,
    Positive,
    SearchedRange,
    Section,
    Span,
    Temperature,
)
from kdplatform.settings.schema.texts import searched_fields


class TuningConfig(Section):
    """A search for the temperature and weight that trade accuracy against fairness."""

    trials: int = Field(
        40, ge=1, description="number of points to try, including the project's temperatures"
    )
    unfairness: Literal["eod", "dpd", "accuracy_gap", "individual", "n_sc", "n_sg"] = Field(
        "eod", description="measure to be minimised, on validation data"
    )
    attribute: str = Field(
        "auto", description="attribute whose groups are compared; auto: the project's first"
    )
    mode: Literal["pareto", "constrained"] = Field(
        "pareto",
        description="pareto: both objectives; constrained: the fairest student that keeps enough "
        "accuracy",
    )
    sampler: Literal["tpe", "gp", "nsgaii", "random"] = Field("tpe", description="Optuna's sampler")
    sampler_seed: int = Field(0, ge=0, description="seed of the sampler")
    seeds_per_trial: int = Field(
        3, ge=1, description="students trained per point; their mean is the value of the point"
    )
    confirm_seeds: int = Field(
        5, ge=0, description="fresh seeds on which the chosen points are trained again; 0: none"
    )
    confirm_points: int = Field(
        5, ge=1, description="at most this many points of the front are trained again"
    )
    grid: bool = Field(True, description="try the project's own point and temperatures first")
    keep: float = Field(
        0.99, gt=0, le=1, description="share of the baseline's accuracy that counts as enough"
    )
    accuracy_margin: Annotated[Fraction | None, Optional] = Field(
        None, description="constraint: accuracy at least that of the NDS minus this"
    )
    worst_group_floor: Annotated[Fraction | None, Optional] = Field(
        None, description="constraint: worst-group accuracy at least this"
    )
    temperature: Annotated[tuple[Temperature, Temperature], Span] = Field(
        (1.0, 40.0), description="searched range of T, on a log scale"
    )
    alpha: Annotated[tuple[Fraction, Fraction], Span] = Field(
        (0.0, 1.0), description="searched range of alpha"
    )
    methods: Names = Field((), description="methods to choose from; none: the project's method")
    space: Annotated[dict[str, SearchedRange], BeforeValidator(searched_fields)] = Field(
        {},
        description="searched ranges of other fields, for the methods that have them, such as "
        "distillation.beta=0.5,8,log; none: they are fixed",
        json_schema_extra=NEUTRAL,
    )
    learning_rate: Annotated[tuple[Positive, Positive] | None, OptionalSpan] = Field(
        None, description="searched range of the student's learning rate; none: fixed"
    )
    epochs: Annotated[tuple[Count, Count] | None, OptionalSpan] = Field(
        None, description="searched range of the student's epochs; none: fixed"
    )

    @model_validator(mode="after")
    def _intervals_are_possible(self) -> Self:
        if self.confirm_seeds == 1:
            raise ValueError("confirm_seeds=1 is not allowed; allowed: 0, or at least 2")
        return self
