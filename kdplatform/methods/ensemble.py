"""Distillation from several teachers, whose predictions are mixed row by row.

    (1 - alpha) * CE + alpha * c * T^2 * KL(m || student at T),    m = sum_i a_i * softmax(z_i / T)
    + unlabeled_weight * mean of d * T^2 * KL(mean_i softmax(z_i / T) || student at T)

The weights a_i of the teachers sum to 1. With `mean` they are equal, and with `fixed` they are
given. With `correctness` they depend on each teacher's probability of the label. With `group` each
group of an attribute has one teacher. With `agre` a teacher that pulls the student like a biased
reference has less weight. c is 1, or how far the teachers together are right (`row_weight`). The
second line is for examples without labels, and d is how far the teachers disagree. The weights a, c
and d are computed at temperature 1, and the gradient treats them as constants.

`correctness` with `row_weight` and the second line are our reading of the abstract of UniKD (Wu et
al. 2022, arXiv 2204.00548), which gives no formula. `camkd` is that of CA-MKD (code read). `agre`
is our reading of the abstract of AGRE-KD (arXiv 2411.14984). Mixing the predictions and mixing the
losses give the student the same gradient: sum_i a_i KL(p_i || q) is KL(m || q) plus a sum that does
not depend on q.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from kdplatform import kernels
from kdplatform.errors import UserError, unknown_name
from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Loss, Method, Needs, Run
from kdplatform.methods._groups import CLASSES, GroupedConfig, check_groups, groups_of
from kdplatform.methods._mixing import (
    Correctness,
    Disagreement,
    RowWeight,
    correctness_weights,
    disagreement,
    even_weights,
    log_mixture,
    row_weights,
    shortcut_weights,
)
from kdplatform.methods._rows import DistilledRows
from kdplatform.methods._terms import kd_rows
from kdplatform.progress import say
from kdplatform.settings.schema import Names, Positive, Shares

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kdplatform.data import Dataset

_MOST_NAMED = 5
# The plain student (NDS) of the seed, as the biased reference of `agre`.
NDS = "student"


class Config(GroupedConfig, DistilledRows):
    """How the predictions of several teachers are mixed."""

    method: Literal["ensemble"] = Field("ensemble", description="method")
    weighting: Literal["mean", "fixed", "correctness", "group", "agre"] = Field(
        "mean", description="what decides a teacher's weight in a row"
    )
    weights: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Shares] = Field(
        (), description="weighting=fixed: one weight per teacher, scaled to sum 1"
    )
    correctness: Correctness = Field(
        "softmax_ce",
        description="weighting=correctness: how the probability of the label becomes a weight",
    )
    kappa: Positive = Field(
        1.0, description="correctness=softmax_ce: temperature of the softmax over the teachers"
    )
    row_weight: Literal["none", RowWeight] = Field(
        "none", description="weights rows by how right the teachers together are"
    )
    attribute: str = Field(
        CLASSES,
        description="weighting=group: the attribute whose groups have teachers of their "
        "own; label: the classes; auto: the project's first attribute",
    )
    group_teachers: Names = Field(
        (),
        description="weighting=group: pairs such as red=2, the group and the number of its "
        "teacher, from 1; none: in order",
    )
    reference: str = Field(
        NDS,
        description="weighting=agre: the biased model; student: the NDS; or an entry of teachers",
    )
    unlabeled_weight: float = Field(0.0, ge=0, description="weight of examples without labels")
    disagreement: Disagreement = Field(
        "jsd",
        description="measure of the teachers' disagreement, which weights examples without labels",
    )
    scale_disagreement: bool = Field(
        False, description="divide the disagreement by its mean over the batch"
    )

    @property
    def reference_teacher(self) -> str | None:
        """The biased model of `agre`; None if it is the NDS."""
        return self.reference if self.weighting == "agre" and self.reference != NDS else None

    @model_validator(mode="after")
    def _fields_fit_together(self) -> Self:
        fixed = self.weighting == "fixed"
        if fixed and not any(self.weights):
            raise ValueError(
                "weights are all 0, or none; allowed with weighting=fixed: one per teacher"
            )
        if self.weights and not fixed:
            raise ValueError(f"weights are not for weighting={self.weighting}; allowed: fixed")
        if self.group_teachers and self.weighting != "group":
            raise ValueError(
                f"group_teachers are not for weighting={self.weighting}; allowed: group"
            )
        for name, read in self._unread().items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} would not be read; allowed: with {read}"
                )
        return self

    def _unread(self) -> dict[str, str]:
        """Returns the fields without effect under the other settings, and what would use them."""
        unread = {}
        if self.weighting != "correctness":
            unread["correctness"] = "weighting=correctness"
        if self.weighting != "correctness" or self.correctness != "softmax_ce":
            unread["kappa"] = "weighting=correctness and correctness=softmax_ce"
        if self.weighting != "group":
            unread["attribute"] = "weighting=group"
        if self.weighting != "agre":
            unread["reference"] = "weighting=agre"
        if not self.unlabeled_weight:
            unread |= dict.fromkeys(
                ("disagreement", "scale_disagreement"), "unlabeled_weight above 0"
            )
        return unread


class Ensemble(Method[Config]):
    """Plain distillation from a mixture of teachers; from one teacher it is plain distillation."""

    rebuilt = frozenset({"groups", "teacher_of_group"})
    needs = Needs(teacher="logits", several=True)

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.needs = Needs(
            teacher="logits",
            several=True,
            reference=config.weighting == "agre",
            unlabeled=config.unlabeled_weight > 0,
        )

    def check(self, dataset: Dataset) -> None:
        """Refuses data without the groups."""
        if self.config.weighting == "group":
            check_groups(self.config, dataset)

    def check_teachers(self, names: Sequence[str], dataset: Dataset) -> None:
        """Refuses a number of teachers that does not fit the weights; prints each group's teacher.

        Raises:
            UserError: there are more or fewer teachers than weights or groups.
        """
        config = self.config
        if config.weighting == "fixed" and len(config.weights) != len(names):
            raise UserError(
                f"distillation.weights has {len(config.weights)} weights and there are "
                f"{len(names)} teachers ({', '.join(names)}); allowed: one per teacher"
            )
        if config.unlabeled_weight > 0 and len(names) < 2:
            raise UserError(
                f"distillation.unlabeled_weight={config.unlabeled_weight:g} depends on how far "
                "teachers disagree, and there is one; allowed: several teachers, or 0"
            )
        if config.weighting == "group":
            groups = groups_of(dataset.train, config.attribute).names
            chosen = _teachers_of_groups(config, groups, len(names))
            pairs = zip(groups, chosen, strict=True)
            words = ", ".join(f"{group} from {names[own]}" for group, own in pairs)
            say(f"groups of {config.attribute} learn: {words}")

    def begin(self, run: Run) -> None:
        """Looks up the teacher of each row's group."""
        if self.config.weighting == "group":
            groups = groups_of(run.split, self.config.attribute)
            self.groups = groups.of(run.split)
            chosen = _teachers_of_groups(self.config, groups.names)
            self.teacher_of_group = torch.tensor(chosen)

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `kl`, `ce`, and the weights where they vary."""
        config = self.config
        teachers = torch.stack(list(run.teachers(batch)))
        student = run.student(batch.inputs)
        weights = self._weights(student.logits, teachers, batch, run)
        target = self._target(teachers, weights)
        trust = None
        shares: dict[str, float | Tensor] = {"alpha": config.alpha}
        if config.row_weight != "none":
            together = log_mixture(teachers, weights)
            trust = row_weights(together, batch.labels, config.row_weight)
            shares = {"kl_weight": config.alpha * trust, "ce_weight": 1 - config.alpha}
        rows, kl, ce = kd_rows(
            run,
            student.logits,
            target,
            batch.labels,
            temperature=config.temperature,
            **shares,
        )
        parts = {"kl": kl, "ce": ce}
        if trust is not None:
            parts["row_weight"] = trust
        if config.weighting in ("correctness", "agre") and len(teachers) > 1:
            parts |= {f"teacher_{place}": own for place, own in enumerate(weights, start=1)}
        if config.unlabeled_weight > 0:
            term = self._unlabeled(batch, run)
            rows = rows + config.unlabeled_weight * term
            parts["unlabeled"] = term.detach().expand_as(kl)
        return Loss(rows, student, parts)

    def _target(self, teachers: Tensor, weights: Tensor) -> Tensor:
        """Returns logits [B, C] whose softmax at the temperature is the mixture."""
        if len(teachers) == 1:
            return teachers[0]
        t = self.config.temperature
        return t * log_mixture(teachers, weights, t)

    def _weights(self, student: Tensor, teachers: Tensor, batch: Batch, run: Run) -> Tensor:
        """Returns the weights of the teachers: [N, B]."""
        config = self.config
        if config.weighting == "correctness":
            return correctness_weights(teachers, batch.labels, config.correctness, config.kappa)
        if config.weighting == "agre":
            asked = run.reference(batch)
            return shortcut_weights(student, teachers, asked, config.temperature)
        even = even_weights(teachers)
        if config.weighting == "fixed":
            given = torch.tensor(config.weights, dtype=even.dtype, device=even.device)
            return (given / given.sum()).unsqueeze(1).expand_as(even)
        if config.weighting == "group":
            groups = self.groups[batch.rows]
            chosen = self.teacher_of_group[groups.clamp(min=0)]
            alone = functional.one_hot(chosen, len(teachers)).T.to(even.dtype)
            return torch.where(groups >= 0, alone, even)
        return even

    def _unlabeled(self, batch: Batch, run: Run) -> Tensor:
        """Returns the mean over the examples without labels of their weighted divergence."""
        config, others = self.config, batch.unlabeled
        assert others is not None
        teachers = torch.stack(list(run.teachers(others)))
        weights = disagreement(teachers, config.disagreement)
        if config.scale_disagreement:
            weights = weights / weights.mean().clamp(min=1e-12)
        rows = kernels.kd_loss(
            run.student(others.inputs).logits,
            self._target(teachers, even_weights(teachers)),
            temperature=config.temperature,
            kl_weight=weights,
            reduction="none",
        ).loss
        return rows.mean()


def _teachers_of_groups(
    config: Config, groups: Sequence[str], count: int | None = None
) -> list[int]:
    """Returns the position of each group's teacher in the list, from 0.

    Args:
        count: number of teachers; None if it has been checked already.

    Raises:
        UserError: the groups and the teachers do not fit together.
    """
    given = config.group_teachers
    if not given:
        if count not in (None, len(groups)):
            raise UserError(
                f"distillation.weighting='group': {count} teachers for {len(groups)} groups of "
                f"{config.attribute} ({', '.join(groups[:_MOST_NAMED])}); allowed: one per group, "
                "or distillation.group_teachers such as red=1,blue=2"
            )
        return list(range(len(groups)))
    found: dict[str, int] = {}
    for part in given:
        group, _, number = part.rpartition("=")
        if group not in groups:
            raise unknown_name("distillation.group_teachers", group or part, groups)
        if not number.isdecimal() or not 1 <= int(number) <= (count or int(number)):
            raise UserError(
                f"distillation.group_teachers={part!r} is not allowed; allowed: group=number of "
                f"the teacher, from 1 to {count}"
            )
        if group in found:
            raise UserError(
                f"distillation.group_teachers gives {group!r} twice; allowed: one teacher for "
                "every group"
            )
        found[group] = int(number) - 1
    if missing := [group for group in groups if group not in found]:
        raise UserError(
            f"distillation.group_teachers lacks {missing[0]!r}, one of {len(missing)} groups of "
            f"{config.attribute}; allowed: a teacher for every group"
        )
    return [found[group] for group in groups]
