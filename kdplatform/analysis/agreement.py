"""How often two arms agree within a group, compared with how often seeds of one arm agree."""

from collections.abc import Sequence
from itertools import combinations, product

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.permutation import seed_splits
from kdplatform.analysis.tables import Attribute, attribute_groups, quotient, stack_tables
from kdplatform.predictions import FloatArray, Table

# Shares that differ by less count as equal, because sums in another order differ by rounding.
_ROUNDING = 1e-12


def agreement_by_group(
    tables_a: Sequence[Table],
    tables_b: Sequence[Table],
    attribute: Attribute,
    *,
    min_group_size: int = MIN_GROUP_SIZE,
) -> pd.DataFrame:
    """Share of a group's examples on which the arms agree, beside the noise between seeds.

    Two seeds of one arm already disagree. `excess_disagreement` is the mean disagreement of a model
    of A with one of B minus the mean within A and within B. Its mean is 0 if the arms are seeds of
    one kind. Its p comes from the permutation of seeds: the share of all splits of the seeds into
    two arms with an excess at least as large. Shares use the weights, if the tables have them.

    Args:
        tables_a: The reference, one table per seed.
        tables_b: One table per seed. With as many tables as in `tables_a`, tables i of both are
            taken as the same seed, and agreement is that of equal seeds.
        min_group_size: Smaller groups are listed and not measured.

    Returns:
        One row per group: `attribute`, `group`, `n`, `agreement` (of A with B), `within_a`,
        `within_b` (NaN for an arm of one seed), `excess_disagreement` and `p_value` (NaN where an
        arm has one seed).

    >>> a = pd.DataFrame({"id": range(4), "label": 0, "prediction": [0, 0, 1, 1],
    ...                   "sex": ["f", "f", "m", "m"]})
    >>> b = a.assign(prediction=[0, 0, 0, 1])
    >>> found = agreement_by_group([a], [b], "sex", min_group_size=1)
    >>> found[["group", "n", "agreement"]].values.tolist()
    [['f', 2, 1.0], ['m', 2, 0.5]]
    """
    stack = stack_tables([*tables_a, *tables_b])
    groups = attribute_groups(stack.reference, attribute)
    inside = np.flatnonzero(groups.codes >= 0)
    weights = np.ones(len(stack.labels)) if stack.weights is None else stack.weights
    of_groups = groups.members[groups.codes[inside]].T  # [groups, examples]
    n = (of_groups & (weights[inside] > 0)).sum(axis=1)
    shares = of_groups * weights[inside]
    total = shares.sum(axis=1)
    models = len(stack.predictions)
    apart = np.zeros((models, models, len(n)))
    for one, other in combinations(range(models), 2):
        differs = stack.predictions[one, inside] != stack.predictions[other, inside]
        apart[one, other] = apart[other, one] = quotient(shares @ differs, total)
    in_a, in_b = range(len(tables_a)), range(len(tables_a), models)
    paired = len(in_a) == len(in_b)
    across = list(zip(in_a, in_b, strict=True)) if paired else list(product(in_a, in_b))
    excess, p_value = _excess(apart, len(in_a))
    columns = {
        "agreement": 1 - np.mean([apart[i, j] for i, j in across], axis=0),
        "within_a": 1 - _within(apart, np.array(in_a)),
        "within_b": 1 - _within(apart, np.array(in_b)),
        "excess_disagreement": excess,
        "p_value": p_value,
    }
    large = n >= min_group_size
    known = {name: np.where(large, values, np.nan) for name, values in columns.items()}
    frame = {"attribute": groups.attribute, "group": list(groups.names), "n": n}
    return pd.DataFrame(frame | known)


def _within(apart: FloatArray, own: npt.NDArray[np.integer]) -> FloatArray:
    """Mean disagreement of two models of an arm; NaN for a single one. [groups]."""
    if len(own) < 2:
        return np.full(apart.shape[-1], np.nan)
    total: FloatArray = apart[np.ix_(own, own)].sum(axis=(0, 1))
    return total / (len(own) * (len(own) - 1))


def _excess(apart: FloatArray, n_a: int) -> tuple[FloatArray, FloatArray]:
    """Disagreement across arms beyond that within them, and its p by permuting seeds. [groups]."""
    models = len(apart)
    if min(n_a, models - n_a) < 2:
        unknown = np.full(apart.shape[-1], np.nan)
        return unknown, unknown
    splits, _ = seed_splits(n_a, models - n_a)
    in_b = splits.astype(float)  # [splits, models]
    in_a = 1 - in_b
    n_b = models - n_a

    def mean(first: FloatArray, second: FloatArray, pairs: int) -> FloatArray:
        total: FloatArray = np.einsum("si,ijg,sj->sg", first, apart, second, optimize=True)
        return total / pairs

    within = mean(in_a, in_a, n_a * (n_a - 1)) + mean(in_b, in_b, n_b * (n_b - 1))
    excess = mean(in_a, in_b, n_a * n_b) - within / 2
    return excess[0], np.mean(excess >= excess[0] - _ROUNDING, axis=0)
