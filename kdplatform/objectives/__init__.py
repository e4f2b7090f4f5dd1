"""Objectives: what a model is trained for. One file per distillation method.

A method is a subclass of `Objective` whose constructor takes `(config, *, label_smoothing)`, a
`DistillationConfig` and a number, decorated with `@register_method("name")`.
"""

from typing import Protocol

from kdplatform.config import DistillationConfig
from kdplatform.objectives.base import Batch, LossParts, Objective, Output, TrainingState
from kdplatform.registry import Registry

__all__ = [
    "Batch",
    "LossParts",
    "Objective",
    "Output",
    "TrainingState",
    "build_objective",
    "method_names",
    "register_method",
]


class MethodBuilder(Protocol):
    """What a method registers: its class."""

    def __call__(self, config: DistillationConfig, *, label_smoothing: float) -> Objective:
        """Builds the method's objective."""
        ...


_methods: Registry[MethodBuilder] = Registry("method", __name__)
register_method = _methods.register


def method_names() -> tuple[str, ...]:
    """Returns the names of all distillation methods."""
    return _methods.names()


def build_objective(
    distillation: DistillationConfig | None, *, label_smoothing: float = 0.0
) -> Objective:
    """Builds the objective of a run.

    Args:
        distillation: how the student learns from the teacher; None for a model that learns from
            hard labels alone, that is a teacher or a plain student (NDS).
        label_smoothing: smoothing of the hard labels, in the hard-label term of every objective:
            teacher, NDS and DS of one study then learn from the same labels.

    Raises:
        UserError: there is no method of this name.
    """
    if distillation is None:
        from kdplatform.objectives.cross_entropy import CrossEntropy

        return CrossEntropy(label_smoothing)
    return _methods.get(distillation.method)(distillation, label_smoothing=label_smoothing)
