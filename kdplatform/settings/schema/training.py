"""A model and how it is trained: its method, its recipe and where its weights come from."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator

from kdplatform.settings.schema.fields import (
    NEUTRAL,
    Channels,
    Count,
    Entries,
    Fraction,
    Names,
    Optional,
    Positive,
    Section,
    Temperature,
)
from kdplatform.settings.schema.notation import INTEGERS
from kdplatform.settings.schema.texts import integers


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
    milestones: Annotated[tuple[int, ...], BeforeValidator(integers), INTEGERS] = Field(
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
