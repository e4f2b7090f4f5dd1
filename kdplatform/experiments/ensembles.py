"""The mixture of several teachers, with which their student is compared."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import log_softmax, logsumexp

from kdplatform.errors import UserError
from kdplatform.experiments.graph import Step
from kdplatform.experiments.trained import TrainedModel
from kdplatform.predictions import Predictions


def taught_by(
    step: Step, needed: Mapping[str, TrainedModel], split: str = "test"
) -> Predictions | None:
    """Returns the predictions of a distilled student's teacher on a split.

    With several teachers it is their mixture. None if a teacher is a file without the split's rows.

    Args:
        needed: the models that the step needs, by their names in the step.

    Raises:
        UserError: the teachers hold other examples, or no logits.
    """
    teachers = [needed[name] for name in step.teachers]
    if not teachers or not all(teacher.has(split) for teacher in teachers):
        return None
    return mixed([teacher.predictions(split) for teacher in teachers], mixture_weights(step))


def mixture_weights(step: Step) -> tuple[float, ...]:
    """Returns the weights of a step's teachers that depend on no label; empty: all alike."""
    return tuple(getattr(step.distillation, "weights", ()))


def mixed(tables: Sequence[Predictions], weights: Sequence[float] = ()) -> Predictions:
    """Returns the mixture of predictions: logits are log of sum_i a_i softmax(z_i).

    Weights that depend on labels or a student do not exist for test examples. Such an ensemble is
    represented by the plain mean.

    Args:
        weights: the weights a, with any sum; empty: all alike.

    Raises:
        UserError: the tables hold other examples or classes, or no logits.
    """
    first = tables[0]
    if len(tables) == 1:
        return first
    try:
        logits = [table.aligned(first).logits for table in tables]
    except ValueError as error:
        raise UserError(f"teachers: {error}") from None
    known = [own for own in logits if own is not None]
    if len(known) < len(tables) or len({own.shape for own in known}) > 1:
        raise UserError(
            "teachers: their predictions have no logits, or of other classes; allowed: teachers of "
            "the same classes"
        )
    shares = np.asarray(weights or [1.0] * len(tables))
    shares = shares / shares.sum()
    logs = np.stack([log_softmax(own.astype(np.float64), axis=1) for own in known])
    log_mixed = logsumexp(logs, axis=0, b=shares[:, None, None]).astype(np.float32)
    return Predictions(
        first.ids, first.labels, log_mixed.argmax(axis=1).astype(np.int64), log_mixed, first.columns
    )
