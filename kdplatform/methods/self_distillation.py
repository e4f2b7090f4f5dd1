"""Distillation without a teacher (tf-KD_reg): Yuan et al., CVPR 2020 (arXiv 1909.11723).

    alpha * KL(softmax(v / T) || student) + (1 - alpha) * CE
    v_y = correct, and (1 - correct) / (C - 1) for every other class

The virtual teacher is always right. As in the authors' code, its probabilities v (not their
logarithms) are divided by T before the softmax. The student has temperature 1. The target is then
label smoothing with another strength. The gradient is that of cross entropy with the smoothing
alpha * C * u, where u is the target's probability of a wrong class.

correct = 0.99 is the authors'; T and alpha are ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdplatform.lazy import torch
from kdplatform.methods import Batch, Loss, Method, Run
from kdplatform.methods._terms import kd_rows
from kdplatform.settings.schema import Fraction, MethodConfig, Temperature


class Config(MethodConfig):
    """The virtual teacher and its weight."""

    method: Literal["self_distillation"] = Field("self_distillation", description="method")
    temperature: Temperature = Field(20.0, description="temperature T of the virtual teacher")
    alpha: Fraction = Field(0.1, description="weight of the virtual teacher")
    correct: Fraction = Field(
        0.99, description="probability that the virtual teacher gives the label"
    )


class SelfDistillation(Method[Config]):
    """The student learns from labels, and from a teacher that is made from labels."""

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl` and `ce`."""
        config = self.config
        student = run.student(batch.inputs)
        wrong = (1 - config.correct) / (student.logits.shape[1] - 1)
        virtual = torch.full_like(student.logits.detach(), wrong)
        virtual.scatter_(1, batch.labels.unsqueeze(1), config.correct)
        rows, kl, ce = kd_rows(
            run,
            student.logits,
            virtual,
            batch.labels,
            teacher_temperature=config.temperature,
            student_temperature=1.0,
            scale_by_t2=False,
            alpha=config.alpha,
        )
        return Loss(rows, student, {"kl": kl, "ce": ce})
