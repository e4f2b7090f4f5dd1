"""Distillation from a teacher whose mistakes are corrected by the label.

    swap  T^2 * KL(p || q), the teacher's highest and true logits exchanged where they differ
    rc    T^2 * KL(p || q) + rc_weight * T^2 * KL(softmax(z' / T) || q): z' is the student's own
          detached logits with max_k z_k added to the true one
    lr    where the teacher is right: CE + mse_weight * mean_k (z_s - z_t)^2
          where it is wrong: mean_k (softmax(z_s) - (b * softmax(z_t) + (1 - b) * onehot))^2,
          b = share / (p_max - p_y + 1)

Each is multiplied by `kd_weight` and added to ce_weight * CE. In lr, CE counts only where the
teacher is right. The three corrections are those that RLD (arXiv 2408.07703) is compared with in
its code, which we read. There swap is named LA, and lr is named revision. That code averages lr
separately over rows where the teacher is right and where it is wrong. Here a row's weight does not
depend on other rows. rc depends on the zero point of the logits.

rc_weight, mse_weight and share are that code's; ce_weight and kd_weight of 1 are ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Fraction, Temperature

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


class Config(LogitConfig):
    """The correction and its weights."""

    temperature_field: ClassVar[str] = "temperature"

    method: Literal["teacher_correction"] = Field("teacher_correction", description="method")
    correction: Literal["swap", "rc", "lr"] = Field(
        "swap",
        description="swap: the teacher's highest and true logits change places; rc: a "
        "second term from the student's own logits; lr: squared errors",
    )
    temperature: Temperature = Field(
        4.0, description="softmax temperature T of teacher and student; correction=lr has none"
    )
    kd_weight: float = Field(1.0, ge=0, description="weight of the distillation term")
    rc_weight: float = Field(0.1, ge=0, description="correction=rc: weight of its second term")
    mse_weight: float = Field(
        4.0,
        ge=0,
        description="correction=lr: weight of the squared difference of logits, where the "
        "teacher is right",
    )
    share: Fraction = Field(
        0.8, description="correction=lr: largest share of a wrong teacher in the target"
    )


class TeacherCorrection(LogitMethod[Config]):
    """Cross entropy, and distillation from a corrected teacher."""

    def label_weight(self, teacher: Tensor, batch: Batch) -> float | Tensor:
        """Returns `ce_weight`; for lr it is 0 where the teacher is wrong."""
        weight = self.config.ce_weight
        return weight * _right(teacher, batch.labels) if self.config.correction == "lr" else weight

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; its part is `correction` (lr), or `kl` (and `rc`)."""
        config, labels = self.config, batch.labels
        if config.correction == "lr":
            rows = self._revised(student, teacher, labels)
            return config.kd_weight * rows, {"correction": rows.detach()}
        if config.correction == "swap":
            teacher = _swapped(teacher, labels)
        rows, kl = self._divergence(student, teacher, config.kd_weight)
        if config.correction == "swap":
            return rows, {"kl": kl}
        own = student.detach()
        raised = own.scatter_add(1, labels.unsqueeze(1), own.amax(dim=1, keepdim=True))
        rc_rows, rc = self._divergence(student, raised, config.kd_weight * config.rc_weight)
        return rows + rc_rows, {"kl": kl, "rc": rc}

    def _divergence(self, student: Tensor, teacher: Tensor, weight: float) -> tuple[Tensor, Tensor]:
        temperature = self.config.temperature
        rows, kl, _ = kernels.kd_loss(
            student, teacher, temperature=temperature, kl_weight=weight, reduction="none"
        )
        return rows, kl

    def _revised(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        index = labels.unsqueeze(1)
        q, p = student.softmax(dim=1), teacher.softmax(dim=1)
        share = self.config.share / (p.amax(dim=1, keepdim=True) - p.gather(1, index) + 1)
        onehot = functional.one_hot(labels, p.shape[1])
        wrong = (q - (share * p + (1 - share) * onehot)).square().mean(dim=1)
        right = self.config.mse_weight * (student - teacher).square().mean(dim=1)
        return torch.where(_right(teacher, labels), right, wrong)


def _right(teacher: Tensor, labels: Tensor) -> Tensor:
    return teacher.argmax(dim=1) == labels


def _swapped(teacher: Tensor, labels: Tensor) -> Tensor:
    index = labels.unsqueeze(1)
    highest, where = teacher.max(dim=1, keepdim=True)
    return teacher.scatter(1, where, teacher.gather(1, index)).scatter(1, index, highest)
