"""Intervals for group fairness, and paired differences between arms, by a two-way bootstrap.

Each draw resamples the examples, in the same way for every model, and the seeds of every arm.
Common effects of the arms, above all examples that are hard for all of them, cancel in their
differences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special

from kdplatform.analysis.group_rates import (
    MIN_GROUP_SIZE,
    Measure,
    group_rates,
    mean_known,
    metric_values,
)
from kdplatform.analysis.intervals import Interval
from kdplatform.analysis.parity import null_row, parity_of_models
from kdplatform.analysis.profiles import Arms, Models, Profiles, models_of_arms
from kdplatform.analysis.significance import check_fraction
from kdplatform.analysis.tables import Attribute, quotient
from kdplatform.analysis.verdict import (
    HIGHER_IS_FAIRER,
    WITHOUT_CHANCE_LEVEL,
    Change,
    fairness_word,
)
from kdplatform.predictions import FloatArray


class _SeedVariance(NamedTuple):
    variance: float  # of the mean over seeds
    degrees: float


def _seed_variance(values: FloatArray) -> _SeedVariance:
    """Variance of the mean of one value per seed, 0 for a single seed."""
    known = values[np.isfinite(values)]
    if len(known) < 2:
        return _SeedVariance(0.0, np.inf)
    return _SeedVariance(float(known.var(ddof=1)) / len(known), len(known) - 1)


def _interval(
    estimate: float,
    samples: FloatArray,
    seeds: _SeedVariance,
    confidence: float,
    lowest: float,
) -> Interval:
    """Estimate plus and minus t times the deviation of the draws.

    Few seeds estimate their variance badly. t therefore has the seeds' degrees of freedom, scaled
    by Satterthwaite's rule for the share of the variance that comes from seeds.
    """
    known = samples[np.isfinite(samples)]
    if not np.isfinite(estimate) or len(known) < 2:
        return Interval(estimate, np.nan, np.nan)
    variance = float(known.var(ddof=1))
    degrees = np.inf
    if seeds.variance > 0:
        degrees = seeds.degrees * max(1.0, variance / seeds.variance) ** 2
    margin = float(special.stdtrit(min(degrees, 1e9), 0.5 + confidence / 2) * np.sqrt(variance))
    return Interval(estimate, estimate - margin, estimate + margin).within(lowest, 1.0)


class Comparison(NamedTuple):
    """A difference between two arms, and its verdict."""

    change: Change
    verdict: str


@dataclass(frozen=True)
class FairnessBootstrap:
    """Metrics of several arms, with the draws for their intervals and differences.

    Attributes:
        values: Metric of every model, by arm and metric. [seeds]
        samples: Resampled mean over seeds, by arm and metric. [draws]
        group_accuracy: Mean over seeds of each group's accuracy, by arm; NaN for a group that is
            too small. [groups]
        make_null: Permutes groups at the first call.
    """

    attribute: str
    groups: tuple[str, ...]
    confidence: float
    values: Mapping[str, Mapping[str, FloatArray]]
    samples: Mapping[str, Mapping[str, FloatArray]]
    group_accuracy: Mapping[str, FloatArray]
    make_null: Callable[[], pd.DataFrame] = field(repr=False)

    @cached_property
    def null(self) -> pd.DataFrame:
        """The chance levels of the arms, as `parity.parity_null` returns them."""
        return self.make_null()

    def compare(self, arm: str, reference: str, metric: str) -> Comparison:
        """Judges the difference of two arms by the rule of all reports and commands.

        Chance levels of a largest difference differ between arms. The interval alone therefore
        gives no verdict; `null` gives the difference of the chance levels.

        >>> frame = pd.DataFrame({"id": range(160), "label": [0, 1] * 80, "prediction": [0, 1] * 80,
        ...                       "color": ["red"] * 80 + ["blue"] * 80})
        >>> boot = bootstrap_fairness({"A": [frame], "B": [frame]}, "color", draws=50)
        >>> boot.compare("B", "A", "eod").verdict
        'undecided'
        """
        change = self.change([arm], reference, metric)
        return Comparison(change, fairness_word(metric, change))

    def change(
        self, arms: Sequence[str], reference: str, metric: str, null: pd.DataFrame | None = None
    ) -> Change:
        """The mean of a metric over arms minus that of a reference, with its paired interval.

        Args:
            null: `parity.parity_null` of these arms and the attribute; None: it is computed.
        """
        weights = {arm: 1 / len(arms) for arm in arms}
        weights[reference] = weights.get(reference, 0.0) - 1.0
        interval = self.contrast(weights, metric)
        chance = 0.0
        if metric not in WITHOUT_CHANCE_LEVEL:
            under = self.null if null is None else null
            levels = [null_row(under, arm, metric)["null_mean"] for arm in (*arms, reference)]
            chance = float(np.mean(levels[:-1]) - levels[-1])
        improves = interval.estimate > 0 if metric in HIGHER_IS_FAIRER else interval.estimate < 0
        return Change(interval, chance, improves and self._all_fall(arms, reference))

    def _all_fall(self, arms: Sequence[str], reference: str) -> bool:
        """Whether every measured group's accuracy is lower than under the reference."""
        accuracy: FloatArray = np.mean([self.group_accuracy[arm] for arm in arms], axis=0)
        known, before = np.isfinite(accuracy), self.group_accuracy[reference]
        return bool(np.all(accuracy[known] < before[known]))

    def interval(self, arm: str, metric: str) -> Interval:
        """A metric's mean over the arm's seeds, with its interval."""
        for name, value, allowed in (
            ("arm", arm, self.values),
            ("metric", metric, next(iter(self.values.values()))),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed: {list(allowed)}")
        values = self.values[arm][metric]
        return _interval(
            float(mean_known(values)),
            self.samples[arm][metric],
            _seed_variance(values),
            self.confidence,
            0.0,
        )

    def difference(self, arm: str, reference: str, metric: str) -> Interval:
        """A metric's mean of `arm` minus that of `reference`, with its paired interval."""
        weights = {arm: 1.0}
        weights[reference] = weights.get(reference, 0.0) - 1.0
        return self.contrast(weights, metric)

    def contrast(self, weights: Mapping[str, float], metric: str) -> Interval:
        """A weighted sum of the arms' means of a metric, with its paired interval.

        Args:
            weights: By arm, such as 1/2 for each of two arms and -1 for their reference. Arms with
                equally many seeds are paired by seed, as they are in the draws.
            metric: One of `values`; of `bootstrap_fairness` one of `group_fairness.METRICS`.
        """
        estimate, samples = 0.0, np.zeros(1)
        by_seed: dict[int, FloatArray] = {}
        for arm, weight in weights.items():
            estimate += weight * self.interval(arm, metric).estimate
            samples = samples + weight * self.samples[arm][metric]
            values = weight * self.values[arm][metric]
            by_seed[len(values)] = by_seed.get(len(values), np.zeros(len(values))) + values
        parts = [_seed_variance(values) for values in by_seed.values()]
        # Satterthwaite's degrees of freedom; a paired difference has those of its seeds alone
        total = sum(part.variance for part in parts)
        share = sum(part.variance**2 / part.degrees for part in parts)
        seeds = _SeedVariance(total, float(quotient(total**2, share)))
        return _interval(estimate, samples, seeds, self.confidence, -1.0)

    def table(self) -> pd.DataFrame:
        """One row per arm and metric: `estimate`, `sd` over seeds, `low`, `high`, `seeds`."""
        rows = []
        for arm, metrics in self.values.items():
            for metric, values in metrics.items():
                interval = self.interval(arm, metric)
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else np.nan
                row = {"attribute": self.attribute, "arm": arm, "metric": metric}
                rows.append(row | interval._asdict() | {"sd": spread, "seeds": len(values)})
        return pd.DataFrame(rows)


def _seed_weights(seeds: int, draws: int, generator: np.random.Generator) -> FloatArray:
    """How often each seed is drawn, one fewer than there are for an unbiased variance."""
    if seeds == 1:
        return np.ones((draws, 1))
    chances = np.full(seeds, 1 / seeds)
    return generator.multinomial(seeds - 1, chances, size=draws).astype(float)


def _weighted_mean(values: FloatArray, weights: FloatArray) -> FloatArray:
    """Mean over the last axis of the values that are defined."""
    known = np.isfinite(values)
    total = (np.where(known, values, 0.0) * weights).sum(axis=-1)
    return quotient(total, (known * weights).sum(axis=-1))


def bootstrap_fairness(
    arms: Arms,
    attribute: Attribute,
    *,
    draws: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
    min_group_size: int = MIN_GROUP_SIZE,
) -> FairnessBootstrap:
    """Fairness metrics of arms with intervals over examples and seeds.

    Metrics are those of `group_fairness.fairness_metrics`, averaged over an arm's seeds. A draw
    resamples the examples that belong to a group, with replacement and the same for all models
    (Efron 1979; as a multinomial on the table of group, label and predictions). Independently it
    resamples the seeds (Owen 2007, the pigeonhole bootstrap). It draws one seed fewer than there
    are (Rao and Wu 1988), so that the variance of a mean over few seeds is not underestimated. Arms
    with equally many seeds share the draw: seed i of one is paired with seed i of the other.

    The interval is the estimate plus and minus t times the deviation of the draws, cut off at the
    metric's range. With one seed it is conditional on that model. A metric that is a largest
    difference is biased upward, and near parity its own interval misses 0. Test parity by
    `parity.parity_null`. Test arms by their difference, in which the bias cancels if their error
    rates are similar.

    Args:
        arms: Prediction tables of each arm, one per seed, all of the same examples.
        attribute: A column, or several for their intersection.
        min_group_size: As in `group_fairness.fairness_metrics`, of the examples as they are.

    Raises:
        ValueError: A table is invalid, or ids, labels or groups differ between tables.
    """
    check_fraction("confidence", confidence)
    if draws < 2:
        raise ValueError(f"draws is {draws}; allowed: at least 2")
    models = models_of_arms(arms, attribute, min_group_size)
    return bootstrap_models(models, {k: len(v) for k, v in arms.items()}, draws, confidence, seed)


def bootstrap_models(
    models: Models,
    seeds: Mapping[str, int],
    draws: int,
    confidence: float = 0.95,
    seed: int = 0,
    measure: Measure = metric_values,
    make_null: Callable[[], pd.DataFrame] | None = None,
) -> FairnessBootstrap:
    """As `bootstrap_fairness`, of models that are aligned already.

    Args:
        seeds: Models of each arm, in the order of the models.
        measure: Computes the metrics from the counts of a draw.
        make_null: Returns the chance levels of the measure; None: those of `metric_values`.
    """
    generator = np.random.default_rng(seed)
    profiles = Profiles(models)
    observed = profiles.observed()
    large = models.large
    values = {name: value[0] for name, value in measure(observed, large).items()}
    drawn = profiles.resampled(draws, generator, measure, large)
    weights = {n: _seed_weights(n, draws, generator) for n in sorted(set(seeds.values()))}
    ends = np.cumsum(list(seeds.values()))
    columns = {
        arm: slice(int(end) - n, int(end))
        for (arm, n), end in zip(seeds.items(), ends, strict=True)
    }
    return FairnessBootstrap(
        attribute=models.groups.attribute,
        groups=models.groups.names,
        confidence=confidence,
        values={arm: {name: values[name][own] for name in values} for arm, own in columns.items()},
        samples={
            arm: {name: _weighted_mean(drawn[name][:, own], weights[seeds[arm]]) for name in drawn}
            for arm, own in columns.items()
        },
        group_accuracy={
            arm: group_rates(observed, large).accuracy[0, own].mean(axis=0)
            for arm, own in columns.items()
        },
        make_null=make_null or partial(parity_of_models, models, seeds),
    )
