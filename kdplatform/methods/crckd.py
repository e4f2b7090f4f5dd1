"""Categorical relation-preserving contrastive distillation (CRCKD): Xing et al., MICCAI 2021.

arXiv 2107.03225; the authors' code was read.

    CE, classes weighted by N / n_c
    + consistency_weight * ramp(e) * KL(softmax(z_t) || softmax(z_s))          mean teacher
    + contrast_weight * CCD(f_s, f_t)                                          class-guided contrast
    + relation_weight * KL(softmax(f_t A_t^T / tau) || softmax(f_s A_s^T / tau))  relations, CRP

z_t and f_t are the logits and features of a mean teacher. Its parameters are the moving average of
the student's, with the decay min(1 - 1 / (step + 1), decay), and it gets another augmentation of
the images. f_s and f_t are features after a linear layer of each model, as unit vectors. CCD
contrasts them with the other model's memory bank (`_banks.contrast`), in both directions: the image
itself and others of its class against images of other classes. A_c is the centre of class c in the
model's own bank, so a rare class is one anchor like any other. ramp(e) = exp(-5 (1 - min(e, 30) /
30)^2).

Mean teacher and relations begin after `start_epoch` epochs. Defaults are those of the authors'
command (Adam, 80 epochs, batches of 64). There are differences. From that epoch on, the authors'
loop counts CCD twice, the second time with an effective weight of .01; here CCD counts once. The
batch normalisation of their mean teacher uses each batch's own statistics. This is the default
here, and `batch_norm` changes it. `teacher: frozen`, by which the project's teacher replaces the
mean teacher, is our addition.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform import kernels
from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Loss, Method, Needs, Output, Run
from kdplatform.methods._banks import (
    Draws,
    bank_logits,
    check_room,
    class_anchors,
    contrast,
    log_normaliser,
    machine_memory,
    new_bank,
    updated_bank,
)
from kdplatform.methods._features import flat_features, student_width, teacher_width, unit_rows
from kdplatform.methods._groups import class_counts
from kdplatform.methods._terms import cross_entropy
from kdplatform.progress import say
from kdplatform.settings.schema import Count, DistillationConfig, Fraction, MethodConfig, Positive

if TYPE_CHECKING:
    from torch import Tensor, nn

    from kdplatform.data import Dataset

_BANKS = 2


class WithoutTeacher(MethodConfig):
    """The terms' weights and times, the banks, and the mean teacher."""

    method: Literal["crckd"] = Field("crckd", description="method")
    class_weights: bool = Field(True, description="weight classes in the cross entropy by N / n_c")
    consistency_weight: float = Field(1.0, ge=0, description="weight of the mean teacher's logits")
    contrast_weight: float = Field(0.1, ge=0, description="weight of the contrast with the banks")
    relation_weight: float = Field(1.0, ge=0, description="weight of the relations to the classes")
    start_epoch: int = Field(
        20, ge=0, description="epochs before the mean teacher's logits and the relations count"
    )
    ramp_epochs: float = Field(
        30.0, ge=0, description="epochs after which the mean teacher's logits count fully"
    )
    positives: Count = Field(
        20, description="images of the same class per image; the image itself is the first"
    )
    negatives: Count = Field(4096, description="images of other classes per image")
    contrast_temperature: Positive = Field(0.07, description="temperature of the unit vectors")
    momentum: Fraction = Field(0.5, description="share of a bank's vector that an update keeps")
    width: Count = Field(128, description="number of dimensions of the vectors in the banks")
    decay: Fraction = Field(0.99, description="highest decay of the mean teacher")
    batch_norm: Literal["batch", "average"] = Field(
        "batch",
        description="batch: the mean teacher's batch norm uses the statistics of its batch;"
        " average: averages of the student's statistics",
    )
    another_view: bool = Field(
        True,
        description="give the teacher another augmentation of the image than the student, "
        "if training augments",
    )


class Config(WithoutTeacher, DistillationConfig):
    """The fields of `WithoutTeacher`, and the choice of the teacher."""

    teacher: Literal["mean", "frozen"] = Field(
        "mean", description="mean: the moving average of the student; frozen: the project's teacher"
    )


