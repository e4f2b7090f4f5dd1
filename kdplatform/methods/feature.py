"""Distillation of features: FitNets, relations, similarities and neuron selectivity.

    ce_weight * CE + weight * D(f_s, f_t)

f_s and f_t are the features of student and teacher: the input of the last linear layer, as one row
per example [B, D]. Every model has them. D depends on `kind`. The value of D for a row is scaled so
that the mean over rows equals the paper's value:

    fitnet       |P f_s - f_t|^2 / D_t, P a linear layer that is trained along
                 (Romero et al., ICLR 2015, arXiv 1412.6550)
    rkd          2 D_distance + 4 D_angle: Huber's loss of the distances of pairs, each divided by
                 the mean distance of its model, and of the cosines of the angles of triples
                 (Park et al., CVPR 2019, arXiv 1904.05068)
    similarity   |N(f_s f_s^T) - N(f_t f_t^T)|^2 / B^2, N makes the rows of a matrix unit vectors
                 (SP: Tung and Mori, ICCV 2019, arXiv 1907.09682)
    selectivity  |G_s - G_t|^2, G = sum_d n_d n_d^T / D, n_d [B] the responses of feature d to the
                 batch, as a unit vector (NST: Huang and Wang 2017, arXiv 1707.01219; the maximum
                 mean discrepancy with the kernel (x . y)^2, which compares Gram matrices)

Our reading uses the last features for all kinds. FitNets first train a middle layer by itself, and
SP and NST use feature maps with positions in the image. In `selectivity` the examples of the batch
replace the positions. The teacher may have another number of features.

The default of `weight` is 1 for `fitnet`, which is ours. For the others it is the usual weight in
benchmarks of distillation (Tian et al. 2020, 1910.10699): 12.5 for `rkd`, that is 25 distance + 50
angle, 3000 for `similarity`, and 50 for `selectivity`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._features import (
    distances,
    flat_features,
    student_width,
    teacher_width,
    unit_rows,
)
from kdplatform.methods._logits import LogitConfig
from kdplatform.methods._terms import cross_entropy
from kdplatform.settings.schema import Optional

if TYPE_CHECKING:
    from torch import Tensor

_WEIGHTS = {"fitnet": 1.0, "rkd": 12.5, "similarity": 3000.0, "selectivity": 50.0}


class Config(LogitConfig):
    """How features are compared, and the weight of the comparison."""

    method: Literal["feature"] = Field("feature", description="method")
    kind: Literal["fitnet", "rkd", "similarity", "selectivity"] = Field(
        "fitnet", description="how the features of student and teacher are compared"
    )
    weight: Annotated[float | None, Field(ge=0), Optional] = Field(
        None, description="weight of the comparison; none: the default of its kind"
    )


class FeatureDistillation(Method[Config]):
    """Cross entropy, and a distance between the features of student and teacher."""

    needs = Needs(teacher="live")

    def begin(self, run: Run) -> None:
        """Builds the layer from the student's features to the teacher's, if the kind has one."""
        if self.config.kind == "fitnet":
            self.projector = torch.nn.Linear(student_width(run), teacher_width(run))

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `ce` and `feature`."""
        teacher = flat_features(run.teacher(batch, features=True))
        student = run.student(batch.inputs, features=True)
        ce = cross_entropy(run, student.logits, batch.labels)
        compared = self._compared(flat_features(student), teacher)
        weight = self.config.weight
        weight = _WEIGHTS[self.config.kind] if weight is None else weight
        rows = self.config.ce_weight * ce + weight * compared
        return Loss(rows, student, {"ce": ce.detach(), "feature": compared.detach()})

    def _compared(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Returns D for each row: [B]."""
        if self.config.kind == "fitnet":
            weight, bias = self.projector.weight, self.projector.bias
            projected = functional.linear(student, weight.to(student.dtype), bias.to(student.dtype))
            return (projected - teacher).square().mean(dim=1)
        if self.config.kind == "rkd":
            return 2 * distance_relation(student, teacher) + 4 * angle_relation(student, teacher)
        if self.config.kind == "similarity":
            return similarity(student, teacher)
        return selectivity(student, teacher)


def distance_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns RKD's distance term by the first example of each pair: [B].

    Args:
        student: features [B, D_s].
        teacher: features [B, D_t].
    """
    one, other = (_by_mean(distances(features)) for features in (student, teacher))
    return functional.smooth_l1_loss(one, other, reduction="none").mean(dim=1)


def _by_mean(values: Tensor) -> Tensor:
    present = values > 0
    mean = values.sum() / present.sum().clamp(min=1)
    return values / torch.where(mean > 0, mean, torch.ones_like(mean))


def angle_relation(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns RKD's angle term by the example at the vertex of each triple: [B]."""
    one, other = (_cosines(features) for features in (student, teacher))
    return functional.smooth_l1_loss(one, other, reduction="none").mean(dim=(1, 2))


def _cosines(features: Tensor) -> Tensor:
    """Returns the cosine of the angle at i between j and k: [B (i), B (j), B (k)]."""
    towards = unit_rows(features[None, :, :] - features[:, None, :])
    return towards @ towards.transpose(1, 2)


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns SP's term by rows of its matrix: [B]."""
    # Features are scaled to unit size, because squares of squares would leave float32's range. N
    # removes the scale.
    one, other = (unit_rows(_scaled(f) @ _scaled(f).t()) for f in (student, teacher))
    return (one - other).square().mean(dim=1)


def _scaled(features: Tensor) -> Tensor:
    largest = features.detach().abs().amax()
    return features / torch.where(largest > 0, largest, torch.ones_like(largest))


def selectivity(student: Tensor, teacher: Tensor) -> Tensor:
    """Returns NST's term by rows of the difference of the Gram matrices, times B: [B]."""
    one, other = (_gram(features) for features in (student, teacher))
    return len(student) * (one - other).square().sum(dim=1)


def _gram(features: Tensor) -> Tensor:
    responses = unit_rows(features, dim=0)
    return responses @ responses.t() / features.shape[1]
