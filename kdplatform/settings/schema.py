"""The blocks of a project file: their fields, types and ranges.

Nothing here knows the names of datasets, models and methods. `settings.project` checks names.
"""

import csv
import re
from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
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


def entries(value: object) -> object:
    """Returns the names of a text, or of a list in which YAML has read some as numbers."""
    if isinstance(value, list | tuple):
        return tuple(str(part) if type(part) is int else part for part in value)
    found = names(str(value) if type(value) is int else value)
    if found == () and str(value).strip().lower() != "none":
        raise ValueError("the list is empty")
    return found


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
        raise ValueError(f"{said} is no range; allowed: two ends, such as 0.5,8 or 0.5,8,log")
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


def shares(value: object) -> object:
    """Returns the numbers of a text such as `1,2,1`, which may be equal; none of `none`."""
    if isinstance(value, int | float):
        return (value,)
    return tuple(_parts(value)) if isinstance(value, str) else value


def quotient(value: object) -> object:
    """Returns the number of a text such as `8/255`."""
    above, slash, below = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        return float(above) / float(below) if slash else value
    except (ValueError, ZeroDivisionError):
        return value


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
# A distance between images whose pixels are 0 to 1, as a number or such as 8/255.
PixelDistance = Annotated[float, BeforeValidator(quotient), Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Optional = BeforeValidator(optional)
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], BeforeValidator(integers)]
Temperatures = Annotated[tuple[Temperature, ...], BeforeValidator(numbers)]
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


class DatasetConfig(Section):
    """The configuration of every dataset. Each dataset adds its own fields."""

    name: str = Field(description="name of a dataset of kdplatform/data")
    imbalance: float = Field(
        1.0,
        ge=1,
        description="training examples of the first class divided by those of the last; the "
        "classes between fall exponentially; 1: unchanged",
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
        0, ge=0, description="seed that chooses the hidden labels", json_schema_extra=NEUTRAL
    )


class MethodConfig(Section):
    """The method that a model is trained by. Each method adds its own fields."""

    # The names of the method's softmax temperature, and of the weight of its distillation term.
    temperature_field: ClassVar[str | None] = None
    alpha_field: ClassVar[str | None] = None

    method: str = Field("cross_entropy", description="name of a method of kdplatform/methods")

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

    def first_training(self, training: "TrainingConfig") -> "TrainingConfig | None":
        """Returns how the model is trained that the method needs before; None: it needs none.

        Args:
            training: of the model that the method trains.
        """
        return None

    def at_each(self, temperatures: Iterable[float]) -> list[Self]:
        """Returns the method at every temperature, or only itself if it has none."""
        if self.softmax_temperature is None:
            return [self]
        return [self.at(temperature=temperature) for temperature in temperatures]


class _AttackFields(Section):
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


class AttackConfig(_AttackFields):
    """How images are changed to mislead a model; pixels are 0 to 1, whatever the normalisation."""

    attack: Literal["pgd", "fgsm"] = Field(
        "pgd", description="pgd: projected gradient descent; fgsm: one step of the size eps"
    )

    @model_validator(mode="after")
    def _one_step_has_no_choices(self) -> Self:
        self._refuse(_OF_PGD if self.attack == "fgsm" else (), _ONE_STEP)
        return self


