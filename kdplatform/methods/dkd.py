"""Decoupled knowledge distillation (DKD): Zhao et al., CVPR 2022 (arXiv 2203.08679).

    ce_weight * CE + w * T^2 * (alpha * TCKD + beta * NCKD)

TCKD is the divergence of (true class, all others together) at T, and NCKD that of the other classes
among themselves. KL at T is TCKD + (1 - p_y) * NCKD, so plain distillation gives NCKD the least
weight where the teacher is most certain. Here NCKD has the same weight beta everywhere. w rises to
1 over `warmup_epochs`.

Defaults are those of the authors' code for CIFAR-100; beta is tuned for each pair there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.lazy import torch
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.methods._terms import one_against_rest, warm_up
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The weights of the two parts of the divergence."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["dkd"] = Field("dkd", description="method")
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student"
    )
    alpha: float = Field(1.0, ge=0, description="weight of the true class against the rest (TCKD)")
    beta: float = Field(8.0, ge=0, description="weight of the other classes by themselves (NCKD)")
    warmup_epochs: float = Field(
        20.0, ge=0, description="epochs over which the distillation term grows to its full weight"
    )


class DecoupledDistillation(LogitMethod[Config]):
    """Cross entropy, and separately weighted divergences of the true class and of the others."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `tckd` and `nckd`."""
        config, labels = self.config, batch.labels
        temperature = config.temperature
        tckd = kernels.kd_loss(
            one_against_rest(student / temperature, labels),
            one_against_rest(teacher / temperature, labels),
            temperature=1.0,
            kl_weight=config.alpha * temperature**2,
            reduction="none",
        )
        others = torch.ones_like(student, dtype=torch.bool).scatter(1, labels.unsqueeze(1), False)
        nckd = kernels.kd_loss(
            student,
            teacher,
            temperature=temperature,
            kl_weight=config.beta,
            class_mask=others,
            reduction="none",
        )
        rows = warm_up(run, config.warmup_epochs) * (tckd.loss + nckd.loss)
        return rows, {"tckd": tckd.kl, "nckd": nckd.kl}
