"""Refined logit distillation (RLD): Sun et al., ICCV 2025 (arXiv 2408.07703).

    ce_weight * CE + w * (alpha * T_a^2 * SCD + beta * T^2 * MCD)

SCD is a divergence at T_a between two pairs of probabilities: the teacher's (p_max, 1 - p_max) of
its highest class, and the student's (q_y, 1 - q_y) of the true class. MCD is the divergence at T
over all classes that the teacher ranks below the true one. A wrong teacher thus passes on its
confidence and its probabilities of the classes below the true one, but not its error. w rises to 1
over `warmup_epochs`.

If the teacher's single highest class is the true one and T_a = T, this is `dkd`. Defaults are those
of the authors' code for CIFAR-100; beta is tuned for each pair there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.methods._terms import one_against_rest, warm_up
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The weights and temperatures of the teacher's confidence and of its ranking."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["rld"] = Field("rld", description="method")
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of the classes below the true one"
    )
    confidence_temperature: Temperature = Field(
        1.0, description="softmax temperature T_a of the teacher's confidence"
    )
    alpha: float = Field(1.0, ge=0, description="weight of the teacher's confidence (SCD)")
    beta: float = Field(8.0, ge=0, description="weight of the classes below the true one (MCD)")
    warmup_epochs: float = Field(
        20.0, ge=0, description="epochs over which the distillation term grows to its full weight"
    )


class RefinedLogitDistillation(LogitMethod[Config]):
    """Cross entropy, the teacher's confidence for the true class, and the classes behind it."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `scd` and `mcd`."""
        config, labels = self.config, batch.labels
        at = config.confidence_temperature
        scd = kernels.kd_loss(
            one_against_rest(student / at, labels),
            one_against_rest(teacher / at, teacher.argmax(dim=1)),
            temperature=1.0,
            kl_weight=config.alpha * at**2,
            reduction="none",
        )
        mcd = kernels.kd_loss(
            student,
            teacher,
            temperature=config.temperature,
            kl_weight=config.beta,
            class_mask=teacher < teacher.gather(1, labels.unsqueeze(1)),
            reduction="none",
        )
        rows = warm_up(run, config.warmup_epochs) * (scd.loss + mcd.loss)
        return rows, {"scd": scd.kl, "mcd": mcd.kl}
