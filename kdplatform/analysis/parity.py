"""Parity: what DPD and EOD would be if groups did not matter, by permuting group membership.

DPD and EOD are largest differences, so they are above 0 by chance alone: for a selection rate of
one half and ten groups of 100 about .15. Only what goes beyond that is evidence of unfairness.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import sparse

from kdplatform.analysis.bootstrap import Arms
from kdplatform.analysis.group_rates import GroupCounts, metric_values
from kdplatform.analysis.profiles import Models, models_on_groups
from kdplatform.analysis.tables import Attribute, FloatArray, IntArray

# Counts held at a time: bounds memory however many models there are.
_COUNTS = 4_000_000
_DPD, _EOD = ("dpd", "dpd_max"), ("eod", "eod_max", "tpr_difference", "fpr_difference")


def _permuted_codes(
    codes: IntArray, strata: IntArray, permutations: int, generator: np.random.Generator
) -> IntArray:
    """Codes [permutations, examples], permuted among the examples of each stratum."""
    permuted = np.tile(codes, (permutations, 1))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        permuted[:, members] = generator.permuted(permuted[:, members], axis=1)
    return permuted


class _Counter:
    """Counts of all models under any assignment of groups."""

    def __init__(self, models: Models) -> None:
        n_models, self.examples = models.predictions.shape
        self.n_groups, self.n_classes = len(models.groups.names), models.n_classes
        self.shape = (1 + 2 * n_models, models.n_classes)
        model, wrong = np.nonzero(models.predictions != models.labels)
        misses = self.n_classes * (1 + model) + models.labels[wrong]
        alarms = self.n_classes * (1 + n_models + model) + models.predictions[model, wrong]
        rows = np.concatenate([models.labels, misses, alarms])
        columns = np.concatenate([np.arange(self.examples), wrong, wrong])
        self.matrix = sparse.csr_array(
            (np.ones(len(rows), dtype=np.float32), (rows, columns)),
            shape=(int(np.prod(self.shape)), self.examples),
        )

    def chunk(self, permutations: int) -> int:
        per_permutation = self.n_groups * max(self.matrix.shape[0], self.examples)
        return int(max(1, min(permutations, _COUNTS // per_permutation)))

    def __call__(self, codes: IntArray) -> GroupCounts:
        """Counts [permutations, models, ...] for codes of [permutations, examples]."""
        permutations = len(codes)
        member = np.zeros((self.examples, permutations, self.n_groups), dtype=np.float32)
        np.put_along_axis(member, codes.T[:, :, None], 1.0, axis=2)
        flat = self.matrix @ member.reshape(self.examples, -1)
        blocks = flat.reshape(*self.shape, permutations, self.n_groups).transpose(2, 0, 3, 1)
        n_models = (self.shape[0] - 1) // 2
        positives = blocks[:, :1]
        hits = positives - blocks[:, 1 : 1 + n_models]
        return GroupCounts(
            n=positives.sum(axis=-1),
            positives=positives,
            predicted=hits + blocks[:, 1 + n_models :],
            hits=hits,
        )


def _null_values(
    counter: _Counter,
    codes: IntArray,
    strata: IntArray,
    permutations: int,
    generator: np.random.Generator,
) -> Iterator[dict[str, FloatArray]]:
    step = counter.chunk(permutations)
    for start in range(0, permutations, step):
        size = min(step, permutations - start)
        yield metric_values(counter(_permuted_codes(codes, strata, size, generator)))


def _p_value(observed: float, null: FloatArray) -> float:
    """Share of values at least as large, the observed one counted among them."""
    known = null[np.isfinite(null)]
    if not np.isfinite(observed) or len(known) == 0:
        return float("nan")
    # equal rates may differ in the last digits
    return float((1 + np.sum(known >= observed - 1e-12)) / (1 + len(known)))


def parity_null(
    arms: Arms, attribute: Attribute, *, permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Expected DPD and EOD under parity, and the permutation p of the observed ones.

    For DPD the groups of all examples are permuted: the null is that predictions do not depend on
    the group. For EOD and its parts they are permuted among examples of the same label: the null is
    that predictions do not depend on the group given the label. Predictions stay where they are,
    and one permutation serves all models; the statistic is the mean over an arm's seeds. p is
    (1 + permutations at least as large) / (1 + permutations), Phipson and Smyth 2010.

    Args:
        arms: Prediction tables of each arm, one per seed, all of the same examples.
        attribute: A column, or several for their intersection.
        permutations: Number of permutations.
        seed: Seeds the permutations.

    Returns:
        One row per arm and metric: `attribute`, `arm`, `metric`, `observed`, `null_mean`,
        `null_95` (95th percentile under parity), `excess` (observed minus null mean), `p_value`,
        `permutations`, `seeds`.

    Raises:
        ValueError: A table is invalid, or ids, labels or groups differ between tables.
    """
    if permutations < 1:
        raise ValueError(f"permutations is {permutations}; allowed: at least 1")
    if not arms or not all(len(tables) for tables in arms.values()):
        raise ValueError(f"arms are {list(arms)}; allowed: at least one, each with a table")
    models = models_on_groups([table for tables in arms.values() for table in tables], attribute)
    generator = np.random.default_rng(seed)
    counter, codes = _Counter(models), models.groups.codes
    observed = metric_values(counter(codes[None]))
    null: dict[str, FloatArray] = {}
    for metrics, strata in ((_DPD, np.zeros_like(codes)), (_EOD, models.labels)):
        chunks = list(_null_values(counter, codes, strata, permutations, generator))
        null |= {name: np.concatenate([chunk[name] for chunk in chunks]) for name in metrics}
    rows, start = [], 0
    for arm, tables in arms.items():
        own = slice(start, start + len(tables))
        start += len(tables)
        for metric in (*_DPD, *_EOD):
            value = float(observed[metric][0, own].mean())
            under = null[metric][:, own].mean(axis=1)
            known = under[np.isfinite(under)]
            mean = float(known.mean()) if len(known) else np.nan
            rows.append(
                {
                    "attribute": models.groups.attribute,
                    "arm": arm,
                    "metric": metric,
                    "observed": value,
                    "null_mean": mean,
                    "null_95": float(np.quantile(known, 0.95)) if len(known) else np.nan,
                    "excess": value - mean,
                    "p_value": _p_value(value, under),
                    "permutations": permutations,
                    "seeds": len(tables),
                }
            )
    return pd.DataFrame(rows)
