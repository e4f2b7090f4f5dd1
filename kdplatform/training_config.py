"""The configuration of one model and its training; what all blocks of a configuration share."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kdplatform import text_values
from kdplatform.field_words import plain_text

# What the loss computes with digits to spare.
LOSS_TEMPERATURES = Field(ge=1e-6, le=1e6)


class NotAmongError(ValueError):
    """A name of something that does not exist; in which field, only the caller knows."""

    def __init__(self, value: str, known: Sequence[str]) -> None:
        super().__init__(value)
        self.value = value
        self.known = known


class Section(BaseModel):
    """A block of the configuration: immutable, finite numbers only, unknown names rejected."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """Refuses YAML's yes and no where a number is meant; they would count as 1 and 0."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and annotation is not bool:
            raise ValueError("a truth value")
        return value


# The fields that say what a model's weights are before its training.
_START = {"pretrained", "weights", "frozen", "image_size"}


class AugmentationConfig(Section):
    """Random changes of the training images, drawn anew in every epoch."""

    crop_padding: int = Field(0, ge=0, description="pixels added around before a random crop")
    horizontal_flip: bool = Field(False, description="mirror half of the images")
    random_resized_crop: bool = Field(
        False, description="a random part of the image, resized; for streamed images"
    )
    smallest_crop: float = Field(
        0.08, gt=0, le=1, description="least share of the area that a random resized crop shows"
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
    pretrained: bool = Field(False, description="start from the weights its library publishes")
    weights: Annotated[str | None, BeforeValidator(text_values.optional)] = Field(
        None,
        description="start from a state dict (.pt), a run id, or an MLflow runs:/ or models:/ URI",
    )
    frozen: bool = Field(False, description="take the weights as they are, without training")
    image_size: Annotated[
        Annotated[int, Field(ge=1)] | None, BeforeValidator(text_values.optional)
    ] = Field(
        None,
        description="side to which the model resizes images; none: as its weights want them",
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
    milestones: Annotated[tuple[int, ...], BeforeValidator(text_values.integers)] = Field(
        (), description="epochs after which schedule=step multiplies the rate by decay"
    )
    decay: float = Field(0.1, gt=0, le=1, description="factor at each milestone")
    warmup_epochs: float = Field(0.0, ge=0, description="epochs of linear warm-up")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="smoothing of the hard labels")
    gradient_clip: Annotated[
        Annotated[float, Field(gt=0)] | None, BeforeValidator(text_values.optional)
    ] = Field(None, description="largest gradient norm; none: not clipped")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 autocast where the hardware computes in it, else fp32"
    )
    channels_last: bool = Field(True, description="NHWC memory layout")
    validate_every: int = Field(
        1, ge=1, description="epochs from one look at the validation split to the next"
    )
    augmentation: AugmentationConfig = AugmentationConfig()

    @field_validator("model")
    @classmethod
    def _known_model(cls, value: str) -> str:
        from kdplatform.models import model_names
        from kdplatform.models.user_models import is_user_model

        if value not in model_names() and not is_user_model(value):
            raise NotAmongError(value, model_names())
        return value

    @model_validator(mode="before")
    @classmethod
    def _frozen_needs_no_recipe(cls, value: object) -> object:
        if isinstance(value, dict) and str(value.get("frozen", "")).lower() == "true":
            return {"epochs": 1, "learning_rate": 1.0, **value}
        return value

    @model_validator(mode="after")
    def _start_is_one(self) -> Self:
        from kdplatform.models.pretrained import pretrained_names
        from kdplatform.models.user_models import is_user_model

        own = is_user_model(self.model)
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained and weights are given; allowed: one of them")
        if own and (self.pretrained or self.weights is not None or self.image_size is not None):
            raise ValueError(
                f"model={self.model!r} brings weights and inputs of its own; allowed: without "
                "pretrained, weights and image_size"
            )
        if self.pretrained and self.model not in pretrained_names():
            raise ValueError(
                f"pretrained=True is not allowed with model={self.model!r}; allowed: with "
                f"{', '.join(pretrained_names())}"
            )
        if self.frozen and not (own or self.pretrained or self.weights is not None):
            raise ValueError(
                "frozen=True is not allowed for fresh weights; allowed: with pretrained=true, "
                "weights, or a model of yours, module:function"
            )
        return self

    @model_validator(mode="after")
    def _milestones_fit(self) -> Self:
        if self.milestones and self.schedule != "step":
            raise ValueError(
                f"milestones={plain_text(self.milestones)!r} is not allowed with "
                f"schedule={self.schedule!r}; allowed: with schedule='step'"
            )
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs={self.warmup_epochs:g} is not allowed; "
                f"allowed: at most epochs={self.epochs}"
            )
        return self

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide what model comes out, as plain JSON values.

        A frozen model's recipe decides nothing; fields at "as always" are left out.
        """
        start = self.model_dump(mode="json", include=_START, exclude_defaults=True)
        recipe = {} if self.frozen else self.model_dump(mode="json", exclude=_START)
        return {"model": self.model, **recipe, **start}
