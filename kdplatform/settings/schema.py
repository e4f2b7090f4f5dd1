"""The blocks of a project file: their fields, types and ranges.

Nothing here knows the names of datasets, models and methods. `settings.project` checks names.
"""

import csv
from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

_LONGEST_LIST = 10_000


# ---- texts of the command line that stand for several values, or for none
#
# Any other value is returned unchanged, so that the field's own type checks it.


def parse_integers(text: str) -> list[int]:
    """Parses `0-4`, `3`, `0,2,5-7` or `none` into integers.

    Raises:
        ValueError: a part is not an integer or a rising range, or the list would be very long.
    """
    parsed: list[int] = []
    for part in _parts(text):
        low, dash, high = part.partition("-")
        if not low.isdecimal() or (dash and not high.isdecimal()):
            raise ValueError(f"{part!r} is neither a number nor a range such as 0-4")
        if dash and int(high) < int(low):
            raise ValueError(f"{part!r} runs downwards")
        if int(high or low) - int(low) >= _LONGEST_LIST:
            raise ValueError(f"{part!r} is more than {_LONGEST_LIST} numbers")
        parsed.extend(range(int(low), int(high or low) + 1))
    return parsed


def integers(value: object) -> object:
    """Returns the integers of a text such as `0,2,5-7`, and a single integer as a tuple."""
    if isinstance(value, int):
        return (value,)
    return parse_integers(value) if isinstance(value, str) else value


def numbers(value: object) -> object:
    """Returns whole ranges and single numbers of a text such as `1-10,20,30.5`."""
    if isinstance(value, int | float):
        return (value,)
    if not isinstance(value, str):
        return value
    parsed: list[object] = []
    for part in _parts(value):
        parsed.extend(parse_integers(part) if "-" in part else [part])
    return parsed


def names(value: object) -> object:
    """Returns the names of a text such as `color,texture`. A name with a comma is quoted.

    Raises:
        ValueError: a quote is not closed, or text follows it.
    """
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "none":
        return ()
    try:
        [parts] = csv.reader([value], skipinitialspace=True, strict=True) if value else [[]]
    except (csv.Error, ValueError):
        raise ValueError('names are separated by commas; one with a comma: "a, b",c') from None
    return tuple(part.strip() for part in parts if part.strip())


def span(value: object) -> object:
    """Returns the two ends of a text such as `1,40`.

    Raises:
        ValueError: there are not two, or they fall.
    """
    if isinstance(value, str):
        value = tuple(float(part) for part in value.split(",") if part.strip())
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError("a range has two ends, such as 1,40")
    low, high = value
    if low > high:
        raise ValueError(f"the range is empty: {low:g} is above {high:g}")
    return low, high


def searched_fields(value: object) -> object:
    """Returns ranges by the names of their fields, sorted: (low, high, linear or log).

    Args:
        value: a block such as `distillation.beta: [0.5, 8, log]`, or as text
            `distillation.beta=0.5,8,log; distillation.gamma=1,4`.

    Raises:
        ValueError: a name or a range is missing, or a range cannot be searched.
    """
    if isinstance(value, str):
        parts = [] if value.strip().lower() == "none" else value.split(";")
        pairs = [part.partition("=")[::2] for part in parts if part.strip()]
        if len({name.strip() for name, _ in pairs}) != len(pairs):
            raise ValueError("a field is given twice")
        value = {name.strip(): ends for name, ends in pairs}
    if not isinstance(value, dict):
        raise ValueError("not a block of fields and their ranges")
    return {name: _searched_range(name, value[name]) for name in sorted(value, key=str)}


def _searched_range(name: object, ends: object) -> tuple[float, float, str]:
    parts = _parts(ends) if isinstance(ends, str) else ends
    said = f"{name}={ends!r}"
    scale = "linear"
    if isinstance(parts, list | tuple) and len(parts) == 3:
        *parts, scale = parts
    if not isinstance(parts, list | tuple) or len(parts) != 2 or scale not in ("linear", "log"):
        raise ValueError(f"{said} has not two ends, and linear or log, such as 0.5,8,log")
    try:
        if any(isinstance(end, bool) for end in parts):
            raise ValueError
        low, high = (float(end) for end in parts)
        if not (isfinite(low) and isfinite(high)):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"{said} has an end that is no finite number") from None
    if low > high:
        raise ValueError(f"{said}: the range is empty")
    if scale == "log" and low <= 0:
        raise ValueError(f"{said}: a range on a log scale begins above 0")
    return low, high, scale


def channels(value: object) -> object:
    """Returns the numbers of a text such as `0.5,0.5,0.5`, a single number as a tuple, or None."""
    if isinstance(value, int | float):
        return (value,)
    value = optional(value)
    return tuple(_parts(value)) if isinstance(value, str) else value


