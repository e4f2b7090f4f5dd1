"""Adversarial training and distillation: the loss of another method, on attacked images.

    form: at       (1 - clean_weight) L(x') + clean_weight L(x)        (Madry et al. 2018)
    form: trades   L(x) + beta * KL(softmax(z_s(x)) || softmax(z_s(x')))   (Zhang et al. 2019)

L is the loss of `base`, any other method of logits; without a teacher it is cross entropy. x' is an
image within eps of the image x. An attack finds x' by raising L (at) or the divergence (trades) of
the student in eval mode. The teacher's logits are those of the unchanged images, or with
`teacher_inputs: attacked` those of x'. `weight_perturbation` is AWP's gamma
(`_weight_perturbation`).

    LTD      base low_temperature: soft labels at a low T, student at 1 (2111.02331). Our reading:
             the paper's text could not be read; it says that natural and attacked images are used
    RSLAD    base divergence, kind=forward, alpha=1, T = 1, and clean_weight 1/6 (2108.07969; code
             read); its teacher is robust itself: teacher.method=adversarial
    TTM      with eps = 0, to the bit, where the base is `ttm`; so for any base

eps, steps and their size are the usual values for images of 32 pixels, and beta = 6 is that of
TRADES. T = 2 is ours. With label smoothing the attacked cross entropy is smoothed too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from pydantic import Field, model_validator

from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Loss, Method, Needs, Run, build_method
from kdplatform.methods._attacks import (
    attacked,
    check_attackable,
    check_takes_fractions,
    in_eval,
    pixels,
)
from kdplatform.methods._building import BuildingConfig, SeenRun, methods_of_logits
from kdplatform.methods._weight_perturbation import Ask, asked_at, worst_changes
from kdplatform.settings.schema import (
    AttackConfig,
    DistillationConfig,
    Fraction,
    MethodConfig,
    Names,
    Temperature,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from kdplatform.data import Dataset


class WithoutTeacher(AttackConfig, MethodConfig):
    """The attack, and how much attacked images count."""

    method: Literal["adversarial"] = Field("adversarial", description="method")
    form: Literal["at", "trades"] = Field(
        "at",
        description="at: the base's loss of the attacked images; trades: the loss of the "
        "clean images, plus a divergence",
    )
    clean_weight: Fraction = Field(
        0.0, description="form=at: share of the loss of the clean images"
    )
    beta: float = Field(6.0, ge=0, description="form=trades: weight of the divergence")
    weight_perturbation: float = Field(
        0.0,
        ge=0,
        description="size of the adversarial change of the weights (AWP), relative to the "
        "weights; 0: none",
    )

    @model_validator(mode="after")
    def _form_and_attack_fit(self) -> Self:
        if self.form == "trades":
            if self.clean_weight:
                raise ValueError(
                    f"clean_weight={self.clean_weight:g} is not allowed with form='trades'; "
                    "allowed: with form='at'"
                )
            if self.attack == "fgsm" or not self.random_start:
                given = "attack='fgsm'" if self.attack == "fgsm" else "random_start=False"
                raise ValueError(
                    f"{given} is not allowed with form='trades', whose divergence has no slope at "
                    "the image itself; allowed: attack='pgd' with random_start=true"
                )
        elif self.beta != WithoutTeacher.model_fields["beta"].default:
            raise ValueError(
                f"beta={self.beta:g} is not allowed with form='at'; allowed: with form='trades'"
            )
        return self


class Config(WithoutTeacher, BuildingConfig, DistillationConfig):
    """The attack, and the base whose loss learns from a teacher."""

    temperature_field: ClassVar[str] = "temperature"

    base: str = Field("low_temperature", description="method of logits whose loss is used")
    base_fields: Names = Field(
        (), description="fields of that method other than its defaults, such as ce_weight=0.5"
    )
    temperature: Temperature = Field(2.0, description="softmax temperature T of the base")
    teacher_inputs: Literal["clean", "attacked"] = Field(
        "clean", description="the images whose teacher logits are used"
    )

    def fixed(self, own: type[MethodConfig]) -> Mapping[str, Any]:
        """Returns the base's temperature."""
        field = own.temperature_field
        return {} if field is None else {field: self.temperature}

    @model_validator(mode="after")
    def _base_is_one_of_logits(self) -> Self:
        known = [name for name in methods_of_logits() if name != "logit_standardization"]
        self.check_base(known, "no method of logits", ["views"])
        self.check_temperature(self.temperature)
        self.check_base_fields()
        return self


