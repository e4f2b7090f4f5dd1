"""Parity: DPD and EOD as they would be if groups did not matter, by permuting groups.

DPD and EOD are largest differences, so they are above 0 by chance alone. With a selection rate of
one half and ten groups of 100, chance gives about .15. Only the excess is evidence of unfairness.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from kdplatform.analysis.group_permutation import GroupPermutation
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE, Measure, metric_values
from kdplatform.analysis.profiles import Arms, Models, Profiles, models_of_arms
from kdplatform.analysis.tables import Attribute
from kdplatform.predictions import FloatArray, IntArray

# Metrics by what is permuted: groups among all examples, or among the examples of one label.
_ALL = ("dpd", "dpd_max", "accuracy_gap")
_BY_LABEL = ("eod", "eod_max", "tpr_difference", "fpr_difference")


def _p_value(observed: float, null: FloatArray) -> float:
    """Share of values that are at least as large, with the observed value included."""
    known = null[np.isfinite(null)]
    if not np.isfinite(observed) or len(known) == 0:
        return float("nan")
    # equal rates may differ in the last digits
    return float((1 + np.sum(known >= observed - 1e-12)) / (1 + len(known)))


def lower_p_value(observed: float, null: FloatArray) -> float:
    """Share of values that are at most as large, with the observed value included."""
    return _p_value(-observed, -null)


def null_row(null: pd.DataFrame, arm: str, metric: str) -> "pd.Series[Any]":
    """Returns the row of an arm and metric in a table of `parity_null`."""
    return null[(null["arm"] == arm) & (null["metric"] == metric)].iloc[0]


def null_table(
    models: Models,
    seeds: Mapping[str, int],
    observed: Mapping[str, FloatArray],
    null: Mapping[str, FloatArray],
    lower_is_extreme: Collection[str] = (),
) -> pd.DataFrame:
    """One row per arm and metric, with the observed value and that of the permutations.

    Args:
        seeds: Models of each arm, in the order of the models.
        observed: By metric. [models]
        null: By metric. [permutations, models]
        lower_is_extreme: Metrics whose small values speak against parity.

    Returns:
        As `parity_null`.
    """
    rows, start = [], 0
    for arm, number in seeds.items():
        own = slice(start, start + number)
        start += number
        for metric, values in null.items():
            value, under = float(observed[metric][own].mean()), values[:, own].mean(axis=1)
            known = under[np.isfinite(under)]
            mean = float(known.mean()) if len(known) else np.nan
            lower = metric in lower_is_extreme
            sign = -1 if lower else 1
            rows.append(
                {
                    "attribute": models.groups.attribute,
                    "arm": arm,
                    "metric": metric,
                    "observed": value,
                    "null_mean": mean,
                    "null_95": _quantile(known, 0.05 if lower else 0.95),
                    "excess": value - mean,
                    "p_value": _p_value(sign * value, sign * under),
                    "permutations": len(values),
                    "seeds": number,
                }
            )
    return pd.DataFrame(rows)


def _quantile(known: FloatArray, share: float) -> float:
    return float(np.quantile(known, share)) if len(known) else np.nan


def permuted_values(
    models: Models,
    strata: IntArray,
    permutations: int,
    generator: np.random.Generator,
    measure: Measure = metric_values,
    *,
    redrawn: bool = False,
) -> dict[str, FloatArray]:
    """Metrics of all models when groups are permuted among the examples of each stratum.

    Args:
        redrawn: Whether every example is drawn anew from its stratum instead of permuted. This
            gives samples of the same sizes from a population in which groups do not matter.

    Returns:
        By metric. [permutations, models]
    """
    return GroupPermutation(models).measured(
        strata, permutations, generator, measure, redrawn=redrawn
    )


def parity_null(
    arms: Arms,
    attribute: Attribute,
    *,
    permutations: int = 1000,
    seed: int = 0,
    min_group_size: int = MIN_GROUP_SIZE,
) -> pd.DataFrame:
    """Expected DPD, EOD and accuracy gap under parity, and the permutation p of the observed ones.

    For DPD and the accuracy gap the groups of all examples are permuted. The null hypothesis is
    that predictions, or their correctness, do not depend on the group. For EOD and its parts the
    groups are permuted among examples of the same label. The null hypothesis is that predictions do
    not depend on the group given the label. Predictions are not moved, and one permutation serves
    all models. The statistic is the mean over an arm's seeds. p is (1 + permutations at least as
    large) / (1 + permutations), Phipson and Smyth 2010.

    Args:
        arms: Prediction tables of each arm, one per seed, all of the same examples.
        attribute: A column, or several for their intersection.
        min_group_size: As in `group_fairness.fairness_metrics`.

    Returns:
        One row per arm and metric: `attribute`, `arm`, `metric`, `observed`, `null_mean`,
        `null_95` (95th percentile under parity), `excess` (observed minus null mean), `p_value`,
        `permutations`, `seeds`.

    Raises:
        ValueError: A table is invalid, or ids, labels or groups differ between tables.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; allowed: at least 1")
    models = models_of_arms(arms, attribute, min_group_size)
    seeds = {arm: len(tables) for arm, tables in arms.items()}
    return parity_of_models(models, seeds, permutations, seed)


def parity_of_models(
    models: Models, seeds: Mapping[str, int], permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """As `parity_null`, of models that are aligned already."""
    generator = np.random.default_rng(seed)
    values = metric_values(Profiles(models).observed(), models.large)
    observed = {name: value[0] for name, value in values.items()}
    null: dict[str, FloatArray] = {}
    for metrics, strata in ((_ALL, np.zeros_like(models.labels)), (_BY_LABEL, models.labels)):
        found = permuted_values(models, strata, permutations, generator)
        null |= {name: found[name] for name in metrics}
    return null_table(models, seeds, observed, null)