def optional(value: object) -> object:
    """Returns None for the text `none` or `null`."""
    return None if isinstance(value, str) and value.lower() in {"none", "null"} else value


def _parts(text: str) -> list[str]:
    """Returns the parts between the commas. `none` is an empty list."""
    return [] if text.strip().lower() == "none" else [part.strip() for part in text.split(",")]


# ---- shared by the fields

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
Count = Annotated[int, Field(ge=1)]
Optional = BeforeValidator(optional)
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(integers)]
Temperatures = Annotated[tuple[Temperature, ...], BeforeValidator(numbers)]
Names = Annotated[tuple[str, ...], BeforeValidator(names)]
Span = BeforeValidator(span)
OptionalSpan = BeforeValidator(lambda value: None if optional(value) is None else span(value))
Channels = BeforeValidator(channels)
# Two ends, and whether the range between is searched on a linear or a log scale.
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
        """Refuses a value given twice in a list; ends of a range and channels may be equal."""
        metadata = cls.model_fields[str(info.field_name)].metadata
        listed = not any(kind in metadata for kind in (Span, OptionalSpan, Channels))
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


class DatasetConfig(Section):
    """The configuration of every dataset. Each dataset adds its own fields."""

    name: str = Field(description="dataset, one of kdplatform/data")
    imbalance: float = Field(
        1.0,
        ge=1,
        description="ratio of training examples, first class to last, with exponential decay",
        json_schema_extra=NEUTRAL,
    )
    imbalance_seed: int = Field(
        0, ge=0, description="seed that chooses the kept examples", json_schema_extra=NEUTRAL
    )
    unlabeled_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training split whose labels are hidden",
        json_schema_extra=NEUTRAL,
    )
    unlabeled_seed: int = Field(
        0, ge=0, description="chooses the examples without labels", json_schema_extra=NEUTRAL
    )


class MethodConfig(Section):
    """The method that a model is trained by. Each method adds its own fields."""

    # The names of the method's softmax temperature, and of the weight of its distillation term.
    temperature_field: ClassVar[str | None] = None
    alpha_field: ClassVar[str | None] = None

    method: str = Field("cross_entropy", description="one of kdplatform/methods")

    @property
    def softmax_temperature(self) -> float | None:
        """The method's temperature, or None if it has none."""
        return None if self.temperature_field is None else getattr(self, self.temperature_field)

    @property
    def distillation_weight(self) -> float | None:
        """The weight of the method's distillation term, or None if it has none."""
        return None if self.alpha_field is None else getattr(self, self.alpha_field)

    def at(self, **fields: object) -> Self:
        """Returns the method with other values of `temperature` and `alpha`, by those names.

        Raises:
            ValueError: the method has no such field.
        """
        own = {"temperature": self.temperature_field, "alpha": self.alpha_field}
        update: dict[str, object] = {}
        for name, value in fields.items():
            field = own.get(name, name)
            if field not in type(self).model_fields:
                raise ValueError(f"method {self.method!r} has no {name}")
            update[str(field)] = value
        return self.model_copy(update=update)

    def at_each(self, temperatures: Iterable[float]) -> list[Self]:
        """Returns the method at every temperature, or only itself if it has none."""
        if self.softmax_temperature is None:
            return [self]
        return [self.at(temperature=temperature) for temperature in temperatures]