class AdversarialTraining(Method[WithoutTeacher]):
    """The loss of another method on images that are changed to raise it."""

    def __init__(self, config: WithoutTeacher) -> None:
        super().__init__(config)
        distils = isinstance(config, Config)
        self.base = build_method(config.base_config if distils else MethodConfig())  # type: ignore[attr-defined]
        self.teacher_sees = getattr(config, "teacher_inputs", "clean")
        asks: Literal["live", "logits"] = "live" if self.teacher_sees == "attacked" else "logits"
        needs = replace(self.base.needs, teacher=asks) if distils else Needs()
        self.needs = replace(needs, single_process=True)

    def check(self, dataset: Dataset) -> None:
        """Refuses data that are not images, and runs the base's check of the data.

        Raises:
            UserError: the inputs cannot be attacked.
        """
        check_attackable(dataset, f"method={self.config.method!r}")
        self.base.check(dataset)

    def begin(self, run: Run) -> None:
        """Begins the base.

        Raises:
            UserError: the student does not take images in the form in which the attack gives them.
        """
        if self.config.eps:
            few = run.split.inputs[:2].to(run.device)
            check_takes_fractions(run.model, few, f"method={self.config.method!r}")
        self.base.begin(run)

    def after_step(self, run: Run) -> None:
        """Passes the step on to the base."""
        self.base.after_step(run)

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are the base's, and `clean` or `robust`.

        Training accuracy is that on attacked images (at), or on the images themselves (trades).
        """
        config = self.config
        if config.eps == 0:
            loss = self.base.loss(batch, run)
            if config.form == "at":
                return loss
            none = torch.zeros_like(loss.rows).detach()
            return loss._replace(parts={**loss.parts, "robust": none})
        seen = _Seen(run, batch, self.teacher_sees == "clean" and self.needs.teacher != "none")
        moved = replace(batch, inputs=self._attacked(batch, seen, run))
        if not config.weight_perturbation:
            return self._loss(batch, moved, seen, run.student)
        changes = worst_changes(
            run, lambda ask: self._loss(batch, moved, seen, ask).rows, config.weight_perturbation
        )
        return self._loss(batch, moved, seen, asked_at(run, changes))

    def _attacked(self, batch: Batch, seen: _Seen, run: Run) -> Tensor:
        """Returns the batch's images as the attack leaves them."""
        images = pixels(batch.inputs)
        with in_eval(run.model):
            if self.config.form == "at":
                raised = lambda x: self._base(replace(batch, inputs=x), seen, run.student).rows  # noqa: E731
            else:
                with torch.no_grad():
                    own = run.student(images).logits
                raised = lambda x: divergence(own, run.student(x).logits)  # noqa: E731
            return attacked(images, raised, self.config, run.generator)

    def _loss(self, batch: Batch, moved: Batch, seen: _Seen, student: Ask) -> Loss:
        config = self.config
        if config.form == "trades":
            clean = self._base(batch, seen, student)
            robust = divergence(clean.student.logits, student(moved.inputs).logits)
            parts = {**clean.parts, "robust": robust.detach()}
            return Loss(clean.rows + config.beta * robust, clean.student, parts)
        loss = self._base(moved, seen, student)
        if not config.clean_weight:
            return loss
        clean = self._base(batch, seen, student)
        rows = (1 - config.clean_weight) * loss.rows + config.clean_weight * clean.rows
        return Loss(rows, loss.student, {**loss.parts, "clean": clean.rows.detach()})

    def _base(self, batch: Batch, seen: _Seen, student: Ask) -> Loss:
        return self.base.loss(batch, seen.by(student))


class _Seen:
    """The run as the base sees it: its teacher may be asked only about the clean images."""

    def __init__(self, run: Run, clean: Batch, teacher_sees_clean: bool) -> None:
        self._run = run
        # Computed once, for all steps of the attack.
        self._told = run.teacher(clean) if teacher_sees_clean else None

    def by(self, student: Ask) -> Run:
        """Returns the run with this student."""
        answers: dict[str, object] = {"student": student}
        if (told := self._told) is not None:
            answers["teacher"] = lambda batch: told
        return cast("Run", SeenRun(self._run, **answers))


def divergence(reference: Tensor, logits: Tensor) -> Tensor:
    """Returns KL(softmax(reference) || softmax(logits)) of each row; gradients go to both."""
    p, q = reference.log_softmax(dim=1), logits.log_softmax(dim=1)
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(dim=1)
