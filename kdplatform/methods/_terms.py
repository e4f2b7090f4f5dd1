"""Terms of a loss that several methods share, one value per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdplatform import kernels
from kdplatform.lazy import functional
from kdplatform.methods import Batch, Loss, Run

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.kernels import KDLossOutput


def cross_entropy(run: Run, logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the cross entropy with labels, smoothed by the run's `label_smoothing`: [B]."""
    smoothing = run.config.label_smoothing
    return functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def kd_rows(
    run: Run,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float | Tensor | None = None,
    ce_weight: float | Tensor | None = None,
    **arguments: Any,
) -> KDLossOutput:
    """Returns `kernels.kd_loss` per row, its labels smoothed by the run's `label_smoothing`.

    Args:
        alpha: weight of the distillation term; the cross entropy's is 1 - alpha.
        ce_weight: weight of the cross entropy if `kl_weight` replaces `alpha`; None: no cross
            entropy.
        arguments: the others of `kd_loss`.
    """
    if ce_weight is not None:
        arguments["ce_weight"] = ce_weight
    loss, kl, ce = output = kernels.kd_loss(
        student, teacher, labels, alpha=alpha, reduction="none", **arguments
    )
    weight = ce_weight if alpha is None else 1 - alpha
    smoothing = run.config.label_smoothing
    if smoothing == 0 or weight is None:
        return output
    smoothed = smoothing * _label_margin(student, labels)
    return type(output)(loss + weight * smoothed, kl, ce + smoothed.detach())


def usual_loss(batch: Batch, run: Run, **arguments: Any) -> Loss:
    """Returns alpha * T^2 * KL(teacher || student at T) + (1 - alpha) * CE for each row.

    Its parts are `kl` and `ce`.

    Args:
        arguments: those of `kd_rows`, such as temperature and alpha, for all rows or per row.
    """
    teacher = run.teacher(batch)
    student = run.student(batch.inputs)
    rows, kl, ce = kd_rows(run, student.logits, teacher.logits, batch.labels, **arguments)
    return Loss(rows, student, {"kl": kl, "ce": ce})


def _label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns the label's logit minus the mean logit of each row.

    Smoothing by e moves the share e of the target from the label to the mean over the classes.
    The normaliser cancels: mean_k(-log r_k) - (-log r_y) = s_y - mean_k s_k, so that smoothed
    cross entropy is cross entropy plus e times this.
    """
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1) - logits.mean(dim=1)


def one_against_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """Returns the log odds of one class of each row as two logits: [B, 2].

    Their softmax is the class's probability and all others' together.

    Args:
        logits: [B, C], already divided by the temperature.
        classes: int64 [B].
    """
    index = classes.unsqueeze(1)
    rest = logits.scatter(1, index, float("-inf")).logsumexp(dim=1, keepdim=True)
    return functional.pad(logits.gather(1, index) - rest, (0, 1))


def warm_up(run: Run, epochs: float) -> float:
    """Returns the share of a term in this epoch: 1 / epochs in the first, 1 from the last on."""
    return min((run.epoch + 1) / epochs, 1.0) if epochs > 0 else 1.0
