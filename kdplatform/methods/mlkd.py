"""Multi-level logit distillation (MLKD): Jin, Wang, Lin, CVPR 2023.

    ce_weight * CE + kd_weight * sum over T of (KL_i + G_i + H),    of the softmaxes p, q at T

    KL_i  T^2 * KL(p_i || q_i)                                       rows of low confidence
    G_i   sum_j (p_i . p_j - q_i . q_j)^2                            rows of low confidence
    H     sum_k sum_l (P_k . P_l - Q_k . Q_l)^2 / K                  classes of low confidence

P_k and Q_k are the columns of the batch. A row has low confidence if the teacher's highest
probability at temperature 1 is at most the median over the batch. A class has low confidence if the
teacher's sum over the batch is at most the median over the classes. H belongs to the batch and is
added to each row.

This differs from the authors' code, which was read in two public copies. There the choice of rows
and classes multiplies finished sums, and therefore has no effect. The KL of the second view uses
the first view at T = 2 and 6, and the G and H of the second view are computed and left out. Here
the choice works, and `views=2` adds the whole loss of another augmentation of the same images. That
augmentation is of the same kind as the first; the authors use a stronger one.

Defaults are that code's: its five temperatures, and the weights of plain distillation.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.methods import Batch, Run
from kdplatform.methods._logits import LogitConfig, LogitMethod
from kdplatform.settings.schema import Temperatures

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor


class Config(LogitConfig):
    """The temperatures at which the levels are compared, and the number of views."""

    method: Literal["mlkd"] = Field("mlkd", description="method")
    ce_weight: float = Field(0.1, ge=0, description="weight of the cross entropy with labels")
    kd_weight: float = Field(0.9, ge=0, description="weight of the distillation term")
    temperatures: Temperatures = Field(
        (4.0, 3.0, 5.0, 2.0, 6.0),
        min_length=1,
        description="softmax temperatures, whose terms are summed",
    )
    views: int = Field(1, ge=1, le=2, description="augmentations of each image in a step")


class MultiLevelDistillation(LogitMethod[Config]):
    """Cross entropy, and agreement on rows, between rows and between classes."""

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        if config.views == 2:  # two views of an image that is not augmented are equal
            self.needs = replace(self.needs, augmentation=True)

    def views(self, batch: Batch, run: Run) -> Sequence[Batch]:
        """Returns the batch, and with views=2 also its images with another augmentation."""
        return [batch] if self.config.views == 1 else [batch, run.another_view(batch)]

    def distillation(
        self, student: Tensor, teacher: Tensor, batch: Batch, run: Run
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the distillation term; parts are `kl`, `rows` and `classes`."""
        levels = [self._levels(student, teacher, float(t)) for t in self.config.temperatures]
        kl, rows, classes = (sum(terms[1:], terms[0]) for terms in zip(*levels, strict=True))
        distilled = self.config.kd_weight * (kl + rows + classes)
        parts = {"kl": kl.detach(), "rows": rows.detach(), "classes": classes.detach()}
        return distilled, parts

    def _levels(
        self, student: Tensor, teacher: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns KL, G and H at a temperature: [B] each."""
        certain = teacher.softmax(dim=1)
        row, column = certain.amax(dim=1), certain.sum(dim=0)
        low_rows, low_classes = row <= row.quantile(0.5), column <= column.quantile(0.5)
        kl = kernels.kd_loss(
            student,
            teacher,
            temperature=temperature,
            kl_weight=low_rows.to(student.dtype),
            reduction="none",
        )
        p, q = (teacher / temperature).softmax(dim=1), (student / temperature).softmax(dim=1)
        between_rows = low_rows * (p @ p.t() - q @ q.t()).square().sum(dim=1)
        between_classes = low_classes * (p.t() @ p - q.t() @ q).square().sum(dim=1)
        return kl.loss, between_rows, between_classes.mean().expand_as(between_rows)
