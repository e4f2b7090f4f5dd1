"""AdaMargin: our reading of Lukasik et al., "Teacher's pet", TMLR 2022 (arXiv 2106.10494).

    alpha * T^2 * (M - H(p)) + (1 - alpha) * CE
    M = sum_k p_k * log(1 + sum_{j != k} exp((z_j - z_k) / T + m_k))
    m_k = scale * max(floor, the teacher's mean margin in class k)

p is the teacher's softmax at T with entropy H(p), and z are the student's logits. With groups
instead of classes, every m_k is that of the row's group. The margin demands more of the student
where the teacher is right. scale = 0 is `kd`. The paper's text could not be read, so the sign and
form of the margin and the defaults are ours.

The margins are measured on the validation split, never on the teacher's training examples. The
student's validation numbers are therefore not independent of training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform.lazy import functional, torch
from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._groups import CLASSES
from kdplatform.methods._margins import MarginConfig, MarginMethod
from kdplatform.methods._rows import DistilledRows
from kdplatform.methods._terms import cross_entropy

if TYPE_CHECKING:
    from torch import Tensor


class Config(MarginConfig, DistilledRows):
    """The fields of plain distillation and of the margins."""

    method: Literal["adaptive_margin"] = Field("adaptive_margin", description="method")


class AdaptiveMargin(MarginMethod[Config]):
    """Distillation with a margin that grows with the trust in the teacher."""

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row; parts are `margin_kl` (M - H(p)) and `ce`."""
        config = self.config
        log_p = (run.teacher(batch).logits / config.temperature).log_softmax(1)
        student = run.student(batch.inputs)
        if config.attribute == CLASSES:
            margins = self.trust[:-1]
        else:
            margins = self.trust[self.groups[batch.rows]].unsqueeze(1)
        odds = log_odds(student.logits / config.temperature)
        # log(1 + exp(m) (1 - q) / q) for every class. The time grows only linearly with the number
        # of classes.
        terms = functional.softplus(margins.to(odds.dtype) - odds)
        kl = (log_p.exp() * (terms + log_p)).sum(1)
        ce = cross_entropy(run, student.logits, batch.labels)
        rows = config.alpha * config.temperature**2 * kl + (1 - config.alpha) * ce
        return Loss(rows, student, {"margin_kl": kl.detach(), "ce": ce.detach()})


def log_odds(logits: Tensor) -> Tensor:
    """Returns log(q / (1 - q)) of the softmax q of each row: [B, C].

    1 - q loses its digits if q is near 1, which only the q of the highest logit can be. For this
    class, 1 - q is the sum over the other classes.
    """
    log_q = logits.log_softmax(1)
    highest = functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
    others = log_q.masked_fill(highest, float("-inf")).logsumexp(1, keepdim=True)
    log_rest = torch.where(highest, others, torch.log1p(-log_q.masked_fill(highest, -1.0).exp()))
    return log_q - log_rest
