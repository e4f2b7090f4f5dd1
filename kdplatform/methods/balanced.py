"""Distillation corrected for the frequencies of the classes in training, by a bias of the logits.

    ce_weight * CE + kd_weight * T^2 * KL(softmax(t / T + b_t) || softmax(s / T + b_s))

form="bkd" (balanced knowledge distillation, Zhang et al. 2021, arXiv 2104.10510): b_t = log w, with
w_c = (1 - beta) / (1 - beta^n_c) for a class with n_c training examples. This multiplies the
teacher's probabilities by w and scales them to sum 1. Weights and defaults are those of the
authors' code.

form="logit_adjustment": b_s = log pi_c, the share of the class in training. The student learns the
teacher's probabilities without the class frequencies, so its own logits are balanced. This is our
reading of logit adjustment (Menon et al., ICLR 2021, arXiv 2007.07314) in a distillation. The cross
entropy with labels does not change; `ce_weight=0` leaves it out.

LTKD (arXiv 2506.18496), which corrects groups of classes, is `group_stratified` with
`cross_term=recalibrated`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Run
from kdplatform.methods._groups import class_counts, effective_weights
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """Whose logits are corrected, and by how much."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["balanced"] = Field("balanced", description="method")
    temperature: Temperature = Field(
        2.0, description="softmax temperature T of teacher and student"
    )
    kd_weight: float = Field(1.0, ge=0, description="weight of the distillation term")
    form: Literal["bkd", "logit_adjustment"] = Field(
        "bkd",
        description="bkd: rare classes of the teacher count more; logit_adjustment: log "
        "frequencies of the classes are added to the student's logits",
    )
    beta: float = Field(
        0.9999,
        ge=0,
        lt=1,
        description="form=bkd: 0 weighs all classes equally; near 1, by 1 / examples of the class",
    )


class Balanced(LogitMethod[Config]):
    """Cross entropy, and a divergence without the class frequencies."""

    def begin(self, run: Run) -> None:
        """Counts the classes."""
        counts = class_counts(run.split)
        if self.config.form == "bkd":
            weights = effective_weights(counts, self.config.beta)
        else:
            weights = counts.double()
        self.bias = (weights / weights.sum()).log()

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; its part is `kl`."""
        config = self.config
        bias = (config.temperature * self.bias).to(student.dtype)
        if config.form == "bkd":
            teacher = teacher + bias
        else:
            student = student + bias
        rows, kl, _ = kernels.kd_loss(
            student,
            teacher,
            temperature=config.temperature,
            kl_weight=config.kd_weight,
            reduction="none",
        )
        return rows, {"kl": kl}
