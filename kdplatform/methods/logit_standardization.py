"""Logit standardisation (LSKD): Sun et al., CVPR 2024 (arXiv 2403.01427).

    ce_weight * CE + kd_weight * D(Z(z_s), Z(z_t)),    Z(z) = (z - mean z) / (std z + 1e-7)

D is the distillation term of `base`, any other method of logits: T^2 * KL for `kd`. Mean and
standard deviation are over a row's classes, and the gradient flows through both, so that the
student need match only how logits relate, not their range. A row's temperature is T * std z.

`temperature` and `ce_weight` stand for those of the base, and `kd_weight` for alpha of `kd` and
`divergence`; weights such as alpha and beta of `dkd` are multiplied by it. The base's other fields
have its defaults, or what `base_fields` says. Defaults are those of the authors' code, which tunes
T and weight for each pair, and found ce_weight = 1 slightly better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, model_validator

from kdplatform.methods import (
    Batch,
    Run,
    build_method,
    method_class,
    method_config_class,
    method_names,
)
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import DistillationConfig, MethodConfig, Names, Temperature
from kdplatform.settings.words import allowed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kdplatform.data import Dataset

_EPSILON = 1e-7


class Config(LogitConfig):
    """Which distillation term is given standardised logits, and its weight."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["logit_standardization"] = Field("logit_standardization", description="method")
    ce_weight: float = Field(0.1, ge=0, description="weight of the cross entropy with labels")
    base: str = Field("kd", description="method of logits whose distillation term is taken")
    base_fields: Names = Field(
        (), description="fields of that method other than its defaults, such as beta=2,alpha=0.5"
    )
    temperature: Temperature = Field(2.0, description="softmax temperature T of the base")
    kd_weight: float = Field(9.0, ge=0, description="weight of the base's distillation term")
    std: Literal["unbiased", "population"] = Field(
        "unbiased", description="divide squares by the number of classes less one, or by it"
    )

    @property
    def softmax_temperature(self) -> float | None:
        """T, which is the base's; None where the base has none."""
        has_one = method_config_class(self.base).temperature_field is not None
        return self.temperature if has_one else None

    @property
    def base_config(self) -> MethodConfig:
        """The base with its fields."""
        own = method_config_class(self.base)
        given = dict(field.split("=", 1) for field in self.base_fields)
        return own.model_validate(given | _fixed(own, self.temperature))

    def matters(self) -> dict[str, Any]:
        """Returns the fields that decide a result, those of the base as its own key has them."""
        settings = super().matters()
        del settings["base_fields"]
        return settings | {"base": self.base_config.matters()}

    @model_validator(mode="after")
    def _base_is_one_of_logits(self) -> Self:
        known = [name for name in method_names() if _is_base(name)]
        if self.base not in known:
            raise ValueError(
                f"base={self.base!r} is no method whose logits can be standardised; "
                f"allowed: {', '.join(known)}"
            )
        own = method_config_class(self.base)
        taken = {"ce_weight", *DistillationConfig.model_fields, *_fixed(own, self.temperature)}
        free = [name for name in own.model_fields if name not in taken]
        for field in self.base_fields:
            name, equals, _ = field.partition("=")
            if name not in free or not equals:
                raise ValueError(
                    f"base_fields={field!r} is not allowed with base={self.base!r}; "
                    f"allowed: name=value, names: {', '.join(free) or 'none'}"
                )
        default = type(self).model_fields["temperature"].default
        if own.temperature_field is None and self.temperature != default:
            raise ValueError(
                f"temperature={self.temperature:g} is not allowed with base={self.base!r}, which "
                f"has no temperature of this kind; allowed: {default:g}, the default"
            )
        try:
            self.base_config  # noqa: B018 - builds it, to see that it can be built
        except ValidationError as error:
            problem = error.errors()[0]
            name = str(problem["loc"][0]) if problem["loc"] else ""
            words = f"; allowed: {allowed(own.model_fields[name])}" if name else ""
            value = f" {name}={problem['input']!r} is not allowed" if name else problem["msg"]
            raise ValueError(f"base_fields:{value}{words}") from None
        return self


class LogitStandardization(LogitMethod[Config]):
    """Cross entropy, and another method's distillation term of standardised logits."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        base = build_method(config.base_config)
        assert isinstance(base, LogitMethod)
        self.base: LogitMethod[DistillationConfig] = base
        self.needs = base.needs

    def check(self, dataset: Dataset) -> None:
        """Has the base look at the data."""
        self.base.check(dataset)

    def begin(self, run: Run) -> None:
        """Begins the base."""
        self.base.begin(run)

    def after_step(self, run: Run) -> None:
        """Passes the step on to the base."""
        self.base.after_step(run)

    def views(self, batch: Batch, run: Run) -> Sequence[Batch]:
        """Returns the base's views."""
        return self.base.views(batch, run)

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; its parts are the base's."""
        rows, parts = self.base.distillation(
            self._standardised(student), self._standardised(teacher), batch, run
        )
        return self.config.kd_weight * rows, parts

    def _standardised(self, logits: Tensor) -> Tensor:
        centred = logits - logits.mean(dim=1, keepdim=True)
        correction = 1 if self.config.std == "unbiased" else 0
        variance = centred.square().sum(dim=1, keepdim=True) / (logits.shape[1] - correction)
        # The root of 0 has no gradient; a row of equal logits stays as it is.
        constant = variance == 0
        std = variance.masked_fill(constant, 1.0).sqrt().masked_fill(constant, 0.0)
        return centred / (std + _EPSILON)


def _is_base(name: str) -> bool:
    own = method_class(name)
    return issubclass(own, LogitMethod) and own is not LogitStandardization


def _fixed(own: type[MethodConfig], temperature: float) -> dict[str, Any]:
    """Returns the fields of the base that this method's own stand for."""
    fixed = {own.temperature_field: temperature, own.alpha_field: 1.0}
    return {name: value for name, value in fixed.items() if name is not None}
