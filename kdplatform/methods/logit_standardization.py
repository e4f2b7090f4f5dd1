"""Logit standardisation (LSKD): Sun et al., CVPR 2024 (arXiv 2403.01427).

    ce_weight * CE + kd_weight * D(Z(z_s), Z(z_t)),    Z(z) = (z - mean z) / (std z + 1e-7)

D is the distillation term of `base`, any other method of logits: T^2 * KL for `kd`. Mean and
standard deviation are over a row's classes, and the gradient flows through both. The student must
match the relations between logits, but not their range. The effective temperature of a row is T *
std z.

`temperature` and `ce_weight` replace those of the base, and `kd_weight` replaces alpha of `kd` and
`divergence`. Weights such as alpha and beta of `dkd` are multiplied by `kd_weight`. The other
fields of the base have its defaults, or the values in `base_fields`. Defaults are those of the
authors' code. The authors tune T and weight for each pair, and found ce_weight = 1 slightly better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from kdplatform.methods import (
    Batch,
    Run,
    build_method,
    method_class,
)
from kdplatform.methods._building import BuildingConfig, methods_of_logits
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import DistillationConfig, MethodConfig, Names, Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from kdplatform.data import Dataset

_EPSILON = 1e-7


class Config(BuildingConfig, LogitConfig):
    """Which distillation term is given standardised logits, and its weight."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["logit_standardization"] = Field("logit_standardization", description="method")
    ce_weight: float = Field(0.1, ge=0, description="weight of the cross entropy with labels")
    base: str = Field("kd", description="method of logits whose distillation term is used")
    base_fields: Names = Field(
        (), description="fields of that method other than its defaults, such as beta=2,alpha=0.5"
    )
    temperature: Temperature = Field(2.0, description="softmax temperature T of the base")
    kd_weight: float = Field(9.0, ge=0, description="weight of the base's distillation term")
    std: Literal["unbiased", "population"] = Field(
        "unbiased",
        description="standard deviation over the classes: unbiased divides by their number "
        "less one, population by their number",
    )

    def fixed(self, own: type[MethodConfig]) -> Mapping[str, Any]:
        """Returns the base's temperature, and 1 for the weight of its distillation term."""
        fixed = {own.temperature_field: self.temperature, own.alpha_field: 1.0}
        return {name: value for name, value in fixed.items() if name is not None}

    @model_validator(mode="after")
    def _base_is_one_of_logits(self) -> Self:
        known = [n for n in methods_of_logits() if method_class(n) is not LogitStandardization]
        self.check_base(known, "no method whose logits can be standardised", ["ce_weight"])
        self.check_temperature(self.temperature)
        self.check_base_fields()
        return self


class LogitStandardization(LogitMethod[Config]):
    """Cross entropy, and the distillation term of another method on standardised logits."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        base = build_method(config.base_config)
        assert isinstance(base, LogitMethod)
        self.base: LogitMethod[DistillationConfig] = base
        self.needs = base.needs

    def check(self, dataset: Dataset) -> None:
        """Runs the base's check of the data."""
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
        # The root of 0 has no gradient, so a row of equal logits is not divided.
        constant = variance == 0
        std = variance.masked_fill(constant, 1.0).sqrt().masked_fill(constant, 0.0)
        return centred / (std + _EPSILON)
