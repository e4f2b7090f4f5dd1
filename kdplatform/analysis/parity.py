"""Parity: what DPD and EOD would be if groups did not matter, by permuting group membership.

DPD and EOD are largest differences, so they are above 0 by chance alone: for a selection rate of
one half and ten groups of 100 about .15. Only the excess is evidence of unfairness.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.group_rates import (
    MIN_GROUP_SIZE,
    GroupCounts,
    Measure,
    metric_values,
)
from kdplatform.analysis.profiles import COUNTS_AT_ONCE, Arms, Models, Profiles, models_of_arms
from kdplatform.analysis.tables import Attribute
from kdplatform.predictions import FloatArray, IntArray

# Metrics by what is permuted: groups among all examples, or among the examples of one label.
_ALL = ("dpd", "dpd_max", "accuracy_gap")
_BY_LABEL = ("eod", "eod_max", "tpr_difference", "fpr_difference")


class _Counter:
    """Counts of all models when groups are permuted among the examples of each stratum.

    Group codes stay in their places and the examples' profiles (label and predictions) move.
    """

    def __init__(self, models: Models) -> None:
        self.codes, self.members = models.groups.codes, models.groups.members
        self.n_codes = len(self.members)
        together = replace(
            models.groups,
            names=("all",),
            codes=np.zeros_like(self.codes),
            members=np.ones((1, 1), dtype=bool),
        )
        self.profiles = Profiles(replace(models, groups=together))

    def _counts(self, profile: IntArray) -> GroupCounts:
        """Counts [permutations, models, ...] for profiles of [permutations, examples]."""
        permutations, n_profiles = len(profile), len(self.profiles.size)
        columns = permutations * self.n_codes
        cell = profile * columns + self.codes
        cell += (np.arange(permutations) * self.n_codes)[:, None]
        sizes = np.bincount(cell.ravel(), minlength=n_profiles * columns)
        counts = self.profiles.counts(sizes.reshape(n_profiles, columns))

        def by_code(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
            # [permutations * codes, models, 1 ...] to [permutations, models, codes ...]
            split = values.reshape(permutations, self.n_codes, values.shape[1], *values.shape[3:])
            return np.moveaxis(split, 1, 2)

        by_codes = GroupCounts(
            n=by_code(counts.n),
            positives=by_code(counts.positives),
            predicted=by_code(counts.predicted),
            hits=by_code(counts.hits),
        )
        return by_codes.of_groups(self.members)

    def _per_permutation(self) -> int:
        counts = self.profiles.counts_per_draw * self.n_codes
        return max(counts, len(self.profiles.size) * self.n_codes, len(self.codes))

    def permuted(
        self,
        strata: IntArray,
        permutations: int,
        generator: np.random.Generator,
        *,
        redrawn: bool = False,
    ) -> Iterator[GroupCounts]:
        """Counts of permuted groups, some permutations at a time.

        Args:
            redrawn: whether what examples are is drawn with replacement instead of permuted.
        """
        members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
        step = max(1, min(permutations, COUNTS_AT_ONCE // self._per_permutation()))
        for start in range(0, permutations, step):
            size = min(step, permutations - start)
            profile = np.tile(self.profiles.profile, (size, 1))
            for own in members:
                if redrawn:
                    chosen = generator.integers(0, len(own), (size, len(own)))
                    profile[:, own] = self.profiles.profile[own[chosen]]
                else:
                    profile[:, own] = generator.permuted(profile[:, own], axis=1)
            yield self._counts(profile)


def _p_value(observed: float, null: FloatArray) -> float:
    """Share of values at least as large, the observed one counted among them."""
    known = null[np.isfinite(null)]
    if not np.isfinite(observed) or len(known) == 0:
        return float("nan")
    # equal rates may differ in the last digits
    return float((1 + np.sum(known >= observed - 1e-12)) / (1 + len(known)))


def lower_p_value(observed: float, null: FloatArray) -> float:
    """Share of values at most as large, the observed one counted among them."""
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
    """One row per arm and metric of what was observed and what permutations give.

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
        redrawn: Whether every example is drawn anew from its stratum instead: other samples of the
            same sizes, from a population in which groups do not matter.

    Returns:
        By metric. [permutations, models]
    """
    counts = _Counter(models).permuted(strata, permutations, generator, redrawn=redrawn)
    chunks = [measure(chunk, models.large) for chunk in counts]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def parity_null(
    arms: Arms,
    attribute: Attribute,
    *,
    permutations: int = 1000,
    seed: int = 0,
    min_group_size: int = MIN_GROUP_SIZE,
) -> pd.DataFrame:
    """Expected DPD, EOD and accuracy gap under parity, and the permutation p of the observed ones.

    For DPD and the accuracy gap the groups of all examples are permuted: the null is that
    predictions, or their being right, do not depend on the group. For EOD and its parts they are
    permuted among examples of the same label: the null is that predictions do not depend on the
    group given the label. Predictions stay where they are, and one permutation serves all models;
    the statistic is the mean over an arm's seeds. p is (1 + permutations at least as large) /
    (1 + permutations), Phipson and Smyth 2010.

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