class RelationPreservingDistillation(Method[WithoutTeacher]):
    """Cross entropy, a mean teacher, and contrast and relations of features by class.

    Attributes:
        student_bank: float32 [N, width], a unit vector for every training example.
        teacher_bank: the same of the teacher.
        log_z: float32 [2], normalisers of the contrast of student and teacher, from the first
            batch; NaN before it.
    """

    rebuilt = frozenset({"labels", "class_shares"})
    by_reference = frozenset({"student_bank", "teacher_bank"})

    def __init__(self, config: WithoutTeacher) -> None:
        super().__init__(config)
        self.is_mean = getattr(config, "teacher", "mean") == "mean"
        self.needs = Needs(teacher="none" if self.is_mean else "live")

    def check(self, dataset: Dataset) -> None:
        """Refuses banks that are larger than the machine's memory.

        Raises:
            UserError: the banks are too large.
        """
        rows, width = len(dataset.train), self.config.width
        check_room(rows, width, _BANKS, machine_memory(), "this machine")

    def begin(self, run: Run) -> None:
        """Builds banks, projections and mean teacher; says which terms will not count."""
        config, rows = self.config, len(run.split)
        if run.device.type == "cuda":
            memory = torch.cuda.get_device_properties(run.device).total_memory
            check_room(rows, config.width, _BANKS, memory, "the device")
        if config.start_epoch >= run.config.epochs:
            say(
                f"crckd: start_epoch={config.start_epoch} is not within the {run.config.epochs} "
                "epochs of training: the mean teacher's logits and relations do not count"
            )
        self.views_differ = config.another_view and run.config.augmentation.active
        if self.views_differ and not isinstance(run.split.inputs, torch.Tensor):
            say("crckd: images are streamed; the teacher sees the student's own view")
            self.views_differ = False
        own = student_width(run)
        others = own if self.is_mean else teacher_width(run)
        self.student_projection = torch.nn.Linear(own, config.width)
        self.teacher_projection = torch.nn.Linear(others, config.width)
        self.student_bank = new_bank(rows, config.width, run.generator)
        self.teacher_bank = new_bank(rows, config.width, run.generator)
        self.log_z = torch.full((2,), math.nan)
        if self.is_mean:
            self.mean_teacher = copy.deepcopy(run.model).requires_grad_(False)
        self.labels = run.split.labels.to(run.device)
        self.draws = Draws(run.split.labels, run.device)
        counts = class_counts(run.split)
        self.class_shares = len(run.split) / counts.to(torch.float32)

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `ce`, `consistency`, `contrast`, `relation`."""
        config = self.config
        teacher = self._teacher(batch, run)
        student = run.student(batch.inputs, features=True)
        student_vector = _projected(self.student_projection, student)
        teacher_vector = _projected(self.teacher_projection, teacher)
        ce = cross_entropy(run, student.logits, batch.labels)
        agreed, consistency, _ = kernels.kd_loss(
            student.logits,
            teacher.logits,
            temperature=1.0,
            kl_weight=config.consistency_weight * self._ramp(run.epoch),
            reduction="none",
        )
        contrasted = self._contrast(student_vector, teacher_vector, batch, run)
        related = self._relation(student_vector, teacher_vector, student.logits.shape[1])
        relation_weight = config.relation_weight if run.epoch >= config.start_epoch else 0.0
        rows = self._weighted(ce, batch.labels) + agreed + config.contrast_weight * contrasted
        rows = rows + relation_weight * related
        # The banks change only after the gradient, which goes through them, has been computed.
        self.seen = (batch.rows, student_vector.detach(), teacher_vector.detach())
        parts = {
            "ce": ce.detach(),
            "consistency": consistency.detach(),
            "contrast": contrasted.detach(),
            "relation": related.detach(),
        }
        return Loss(rows, student, parts)

    def after_step(self, run: Run) -> None:
        """Moves the banks towards the batch's vectors, and the mean teacher towards the student."""
        rows, student, teacher = self.seen
        updated_bank(self.student_bank, rows, student, self.config.momentum)
        updated_bank(self.teacher_bank, rows, teacher, self.config.momentum)
        if not self.is_mean:
            return
        decay = min(1 - 1 / run.step, self.config.decay)
        averaged = [(self.mean_teacher.parameters(), run.model.parameters())]
        if self.config.batch_norm == "average":
            averaged.append((self.mean_teacher.buffers(), run.model.buffers()))  # type: ignore[arg-type]
        with torch.no_grad():
            for means, values in averaged:
                for mean, value in zip(means, values, strict=True):
                    if mean.is_floating_point():
                        mean.mul_(decay).add_(value, alpha=1 - decay)
                    else:
                        mean.copy_(value)

    # ---- terms

    def _teacher(self, batch: Batch, run: Run) -> Output:
        """Returns the teacher's output for the images, or for another view of them."""
        seen = run.another_view(batch) if self.views_differ else batch
        if not self.is_mean:
            return run.teacher(seen, features=True)
        self.mean_teacher.train(self.config.batch_norm == "batch")
        with torch.no_grad():
            return run.ask(self.mean_teacher, seen.inputs, features=True)

    def _ramp(self, epoch: int) -> float:
        return ramp(epoch, self.config.ramp_epochs) if epoch >= self.config.start_epoch else 0.0

    def _weighted(self, ce: Tensor, labels: Tensor) -> Tensor:
        """Returns rows whose mean is torch's mean of CE weighted by class."""
        if not self.config.class_weights:
            return ce
        weights = self.class_shares[labels].to(ce.dtype)
        return ce * weights / weights.mean()

    def _contrast(self, student: Tensor, teacher: Tensor, batch: Batch, run: Run) -> Tensor:
        config, examples = self.config, len(self.labels)
        chosen = torch.cat(
            [
                self.draws.same_class(batch.rows, batch.labels, config.positives, run.generator),
                self.draws.other_classes(batch.labels, config.negatives, run.generator),
            ],
            dim=1,
        )
        logits = [
            bank_logits(anchors, bank, chosen, config.contrast_temperature)
            for anchors, bank in ((student, self.teacher_bank), (teacher, self.student_bank))
        ]
        first = torch.stack([log_normaliser(each, examples) for each in logits])
        self.log_z = torch.where(self.log_z.isnan(), first.to(self.log_z.dtype), self.log_z)
        one, other = (
            contrast(each, log_z.to(each.dtype), config.positives, examples)
            for each, log_z in zip(logits, self.log_z, strict=True)
        )
        return one + other

    def _relation(self, student: Tensor, teacher: Tensor, classes: int) -> Tensor:
        return relation(
            student,
            teacher.detach(),
            class_anchors(self.student_bank, self.labels, classes),
            class_anchors(self.teacher_bank, self.labels, classes),
            self.config.contrast_temperature,
        )