class DistillationConfig(MethodConfig):
    """How the distilled student learns from its teacher. Each method adds its own fields."""

    teacher_seed: Literal["same"] | Annotated[int, Field(ge=0)] = Field(
        "same", description="same: students of seed i learn from teacher i; a number: all from one"
    )

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide a result; the teacher meant stands in a key of its own."""
        settings = super().matters()
        del settings["teacher_seed"]
        return settings


class AugmentationConfig(Section):
    """Random changes of the training images, drawn again in every epoch."""

    crop_padding: int = Field(0, ge=0, description="pixels added around before a random crop")
    horizontal_flip: bool = Field(False, description="mirror half of the images")
    random_resized_crop: bool = Field(
        False, description="a random part of the image, resized; for streamed images"
    )
    smallest_crop: float = Field(
        0.08, gt=0, le=1, description="smallest share of the area in a random resized crop"
    )

    @property
    def active(self) -> bool:
        """Whether inputs differ from epoch to epoch."""
        return self.horizontal_flip or self.crop_padding > 0 or self.random_resized_crop

    @model_validator(mode="after")
    def _one_kind_of_crop(self) -> Self:
        if self.random_resized_crop and self.crop_padding:
            raise ValueError(
                f"crop_padding={self.crop_padding} is not allowed with random_resized_crop=true; "
                "allowed: one of them"
            )
        return self


class TrainingConfig(Section):
    """One model and how it is trained."""

    model: str = Field(
        description="one of kdplatform/models, or a function of yours as module:function"
    )
    pretrained: bool = Field(
        False, description="start from the weights its library publishes", json_schema_extra=NEUTRAL
    )
    weights: Annotated[str | None, Optional] = Field(
        None,
        description="start from a state dict (.pt, .pth, .safetensors), a run id, or an MLflow "
        "runs:/ or models:/ URI",
        json_schema_extra=NEUTRAL,
    )
    weights_entry: Annotated[str | None, Optional] = Field(
        None,
        description="which of a checkpoint's state dicts, such as state_dict_ema; none: the plain",
        json_schema_extra=NEUTRAL,
    )
    mean: Annotated[tuple[Fraction, ...] | None, Channels] = Field(
        None,
        description="mean per channel of the images that the weights were trained on, 1 the "
        "brightest; none: that of the weights or the training split",
        json_schema_extra=NEUTRAL,
    )
    std: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...] | None, Channels] = Field(
        None, description="standard deviation, likewise", json_schema_extra=NEUTRAL
    )
    frozen: bool = Field(
        False,
        description="take the weights as they are, without training",
        json_schema_extra=NEUTRAL,
    )
    image_size: Annotated[Count | None, Optional] = Field(
        None,
        description="side to which the model resizes images; none: that of its weights",
        json_schema_extra=NEUTRAL,
    )
    method: SerializeAsAny[MethodConfig] = Field(
        MethodConfig(), description="method of training without a teacher"
    )
    epochs: int = Field(ge=1, description="passes over the training split")
    batch_size: int = Field(128, ge=1, description="examples per step")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="optimiser")
    learning_rate: float = Field(gt=0, description="highest learning rate of the schedule")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    schedule: Literal["constant", "step", "cosine"] = Field(
        "cosine", description="learning rate over the epochs"
    )
    milestones: Annotated[tuple[int, ...], BeforeValidator(integers)] = Field(
        (), description="epochs after which schedule=step multiplies the rate by decay"
    )
    decay: float = Field(0.1, gt=0, le=1, description="factor at each milestone")
    warmup_epochs: float = Field(
        0.0, ge=0, description="epochs of linear warm-up, at most the whole training"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="smoothing of the hard labels")
    gradient_clip: Annotated[Positive | None, Optional] = Field(
        None, description="largest gradient norm; none: not clipped"
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the hardware computes in it, else fp32"
    )
    channels_last: bool = Field(True, description="NHWC memory layout")
    validate_every: int = Field(
        1, ge=1, description="epochs between two measurements on the validation split"
    )
    augmentation: AugmentationConfig = AugmentationConfig()

    @property
    def warmup(self) -> float:
        """Epochs of warm-up: `warmup_epochs`, cut to the training if that is shorter."""
        return min(self.warmup_epochs, float(self.epochs))

    @model_validator(mode="before")
    @classmethod
    def _frozen_needs_no_recipe(cls, value: object) -> object:
        if isinstance(value, dict) and str(value.get("frozen", "")).lower() == "true":
            return {"epochs": 1, "learning_rate": 1.0, **value}
        return value

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained and weights are given; allowed: one of them")
        if self.weights_entry is not None and self.weights is None:
            raise ValueError(
                f"weights_entry={self.weights_entry!r} is not allowed without weights; allowed: "
                "with a checkpoint"
            )
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError(
                f"mean={self.mean} and std={self.std} do not fit together; allowed: both, of as "
                "many channels, or none"
            )
        if self.mean is not None and self.pretrained:
            raise ValueError(
                "mean and std are not allowed with pretrained=true; allowed: none, for published "
                "weights have their own"
            )
        if self.milestones and self.schedule != "step":
            raise ValueError(
                f"milestones={','.join(map(str, self.milestones))!r} is not allowed with "
                f"schedule={self.schedule!r}; allowed: with schedule='step'"
            )
        return self

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide the resulting model, as plain JSON values.

        The training fields of a frozen model decide nothing. The caller adds the method, because a
        distilled student has another one.
        """
        settings = super().matters()
        del settings["method"]
        settings["warmup_epochs"] = self.warmup
        settings["augmentation"] = self.augmentation.matters()
        if not self.frozen:
            return settings
        start = ("model", "pretrained", "weights", "weights_entry", "frozen")
        inputs = ("image_size", "mean", "std")
        return {name: value for name, value in settings.items() if name in start + inputs}


