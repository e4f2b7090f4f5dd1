"""DIST, distillation from a stronger teacher: Huang et al., NeurIPS 2022 (arXiv 2205.10536).

    ce_weight * CE + T^2 * (beta * (1 - r between classes) + gamma * (1 - r within classes))

r is Pearson's correlation of the softmaxes at T of teacher and student: of a row over its classes,
and of a class over the rows of the batch. The student learns the relations between classes and
between rows, and not the probabilities themselves. A row or class that is constant in both models,
such as every class of a batch of one row, adds nothing.

Defaults are those of the code that we read (the repository of TTM). That code multiplies by T^2,
and the paper's appendix does not; `scale_by_t2` chooses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform.lazy import functional
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The weights of the relations between classes and within them."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["dist"] = Field("dist", description="method")
    temperature: Temperature = Field(
        1.0, description="softmax temperature T of teacher and student"
    )
    beta: float = Field(1.0, ge=0, description="weight of the relation between a row's classes")
    gamma: float = Field(1.0, ge=0, description="weight of the relation of a class over the batch")
    scale_by_t2: bool = Field(True, description="multiply the distillation term by T^2")


class RelationalDistillation(LogitMethod[Config]):
    """Cross entropy, and correlations of probabilities over classes and over the batch."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `between_classes` and `within_classes`."""
        config = self.config
        q = (student / config.temperature).softmax(dim=1)
        p = (teacher / config.temperature).softmax(dim=1)
        between = _distance(q, p)
        # The mean over classes belongs to the batch. Each row has this value, so the mean over rows
        # keeps it.
        within = _distance(q.t(), p.t()).mean().expand_as(between)
        scale = config.temperature**2 if config.scale_by_t2 else 1.0
        rows = scale * (config.beta * between + config.gamma * within)
        return rows, {"between_classes": between.detach(), "within_classes": within.detach()}


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Returns 1 - Pearson's correlation of each row: [N].

    It is computed as half the squared distance of the two centred rows at length 1. This form keeps
    its digits near 0, and is 0 if both rows are constant.
    """
    units = [functional.normalize(x - x.mean(dim=1, keepdim=True), dim=1) for x in (one, other)]
    return (units[0] - units[1]).square().sum(dim=1) / 2
