"""Models that have not learnt their task, and look fair for that reason.

A model that predicts the same class for all examples treats all groups alike: its DPD and EOD are
0. Those of a model that guesses are near 0. The fairness of such models means nothing.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.tables import attribute_groups
from kdplatform.predictions import Predictions

_LEVEL = 0.05


@dataclass(frozen=True)
class Collapse:
    """Signs of collapse in one model's predictions.

    Attributes:
        constant: the class that the model predicts for every example; None if it predicts several.
        accuracy: share of right predictions.
        chance: share of right predictions if predictions did not depend on labels.
        p_chance: one-sided p of the accuracy under chance; NaN for a constant model.
        never: labels that it never predicts.
        never_in_groups: labels that it predicts, but never in a group: attribute, group, label.
    """

    constant: int | None
    accuracy: float
    chance: float
    p_chance: float
    never: tuple[int, ...]
    never_in_groups: tuple[tuple[str, str, int], ...] = ()

    @property
    def at_chance(self) -> bool:
        """Whether the model is not shown to be better than chance."""
        return self.constant is not None or not self.p_chance < _LEVEL

    @property
    def no_better(self) -> bool:
        """Whether the model's accuracy is at most that of chance."""
        return self.constant is not None or self.accuracy <= self.chance

    @property
    def signs(self) -> int:
        """Number of signs of collapse; 0 for a model that may be judged."""
        return int(self.at_chance) + len(self.never) + len(self.never_in_groups)


def collapse_of(
    table: Predictions,
    attributes: tuple[str, ...] = (),
    min_group_size: int = MIN_GROUP_SIZE,
) -> Collapse:
    """Looks at one model's predictions for signs that it has collapsed.

    Chance is the accuracy of a random matching of these predictions with these labels: the sum over
    classes of P(prediction = c) P(label = c), the chance agreement of Cohen's kappa (1960). The
    variance is that of the matching, and p is the normal tail. A model that always predicts the
    most frequent class is at chance whatever its accuracy.

    Args:
        attributes: a class is searched in each of their groups with 30 examples of it (or
            `min_group_size`, if that is more).

    >>> import pandas as pd
    >>> labels = [0, 0, 0, 1]
    >>> frame = pd.DataFrame({"id": range(4), "label": labels, "prediction": [0, 0, 0, 0]})
    >>> found = collapse_of(Predictions.of(frame))
    >>> found.constant, found.accuracy, found.chance, found.never, found.at_chance
    (0, 0.75, 0.75, (1,), True)
    """
    classes = max(int(table.labels.max()), int(table.predictions.max())) + 1
    n = len(table)
    of_label = np.bincount(table.labels, minlength=classes).astype(float)
    of_prediction = np.bincount(table.predictions, minlength=classes).astype(float)
    products = of_label * of_prediction
    right = products.sum() / n
    rest = (n - of_label) * (n - of_prediction)
    # For a random matching: the variances of the hypergeometric counts, and their covariances.
    variance = (products * rest).sum() + products.sum() ** 2 - (products**2).sum()
    deviation = np.sqrt(variance / max(n * n * (n - 1), 1))
    predicted = np.flatnonzero(of_prediction)
    never = np.flatnonzero((of_label > 0) & (of_prediction == 0))
    p_chance = float("nan")
    if len(predicted) > 1 and deviation > 0:
        p_chance = float(stats.norm.sf((table.correct.sum() - right) / deviation))
    return Collapse(
        constant=int(predicted[0]) if len(predicted) == 1 else None,
        accuracy=float(table.correct.mean()),  # of examples, as chance is
        chance=float(right / n),
        p_chance=p_chance,
        never=tuple(never.tolist()),
        never_in_groups=_never_in_groups(
            table, attributes, set(never.tolist()), max(min_group_size, MIN_GROUP_SIZE)
        ),
    )


def _never_in_groups(
    table: Predictions, attributes: tuple[str, ...], known: set[int], min_group_size: int
) -> tuple[tuple[str, str, int], ...]:
    found = []
    for attribute in attributes:
        groups = attribute_groups(table, attribute)
        inside = groups.codes >= 0
        for column, name in enumerate(groups.names):
            own = np.zeros(len(table), dtype=bool)
            own[inside] = groups.members[groups.codes[inside], column]
            labels = np.bincount(table.labels[own])
            expected = np.flatnonzero(labels >= min_group_size)
            missing = np.setdiff1d(expected, table.predictions[own])
            found += [(groups.attribute, name, int(c)) for c in missing if int(c) not in known]
    return tuple(found)