class TuningConfig(Section):
    """A search for the temperature and weight that trade accuracy against fairness."""

    trials: int = Field(40, ge=1, description="total number of points, including the paper's grid")
    unfairness: Literal["eod", "dpd", "accuracy_gap", "individual", "n_sc"] = Field(
        "eod", description="unfairness to minimise, on validation data"
    )
    attribute: str = Field(
        "auto", description="attribute whose groups are compared; auto: the project's first"
    )
    mode: Literal["pareto", "constrained"] = Field(
        "pareto", description="both objectives, or the fairest that keeps enough accuracy"
    )
    sampler: Literal["tpe", "gp", "nsgaii", "random"] = Field("tpe", description="Optuna's sampler")
    sampler_seed: int = Field(0, ge=0, description="seed of the sampler")
    seeds_per_trial: int = Field(3, ge=1, description="students per point, whose mean is its value")
    confirm_seeds: int = Field(
        5, ge=0, description="fresh seeds for the chosen points; 0: not trained again"
    )
    confirm_points: int = Field(
        5, ge=1, description="at most this many points of the front trained again"
    )
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
    temperature: Annotated[tuple[Temperature, Temperature], Span] = Field(
        (1.0, 40.0), description="searched range of T, on a log scale"
    )
    alpha: Annotated[tuple[Fraction, Fraction], Span] = Field(
        (0.0, 1.0), description="searched range of alpha"
    )
    methods: Names = Field((), description="methods to choose from; none: the project's")
    space: Annotated[dict[str, SearchedRange], BeforeValidator(searched_fields)] = Field(
        {},
        description="searched ranges of other fields of the methods that have them, such as "
        "distillation.beta=0.5,8,log; none: fixed",
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


class ProjectConfig(Section):
    """A study: its data, its pair of models, its temperatures, seeds and attributes."""

    name: str = Field(description="name of the project", pattern=r"^[A-Za-z0-9_.-]+$")
    dataset: SerializeAsAny[DatasetConfig]
    teacher: TrainingConfig
    student: TrainingConfig
    distillation: SerializeAsAny[DistillationConfig]
    temperatures: Temperatures = Field(min_length=1, description="temperatures of the study")
    methods: tuple[SerializeAsAny[DistillationConfig], ...] = Field(
        (),
        description="methods that a sweep compares; none: the one of distillation",
        json_schema_extra=NEUTRAL,
    )
    seeds: Seeds = Field((0,), min_length=1, description="seeds such as 0, 0-4 or 0,2,5")
    attributes: Names = Field((), description="attributes whose groups are compared")
    min_group_size: int = Field(
        30, ge=1, description="groups smaller than this are listed and not measured"
    )
    tuning: TuningConfig = TuningConfig()

    @property
    def compared_methods(self) -> tuple[DistillationConfig, ...]:
        """The methods of a sweep."""
        return self.methods or (self.distillation,)

    @property
    def shared_teacher_seed(self) -> int | None:
        """The seed of the one teacher that all students learn from; None: each seed has its own.

        A frozen teacher is the same for every seed.
        """
        if self.teacher.frozen:
            return 0
        chosen = self.distillation.teacher_seed
        return None if chosen == "same" else chosen

    def teacher_seed(self, seed: int) -> int:
        """Returns the seed of the teacher that the students of `seed` learn from."""
        shared = self.shared_teacher_seed
        return seed if shared is None else shared

    @model_validator(mode="after")
    def _students_train(self) -> Self:
        if self.student.frozen:
            raise ValueError("student.frozen=True is not allowed; allowed: false, students train")
        return self


def neutral_values(config: BaseModel, prefix: str = "") -> dict[str, object]:
    """Returns the default of every `NEUTRAL` field, by the names that `flatten` gives.

    Records from before such a field were made at its default.
    """
    found: dict[str, object] = {}
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            found |= neutral_values(value, f"{prefix}{name}.")
        elif field.json_schema_extra == NEUTRAL:
            found[prefix + name] = field.default
    return found


def flatten(config: BaseModel, prefix: str = "") -> dict[str, object]:
    """Returns every field as dotted name and plain value. A method is under its block's name.

    Of the methods that a sweep compares it has only the names. The method of `teacher.method` is
    `teacher.method`, and its own fields are `teacher.method.field`.
    """
    flat: dict[str, object] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if name == "methods" and isinstance(config, ProjectConfig):
            flat[prefix + name] = tuple(method.method for method in config.methods)
        elif not isinstance(value, BaseModel):
            flat[prefix + name] = value
        elif isinstance(value, MethodConfig) and name == "method":
            flat[prefix + name] = value.method
            own = flatten(value, f"{prefix}{name}.")
            flat |= {key: field for key, field in own.items() if key != f"{prefix}{name}.method"}
        else:
            flat |= flatten(value, f"{prefix}{name}.")
    return flat
