"""Curriculum temperature (CTKD): Li et al., AAAI 2023 (arXiv 2211.16231).

    ce_weight * CE + kd_weight * T^2 * KL(p || q),    T = 1 + 20 * sigmoid(theta)

theta is trained together with the student, by a reversed gradient, so T moves to values where the
student's loss is high. The factor of the reversal falls from 0 to -1 by a cosine over
`reversal_epochs`, so the task becomes harder step by step. With level=global theta is one number.
With level=row it is the output of a network with one hidden layer, whose inputs are the row's
logits of teacher and student. In both cases theta is 1 at first.

T, weights, theta's start and the curriculum are those of the authors' code. The network is our
reading: 256 hidden units, no batch normalisation, and no gradient into the logits it reads.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.lazy import torch
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Positive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

_THETA = 1.0
_HIDDEN = 256


class Config(LogitConfig):
    """What has a temperature, its bounds, and how fast the task becomes harder."""

    method: Literal["ctkd"] = Field("ctkd", description="method")
    ce_weight: float = Field(0.1, ge=0, description="weight of the cross entropy with labels")
    kd_weight: float = Field(0.9, ge=0, description="weight of the distillation term")
    level: Literal["global", "row"] = Field(
        "global", description="global: one temperature; row: one for each row"
    )
    lowest: float = Field(1.0, ge=0.01, le=1000, description="lowest temperature")
    span: float = Field(20.0, gt=0, le=1000, description="highest temperature less the lowest")
    reversal_epochs: Positive = Field(
        10.0, description="epochs over which the reversed gradient grows to its full size"
    )


class CurriculumTemperature(LogitMethod[Config]):
    """Cross entropy, and KL at a temperature that learns to make the task hard."""

    def begin(self, run: Run) -> None:
        """Builds the modules that are trained together with the student."""
        self.theta: nn.Parameter | nn.Sequential
        if self.config.level == "global":
            self.theta = torch.nn.Parameter(torch.full((1,), _THETA))
            return
        classes = int(run.split.labels.max()) + 1
        last = torch.nn.Linear(_HIDDEN, 1)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, _THETA)
        hidden = torch.nn.Linear(2 * classes, _HIDDEN)
        self.theta = torch.nn.Sequential(hidden, torch.nn.ReLU(), last)

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `kl` and the `temperature`."""
        config = self.config
        temperature = self._temperature(student.detach(), teacher)
        # The value does not change. The gradient is multiplied by the factor, which is at most 0.
        factor = reversal(run.epoch, config.reversal_epochs)
        temperature = factor * temperature + ((1 - factor) * temperature).detach()
        rows, kl, _ = kernels.kd_loss(
            student,
            teacher,
            temperature=temperature,
            kl_weight=config.kd_weight,
            reduction="none",
        )
        return rows, {"kl": kl, "temperature": temperature.detach()}

    def _temperature(self, student: Tensor, teacher: Tensor) -> Tensor:
        if isinstance(self.theta, torch.nn.Parameter):
            theta = self.theta.expand(len(student))
        else:
            theta = self.theta(torch.cat([student, teacher], dim=1).float()).squeeze(1)
        return self.config.lowest + self.config.span * theta.sigmoid()


def reversal(epoch: int, epochs: float) -> float:
    """Returns the factor of the temperature's gradient after `epoch` finished epochs."""
    return (math.cos(math.pi * min((epoch + 1) / epochs, 1.0)) - 1) / 2