def _projected(projection: nn.Linear, output: Output) -> Tensor:
    """Returns an output's features as unit vectors with the width of the banks: [B, d]."""
    features = flat_features(output)
    weight, bias = projection.weight.to(features.dtype), projection.bias.to(features.dtype)
    return unit_rows(functional.linear(features, weight, bias))


def relation(
    student: Tensor,
    teacher: Tensor,
    student_anchors: Tensor,
    teacher_anchors: Tensor,
    temperature: float,
) -> Tensor:
    """Returns CRP: the divergence between the similarities to the classes' anchors, [B].

    Args:
        student: unit vectors [B, d]; gets a gradient.
        teacher: unit vectors [B, d].
        student_anchors: [C, d], of the student's own bank.
        teacher_anchors: [C, d].
    """
    return kernels.kd_loss(
        student @ student_anchors.t().to(student.dtype),
        teacher @ teacher_anchors.t().to(teacher.dtype),
        temperature=temperature,
        kl_weight=1.0,
        scale_by_t2=False,
        reduction="none",
    ).loss


def ramp(epoch: int, epochs: float) -> float:
    """Returns exp(-5 (1 - min(e, epochs) / epochs)^2), which is 1 after `epochs` epochs."""
    return math.exp(-5 * (1 - min(epoch / epochs, 1.0)) ** 2) if epochs > 0 else 1.0
