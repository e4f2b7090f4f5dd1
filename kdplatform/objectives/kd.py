"""Knowledge distillation: Hinton, Vinyals, Dean 2015 (arXiv 1503.02531)."""

from torch import Tensor

from kdplatform.config import DistillationConfig
from kdplatform.kernels import kd_loss
from kdplatform.objectives import register_method
from kdplatform.objectives.base import Batch, LossParts, Objective, Output, TrainingState


@register_method("kd")
class KnowledgeDistillation(Objective):
    """alpha * T^2 * KL(teacher || student at T) + (1 - alpha) * CE(student, labels)."""

    needs_teacher = True

    def __init__(self, config: DistillationConfig, *, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.temperature = config.temperature
        self.alpha = config.alpha
        self.scale_by_t2 = config.scale_by_t2
        self.label_smoothing = label_smoothing

    def extra_repr(self) -> str:
        """Returns the parameters, for messages."""
        return (
            f"temperature={self.temperature:g}, alpha={self.alpha:g}, "
            f"scale_by_t2={self.scale_by_t2}, label_smoothing={self.label_smoothing:g}"
        )

    def forward(
        self, student: Output, teacher: Output | None, batch: Batch, state: TrainingState
    ) -> LossParts:
        """Returns the loss of each row; parts are `kl` and `ce`."""
        assert teacher is not None
        loss, kl, ce = kd_loss(
            student.logits,
            teacher.logits,
            batch.labels,
            temperature=self.temperature,
            alpha=self.alpha,
            scale_by_t2=self.scale_by_t2,
            reduction="none",
        )
        if self.label_smoothing > 0:
            smoothing = self.label_smoothing * _label_margin(student.logits, batch.labels)
            loss = loss + (1 - self.alpha) * smoothing
            ce = ce + smoothing.detach()
        return LossParts(loss, {"kl": kl, "ce": ce})


def _label_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Returns per row by how much the label's logit exceeds the mean logit.

    Smoothing by e moves the share e of the target from the label to the mean over the classes.
    The normaliser cancels: mean_k(-log r_k) - (-log r_y) = s_y - mean_k s_k, so that smoothed
    cross entropy is cross entropy plus e times this.
    """
    return logits.gather(1, labels.unsqueeze(1)).squeeze(1) - logits.mean(dim=1)