class DistillationConfig(MethodConfig):
    """How the distilled student learns from its teacher. Each method adds its own fields."""

    teacher_seed: Literal["same"] | Annotated[int, Field(ge=0)] = Field(
        "same",
        description="same: students of seed i learn from the teacher of seed i; a number: all "
        "learn from the teacher of this seed",
    )
    teachers: Entries = Field(
        (),
        description="teachers, instead of teacher_seed: seeds such as 0-3, PROJECT:0-3, run ids, "
        "and files of weights; none: the teacher of teacher_seed",
        json_schema_extra=NEUTRAL,
    )
    start: Literal["fresh", "teacher"] = Field(
        "fresh",
        description="weights that the student starts from; teacher: the teacher's, where names and "
        "shapes agree",
        json_schema_extra=NEUTRAL,
    )

    @property
    def reference_teacher(self) -> str | None:
        """A further model that the method asks, named as one of `teachers`; None: it asks none."""
        return None

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide a result; teachers stand in keys of their own."""
        settings = super().matters()
        return {k: v for k, v in settings.items() if k not in ("teacher_seed", "teachers")}


class AugmentationConfig(Section):
    """Random changes of the training images, drawn again in every epoch."""

    crop_padding: int = Field(0, ge=0, description="pixels added on each side before a random crop")
    horizontal_flip: bool = Field(False, description="mirror half of the images")
    random_resized_crop: bool = Field(
        False, description="cut out a random part of the image and resize it; for streamed images"
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
        description="name of a model of kdplatform/models, or your own function as module:function"
    )
    pretrained: bool = Field(
        False,
        description="start from the weights that the model's library publishes",
        json_schema_extra=NEUTRAL,
    )
    weights: Annotated[str | None, Optional] = Field(
        None,
        description="start from a state dict (.pt, .pth, .safetensors), a run id, or an MLflow "
        "runs:/ or models:/ URI",
        json_schema_extra=NEUTRAL,
    )
    weights_entry: Annotated[str | None, Optional] = Field(
        None,
        description="state dict of a checkpoint, such as state_dict_ema; none: the plain one",
        json_schema_extra=NEUTRAL,
    )
    mean: Annotated[tuple[Fraction, ...] | None, Channels] = Field(
        None,
        description="mean of each channel of the images that the weights were trained on, 1 being "
        "the brightest; none: the mean given with the weights, or that of the training split",
        json_schema_extra=NEUTRAL,
    )
    std: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...] | None, Channels] = Field(
        None, description="standard deviation of each channel; see mean", json_schema_extra=NEUTRAL
    )
    frozen: bool = Field(
        False,
        description="use the weights as they are, without training",
        json_schema_extra=NEUTRAL,
    )
    logits: Names = Field(
        (),
        description="files of a teacher's logits (.parquet or .csv with id and logits) instead of "
        "a model; several files are several teachers",
        json_schema_extra=NEUTRAL,
    )
    logits_temperature: Temperature = Field(
        1.0,
        description="softmax temperature of log-probabilities in these files",
        json_schema_extra=NEUTRAL,
    )
    image_size: Annotated[Count | None, Optional] = Field(
        None,
        description="side in pixels to which the model resizes images; none: the side of its "
        "weights",
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
        "cosine", description="how the learning rate changes over the epochs"
    )
    milestones: Annotated[tuple[int, ...], BeforeValidator(integers)] = Field(
        (), description="epochs after which schedule=step multiplies the rate by decay"
    )
    decay: float = Field(0.1, gt=0, le=1, description="factor of the rate at each milestone")
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
        if not isinstance(value, dict):
            return value
        logits = value.get("logits")
        if logits and str(logits).lower() != "none":
            value = {"frozen": True, **value}
        if str(value.get("frozen", "")).lower() == "true":
            return {"epochs": 1, "learning_rate": 1.0, **value}
        return value

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        if self.logits and not self.frozen:
            raise ValueError("frozen=false is not allowed with logits; allowed: true, or no logits")
        if self.logits and (self.pretrained or self.weights is not None):
            raise ValueError("logits and weights are given; allowed: one of them")
        if self.logits_temperature != 1 and not self.logits:
            raise ValueError(
                f"logits_temperature={self.logits_temperature:g} is not allowed without logits; "
                "allowed: with files of log-probabilities"
            )
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained and weights are given; allowed: one of them")
        if self.weights_entry is not None and self.weights is None:
            raise ValueError(
                f"weights_entry={self.weights_entry!r} is not allowed without weights; allowed: "
                "with a checkpoint"
            )
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise ValueError(
                f"mean={self.mean} and std={self.std} do not fit together; allowed: both, for "
                "equally many channels, or none"
            )
        if self.mean is not None and self.pretrained:
            raise ValueError(
                "mean and std are not allowed with pretrained=true; allowed: none, because "
                "published weights have their own"
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
        if self.logits:
            # No model at all; where the files lie decides nothing, the caller adds what they hold.
            return {"logits_temperature": self.logits_temperature}
        if not self.frozen:
            return settings
        start = ("model", "pretrained", "weights", "weights_entry", "frozen")
        inputs = ("image_size", "mean", "std")
        return {name: value for name, value in settings.items() if name in start + inputs}


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


class ConditionConfig(_AttackFields):
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
            self._refuse(_AttackFields.model_fields, "without attack")
        else:
            self._refuse(["severity"], "without corruption")
            self._refuse(_OF_PGD if self.attack == "fgsm" else (), _ONE_STEP)
        return self

    @property
    def as_attack(self) -> AttackConfig | None:
        """The attack; None for a corruption."""
        fields = {name: getattr(self, name) for name in _AttackFields.model_fields}
        return None if self.attack is None else AttackConfig(attack=self.attack, **fields)

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide a result, as plain JSON values."""
        mattering: tuple[str, ...] = ("corruption", "severity", "seed")
        if self.attack is not None:
            mattering = ("attack", *_AttackFields.model_fields, "seed")
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
        description="methods that a sweep compares; none: distillation.method",
        json_schema_extra=NEUTRAL,
    )
    seeds: Seeds = Field((0,), min_length=1, description="seeds such as 0, 0-4 or 0,2,5")
    attributes: Names = Field((), description="attributes whose groups are compared")
    min_group_size: int = Field(
        30, ge=1, description="groups with fewer examples than this are listed but not measured"
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    tuning: TuningConfig = TuningConfig()

    @property
    def compared_methods(self) -> tuple[DistillationConfig, ...]:
        """The methods of a sweep."""
        return self.methods or (self.distillation,)

    @property
    def shared_teacher_seed(self) -> int | None:
        """The seed of the one teacher that all students learn from; None: each seed has its own.

        A frozen teacher is the same for every seed, and so are several that no seed chooses: they
        are one ensemble, of seed 0.
        """
        if self.teacher.frozen:
            return 0
        if named := self.distillation.teachers:
            if any(entry.rpartition(":")[2] == "same" for entry in named):
                return None
            one = len(named) == 1 and re.fullmatch(r"\d{1,9}", named[0])
            return int(named[0]) if one else 0
        chosen = self.distillation.teacher_seed
        return None if chosen == "same" else chosen

    def teacher_seed(self, seed: int) -> int:
        """Returns the seed of the teacher that the students of `seed` learn from."""
        shared = self.shared_teacher_seed
        return seed if shared is None else shared

    @model_validator(mode="after")
    def _students_train(self) -> Self:
        if self.student.logits:
            raise ValueError("student.logits is not allowed; allowed: teacher.logits")
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
        if isinstance(config, EvaluationConfig):
            flat[prefix + name] = {key: own.given() for key, own in value.items()}
        elif name == "methods" and isinstance(config, ProjectConfig):
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
