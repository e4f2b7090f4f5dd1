"""Warm-up by preference: Warmup-Distill, Sun et al. 2025 (arXiv 2502.11766).

In the first `warmup_epochs` the loss is that of direct preference optimisation (Rafailov et al.
2023, 2305.18290):

    -log sigmoid(beta * (log pi(y+) / pi_0(y+) - log pi(y-) / pi_0(y-)))

pi is the student's softmax, and pi_0 that of the student at the start. y- is the student's answer,
and y+ the teacher's. A row counts if the teacher finds y- improbable:

    M = P_teacher(y-) - P_student(y-) < eta        or of logarithms, by `mismatch`

Other rows have no loss. After the warm-up the student is trained by the method `then`, whose epochs
are counted from there. The learning rate and all other state continue.

This is our reading. The paper is about language models, where y is a sequence and the teacher
continues from the first improbable token. Here y is one class, so the normalisers cancel and the
loss is softplus(-beta * ((z_y+ - z_y-) - (z0_y+ - z0_y-))). We could not read the paper's values of
eta and of the epochs, nor whether M uses probabilities or logarithms. eta therefore has no default.
beta has the usual value for such losses.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from kdplatform.errors import UserError
from kdplatform.lazy import functional, torch
from kdplatform.methods import (
    Batch,
    Loss,
    Method,
    Needs,
    Run,
    build_method,
    method_config_classes,
    method_names,
)
from kdplatform.methods._building import BuildingConfig, SeenRun
from kdplatform.progress import say
from kdplatform.settings.schema import (
    DistillationConfig,
    MethodConfig,
    Names,
    Optional,
    Positive,
    Temperature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kdplatform.data import Dataset


class Config(BuildingConfig, DistillationConfig):
    """How pairs are found, how long the student learns from them, and the method that follows."""

    temperature_field: ClassVar[str] = "temperature"
    base_name: ClassVar[str] = "then"
    base_settings: ClassVar[str] = "then_fields"

    method: Literal["warmup_preference"] = Field("warmup_preference", description="method")
    eta: Annotated[float | None, Optional] = Field(
        None,
        description="a pair counts if the teacher's minus the student's probability of the "
        "student's answer is below it; required, such as 0 or -0.1",
    )
    mismatch: Literal["probability", "log_probability"] = Field(
        "probability",
        description="whether eta bounds the difference of probabilities or of their logarithms",
    )
    beta: Positive = Field(
        0.1,
        description="beta of the DPO loss; the larger, the closer the student stays to its start",
    )
    warmup_epochs: int = Field(2, ge=0, description="epochs of the warm-up")
    answers: Literal["sampled", "most_likely"] = Field(
        "sampled",
        description="sampled: answers are drawn from the probabilities; most_likely: the top class",
    )
    sampling_temperature: Temperature = Field(
        1.0, description="softmax temperature at which answers are sampled"
    )
    then: str = Field("kd", description="method after the warm-up; it must learn from a teacher")
    then_fields: Names = Field(
        (), description="fields of that method other than its defaults, such as alpha=0.5"
    )
    temperature: Temperature = Field(4.0, description="softmax temperature T of the method `then`")

    def fixed(self, own: type[MethodConfig]) -> Mapping[str, Any]:
        """Returns the temperature of the method that follows."""
        field = own.temperature_field
        return {} if field is None else {field: self.temperature}

    @model_validator(mode="after")
    def _then_learns_from_a_teacher(self) -> Self:
        known = [
            name
            for name in method_names()
            if name != self.method and True in method_config_classes(name)
        ]
        self.check_base(known, "no method that can follow")
        self.check_temperature(self.temperature)
        self.check_base_fields()
        return self


class WarmupByPreference(Method[Config]):
    """Preferences of the teacher among the student's own answers, then another method.

    Attributes:
        initial: a copy of the student at the start.
    """

    in_eval = frozenset({"initial"})
    rebuilt = frozenset({"initial"})

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.then: Method[Any] = build_method(config.base_config)
        wanted = self.then.needs
        self.needs = (
            Needs(teacher="logits", unlabeled=wanted.unlabeled)
            if wanted.teacher == "none"
            else wanted
        )

    def check(self, dataset: Dataset) -> None:
        """Refuses a missing eta, and runs the following method's check of the data.

        Raises:
            UserError: eta is not given.
        """
        if self.config.eta is None:
            raise UserError(
                "distillation.eta is not given, and method='warmup_preference' has no default for "
                "it; allowed: a number, such as 0 (the teacher finds the student's answer less "
                "probable than the student does) or -0.1"
            )
        self.then.check(dataset)

    def begin(self, run: Run) -> None:
        """Copies the student, and begins the method that follows."""
        if self.config.warmup_epochs >= run.config.epochs:
            say(
                f"warmup_preference: warmup_epochs={self.config.warmup_epochs} leaves none of the "
                f"{run.config.epochs} epochs of training to {self.config.then}"
            )
        self.initial = copy.deepcopy(run.model).requires_grad_(False)
        self.then.begin(self._later(run))

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `preference`, `pairs`, or those of `then`."""
        if run.epoch >= self.config.warmup_epochs:
            return self.then.loss(batch, self._later(run))
        teacher = run.teacher(batch).logits
        student = run.student(batch.inputs)
        with torch.no_grad():
            self.initial.eval()
            initial = run.ask(self.initial, batch.inputs).logits
        said = self._answers(student.logits.detach(), run.generator)
        preferred = self._answers(teacher, run.generator)
        assert self.config.eta is not None
        pairs = (
            mismatch(student.logits.detach(), teacher, said, self.config.mismatch) < self.config.eta
        )
        losses = preference_loss(student.logits, initial, preferred, said, self.config.beta)
        rows = torch.where(pairs, losses, torch.zeros_like(losses))
        parts = {"preference": rows.detach(), "pairs": pairs.to(rows.dtype)}
        return Loss(rows, student, parts)

    def after_step(self, run: Run) -> None:
        """Passes the step on to the method that follows, after the warm-up."""
        if (run.step - 1) // run.steps_per_epoch >= self.config.warmup_epochs:
            self.then.after_step(self._later(run))

    def _later(self, run: Run) -> Run:
        """Returns the run as the following method sees it: epochs count from the warm-up's end."""
        epochs = self.config.warmup_epochs
        epoch, step = run.epoch - epochs, run.step - epochs * run.steps_per_epoch
        config = run.config.model_copy(update={"epochs": max(run.config.epochs - epochs, 1)})
        return cast("Run", SeenRun(run, epoch=max(epoch, 0), step=max(step, 0), config=config))

    def _answers(self, logits: Tensor, generator: torch.Generator) -> Tensor:
        """Returns a class for each row: int64 [B]."""
        if self.config.answers == "most_likely":
            return logits.argmax(dim=1)
        # The largest of logits with Gumbel's noise is a sample of their softmax (Gumbel 1954).
        uniform = torch.rand(tuple(logits.shape), generator=generator, dtype=torch.float64)
        noise = -(-uniform.clamp(min=1e-300).log()).log()
        scaled = logits.double() / self.config.sampling_temperature
        return (scaled + noise.to(logits.device)).argmax(dim=1)


def mismatch(student: Tensor, teacher: Tensor, answers: Tensor, of: str) -> Tensor:
    """Returns the teacher's minus the student's probability of the answers, or of logarithms: [B].

    Args:
        student: logits [B, C].
        teacher: logits [B, C].
        answers: int64 [B].
    """
    place = answers.unsqueeze(1)
    p, q = (z.log_softmax(dim=1).gather(1, place).squeeze(1) for z in (teacher, student))
    return p - q if of == "log_probability" else p.exp() - q.exp()


def preference_loss(
    student: Tensor, initial: Tensor, preferred: Tensor, rejected: Tensor, beta: float
) -> Tensor:
    """Returns the loss of direct preference optimisation for answers of one class: [B].

    Args:
        student: logits [B, C]; gets a gradient.
        initial: logits [B, C] of the student at the start.
        preferred: int64 [B].
        rejected: int64 [B].
    """

    def margin(logits: Tensor) -> Tensor:
        chosen = torch.stack([preferred, rejected], dim=1)
        return logits.gather(1, chosen).diff(dim=1).squeeze(1).neg()

    return functional.softplus(-beta * (margin(student) - margin(initial)))
