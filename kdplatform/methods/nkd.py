"""Normalised knowledge distillation (NKD): Yang et al., ICCV 2023 (arXiv 2303.13005).

    ce_weight * CE + p_y * (-log q_y) + gamma * T^2 * KL(p^ || q^)

p_y and q_y are probabilities of the true class at temperature 1. p^ and q^ are softmaxes at T over
the other classes. The authors write the cross entropy -sum p^ log q^, which has the same gradient.
The term of the true class does not have its minimum at q = p. It strengthens the label where the
teacher agrees with it.

Defaults are those of the authors' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The weight and the temperature of the classes beside the true one."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["nkd"] = Field("nkd", description="method")
    temperature: Temperature = Field(
        1.0, description="softmax temperature T of the classes beside the true one"
    )
    gamma: float = Field(1.5, ge=0, description="weight of the classes beside the true one")


class NormalisedDistillation(LogitMethod[Config]):
    """The label, weighted by the teacher's belief in it, and the other classes among themselves."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `target` and `non_target`."""
        index = batch.labels.unsqueeze(1)
        belief = teacher.softmax(dim=1).gather(1, index).squeeze(1)
        target = belief * functional.cross_entropy(student, batch.labels, reduction="none")
        others = kernels.kd_loss(
            student,
            teacher,
            temperature=self.config.temperature,
            kl_weight=self.config.gamma,
            class_mask=torch.ones_like(student, dtype=torch.bool).scatter(1, index, False),
            reduction="none",
        )
        return target + others.loss, {"target": target.detach(), "non_target": others.kl}
