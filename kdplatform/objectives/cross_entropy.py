"""Learning from hard labels alone: the objective of teachers and of plain students (NDS)."""

import torch.nn.functional as F

from kdplatform.objectives.base import Batch, LossParts, Objective, Output, TrainingState


class CrossEntropy(Objective):
    """Cross entropy with labels of which `label_smoothing` is spread evenly over all classes."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing

    def extra_repr(self) -> str:
        """Returns the parameters, for messages."""
        return f"label_smoothing={self.label_smoothing:g}"

    def forward(
        self, student: Output, teacher: Output | None, batch: Batch, state: TrainingState
    ) -> LossParts:
        """Returns the cross entropy of each row."""
        loss = F.cross_entropy(
            student.logits, batch.labels, reduction="none", label_smoothing=self.label_smoothing
        )
        return LossParts(loss, {})
