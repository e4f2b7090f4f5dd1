"""Transformed teacher matching (TTM, WTTM): Zheng and Yang, ICLR 2024 (arXiv 2402.11148).

    ce_weight * CE + kd_weight * U * KL(softmax(z_t / T) || softmax(z_s)),    U = 1 for TTM

The student stays at temperature 1. The authors write the power p^gamma / sum p^gamma of the
teacher's probabilities, which is its softmax at T = 1/gamma. WTTM (`weighted`) has
U = sum_k p_k^gamma for each row, which is high where the teacher is uncertain.

T = 10 and kd_weight = 45 are the authors' example for one pair. The authors tune both for each
pair, and WTTM has a lower weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The teacher's temperature, and the weight of the distillation term."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["ttm"] = Field("ttm", description="method")
    temperature: Temperature = Field(
        10.0, description="softmax temperature T = 1/gamma of the teacher alone"
    )
    kd_weight: float = Field(45.0, ge=0, description="weight of the distillation term")
    weighted: bool = Field(
        False, description="weight rows by the sum of the teacher's p^gamma (WTTM)"
    )


class TransformedTeacherMatching(LogitMethod[Config]):
    """Cross entropy, and the divergence from the teacher at T to the student at 1."""

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; its part is `kl`."""
        config = self.config
        weight: float | Tensor = config.kd_weight
        if config.weighted:
            # sum_k p_k^(1/T), in logarithms.
            softened = (teacher.log_softmax(dim=1) / config.temperature).logsumexp(dim=1)
            weight = config.kd_weight * softened.exp()
        rows, kl, _ = kernels.kd_loss(
            student,
            teacher,
            student_temperature=1.0,
            teacher_temperature=config.temperature,
            kl_weight=weight,
            scale_by_t2=False,
            reduction="none",
        )
        return rows, {"kl": kl}
