"""The check that a frozen model's outputs match the dataset's classes."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest

from kdplatform.errors import UserError
from kdplatform.experiments.graph import Step
from kdplatform.progress import say

Classes = NDArray[np.int64]

# With fewer examples per class, some order of the classes would fit any predictions.
_FEWEST_EXAMPLES = 5
_LEVEL = 0.01
_SHOWN = 3


def check_outputs(
    step: Step, labels: Classes, predictions: Classes, class_names: tuple[str, ...]
) -> None:
    """Compares a frozen model's predictions of the validation split with its labels.

    The outputs have no names, so another order of the classes can only be seen here. The best order
    is the assignment with the most hits (Kuhn 1955). It explains the predictions under two
    conditions: the classes that it moves are hit in more than half of their examples, and more than
    twice as often as without it. Accuracy below chance for another reason gives a warning.

    Raises:
        UserError: another order of the classes explains the predictions.
    """
    if not step.training.frozen:
        return
    number = len(class_names)
    counts = np.zeros((number, number), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)
    total, hits = int(counts.sum()), int(np.trace(counts))
    classes, outputs = linear_sum_assignment(counts, maximize=True)
    moved = classes[outputs != classes]
    examples = counts[moved].sum()
    explained = counts[moved, outputs[moved]].sum()
    enough = len(moved) > 0 and examples >= _FEWEST_EXAMPLES * len(moved)
    if enough and explained > max(examples / 2, 2 * counts[moved, moved].sum()):
        given = step.training.weights or step.training.model
        order = [f"output {outputs[c]} is {class_names[c]!r}" for c in moved[:_SHOWN]]
        best = counts[classes, outputs].sum() / total
        raise UserError(
            f"weights={given!r} have the classes in another order: on validation {hits / total:.1%}"
            f" are right, and {best:.1%} if {', '.join(order)}{' ...' * (len(moved) > _SHOWN)}; "
            f"allowed: outputs in the dataset's order ({', '.join(class_names[:_SHOWN])}, ...)"
        )
    if binomtest(hits, total, 1 / number, alternative="less").pvalue < _LEVEL:
        say(
            f"{step.title}: on validation {hits / total:.1%} are right, and guessing gives "
            f"{1 / number:.1%}; check that its inputs and classes have the same meaning as the "
            "dataset's"
        )
