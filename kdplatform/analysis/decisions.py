"""Measures of decisions for audits: selection rates, impact ratios, equal opportunity, precision.

One class is the favourable one. Tables are first turned into decisions (`decided`, `scored`): 1 for
the favourable class, 0 for any other. The metrics have fairlearn's names, and the tests compare
them with fairlearn's values.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.bootstrap import Comparison, FairnessBootstrap, bootstrap_models
from kdplatform.analysis.calibration import probability_of
from kdplatform.analysis.group_rates import (
    MIN_GROUP_SIZE,
    GroupCounts,
    LargeEnough,
    count_codes,
    spread,
)
from kdplatform.analysis.parity import lower_p_value, null_table, permuted_values
from kdplatform.analysis.profiles import Arms, Models, Profiles, models_of_arms
from kdplatform.analysis.significance import check_fraction
from kdplatform.analysis.tables import Attribute, quotient
from kdplatform.predictions import FloatArray, Predictions

# A rate below four fifths of the highest group's is taken as evidence of adverse impact (Uniform
# Guidelines on Employee Selection Procedures, 29 CFR 1607.4 D).
FOUR_FIFTHS = 0.8
# A group with less than this share of the examples may be left out of impact ratios (6 RCNY 5-301).
MIN_GROUP_SHARE = 0.02

DEMOGRAPHIC_PARITY_RATIO = "demographic_parity_ratio"
EQUAL_OPPORTUNITY = "equal_opportunity_difference"
PREDICTIVE_PARITY = "predictive_parity_difference"
METRICS = (DEMOGRAPHIC_PARITY_RATIO, EQUAL_OPPORTUNITY, PREDICTIVE_PARITY)
_IMPACT = "impact_ratio"


def decided(table: Predictions, positive: int) -> Predictions:
    """Returns labels and predictions as 1 for the favourable class and 0 for any other."""
    labels, predictions = (
        (values == positive).astype(np.int64) for values in (table.labels, table.predictions)
    )
    return replace(table, labels=labels, predictions=predictions, logits=None)


def scored(table: Predictions, positive: int, scores: FloatArray | None = None) -> Predictions:
    """Returns decisions by score: 1 where it is above the median score of all examples.

    The score is the probability of the favourable class. The share of a group that gets 1 is its
    scoring rate (6 RCNY 5-300). Scores that equal the median are not above it.

    Args:
        scores: The probabilities, if they are known already. [examples]

    Raises:
        ValueError: the table has no logits.
    """
    if scores is None:
        scores = probability_of(table, positive)
    order = np.argsort(scores, kind="stable")
    weights = np.ones(len(scores)) if table.weights is None else table.weights
    reached = np.cumsum(weights[order])
    median = scores[order][np.searchsorted(reached, reached[-1] / 2)]
    return replace(decided(table, positive), predictions=(scores > median).astype(np.int64))


@dataclass(frozen=True)
class _Enough:
    """Which groups have enough examples for a rate.

    Attributes:
        ratio: for the selection rate, with a large enough share for an impact ratio. [groups]
        positives: examples of the favourable class, for the TPR. [groups]
        selected: examples that a model selects, for its precision. [models, groups]
    """

    ratio: npt.NDArray[np.bool_]
    positives: npt.NDArray[np.bool_]
    selected: npt.NDArray[np.bool_]


def _ratios(counts: GroupCounts, enough: _Enough) -> FloatArray:
    """Selection rate over that of the group with the highest one. [..., groups]."""
    rates = np.where(enough.ratio, quotient(counts.predicted[..., 1], counts.n), np.nan)
    if enough.ratio.sum() < 2:
        return np.full_like(rates, np.nan)
    return quotient(rates, np.fmax.reduce(rates, axis=-1)[..., None])


def _decision_values(
    counts: GroupCounts, _: LargeEnough, *, enough: _Enough
) -> dict[str, FloatArray]:
    hits = counts.hits[..., 1]
    tpr = np.where(enough.positives, quotient(hits, counts.positives[..., 1]), np.nan)
    selected = enough.selected[counts.models]
    precision = np.where(selected, quotient(hits, counts.predicted[..., 1]), np.nan)
    return {
        DEMOGRAPHIC_PARITY_RATIO: np.fmin.reduce(_ratios(counts, enough), axis=-1),
        EQUAL_OPPORTUNITY: spread(tpr, -1),
        PREDICTIVE_PARITY: spread(precision, -1),
    }


def _ratio_values(counts: GroupCounts, _: LargeEnough, *, enough: _Enough) -> dict[str, FloatArray]:
    ratios = _ratios(counts, enough)
    return {_IMPACT: ratios, DEMOGRAPHIC_PARITY_RATIO: np.fmin.reduce(ratios, axis=-1)}


@dataclass(frozen=True)
class Decisions:
    """The decisions of several arms, for one attribute.

    Attributes:
        groups: One row per arm and group: `attribute`, `arm`, `group`, `n`, `share` (of the
            examples in groups, or of their weight), `selection_rate`, `impact_ratio` (over the
            highest group's), `below_four_fifths`, `tpr`, `precision`. Rates are means over the
            arm's seeds. They are NaN if a group is too small; an impact ratio is also NaN if the
            group's share is too small.
        rule: The four-fifths rule, one row per arm: `attribute`, `arm`, `impact_ratio` (the
            lowest), `group` (the group that has it), `below` (groups below four fifths),
            `chance_of_below` (share of simulated audits of these sizes in which a group falls below
            although all have the same rate), `p_value` (share of permutations of the groups with a
            lowest ratio at least as low), `permutations`.
        left_out: Groups that are large enough to be measured, but whose share is too small for a
            ratio.
        bootstrap: The metrics with their intervals.
    """

    groups: pd.DataFrame
    rule: pd.DataFrame
    left_out: tuple[str, ...]
    bootstrap: FairnessBootstrap

    def compare(self, arm: str, reference: str, metric: str) -> Comparison:
        """Judges the difference of two arms; see `FairnessBootstrap.compare`."""
        return self.bootstrap.compare(arm, reference, metric)


def decisions(
    arms: Arms,
    attribute: Attribute,
    *,
    draws: int = 10_000,
    permutations: int = 1000,
    null_permutations: int | None = None,
    seed: int = 0,
    min_group_size: int = MIN_GROUP_SIZE,
    min_group_share: float = MIN_GROUP_SHARE,
    metrics: Collection[str] = METRICS,
) -> Decisions:
    """Selection rates, impact ratios and metrics of decisions, with intervals and chance levels.

    - `demographic_parity_ratio`: lowest over highest selection rate, the lowest impact ratio;
    - `equal_opportunity_difference`: spread of P(decision 1 | label 1) (Hardt et al. 2016);
    - `predictive_parity_difference`: spread of P(label 1 | decision 1), the precision
      (Chouldechova 2017, arXiv 1610.07524).

    The chance level comes from permuting groups: among all examples for the ratio, among those of
    one label for equal opportunity, and among those that the model selects for predictive parity. A
    simulation shows how often groups of these sizes with equal rates fall below four fifths. It
    draws the decisions of every example anew from those of all examples.

    Args:
        arms: Tables of decisions of each arm, one per seed: `decided` or `scored`.
        permutations: Number for the four-fifths rule and the ratio.
        null_permutations: Number for the chance levels of the other metrics; None: the same.
        min_group_size: Examples a group needs in the denominator of a rate.
        min_group_share: Share of the examples, or of their weight, that a group needs to have an
            impact ratio.
        metrics: The metrics that will be compared. Only they get chance levels, which take time.

    Raises:
        ValueError: A table is invalid, or ids, labels or groups differ between tables.
    """
    if min_group_share:
        check_fraction("min_group_share", min_group_share)
    models = models_of_arms(arms, attribute, min_group_size)
    seeds = {arm: len(tables) for arm, tables in arms.items()}
    counts = Profiles(models).observed()
    weights = np.ones(len(models.labels)) if models.weights is None else models.weights
    share = counts.n[0, 0] / weights.sum()
    large_share = share >= min_group_share
    enough = _Enough(
        models.large.groups & large_share,
        models.large.positives[:, 1],
        _selected(models) >= min_group_size,
    )
    permuted = _permuted_ratios(models, enough, permutations, seed)
    null = partial(
        _null,
        models,
        seeds,
        enough,
        permuted[DEMOGRAPHIC_PARITY_RATIO],
        metrics,
        null_permutations or permutations,
        seed,
    )
    bootstrap = bootstrap_models(
        models,
        seeds,
        draws,
        seed=seed,
        measure=partial(_decision_values, enough=enough),
        make_null=null,
    )
    small = models.large.groups & ~large_share
    return Decisions(
        groups=_group_frame(models, seeds, counts, enough, share),
        rule=_rule(models, seeds, counts, enough, permuted[_IMPACT], seed),
        left_out=tuple(np.array(models.groups.names)[small]),
        bootstrap=bootstrap,
    )


def _numbers(models: Models, predictions: npt.NDArray[np.int64]) -> GroupCounts:
    """Numbers of examples by group, without those of weight 0."""
    present = None if models.weights is None else (models.weights > 0).astype(float)
    n_codes = len(models.groups.members)
    found = count_codes(models.groups.codes, models.labels, predictions, n_codes, 2, present)
    return found.of_groups(models.groups.members)


def _selected(models: Models) -> npt.NDArray[np.floating | np.integer]:
    """Number of examples that a model selects. [models, groups]."""
    return np.stack([_numbers(models, own).predicted[:, 1] for own in models.predictions])


def _own(seeds: Mapping[str, int]) -> dict[str, slice]:
    """The models of every arm."""
    ends = np.cumsum(list(seeds.values()))
    return {
        arm: slice(int(end) - number, int(end))
        for (arm, number), end in zip(seeds.items(), ends, strict=True)
    }


def _group_frame(
    models: Models,
    seeds: Mapping[str, int],
    counts: GroupCounts,
    enough: _Enough,
    share: FloatArray,
) -> pd.DataFrame:
    n = _numbers(models, models.labels).n.astype(np.int64)
    selection = np.where(
        models.large.groups, quotient(counts.predicted[0, :, :, 1], counts.n[0]), np.nan
    )
    tpr = np.where(
        enough.positives, quotient(counts.hits[0, ..., 1], counts.positives[0, ..., 1]), np.nan
    )
    precision = np.where(
        enough.selected, quotient(counts.hits[0, ..., 1], counts.predicted[0, ..., 1]), np.nan
    )
    ratios = _ratios(counts, enough)[0]
    frames = []
    for arm, own in _own(seeds).items():
        impact = ratios[own].mean(axis=0)
        frames.append(
            pd.DataFrame(
                {
                    "attribute": models.groups.attribute,
                    "arm": arm,
                    "group": list(models.groups.names),
                    "n": n,
                    "share": share,
                    "selection_rate": selection[own].mean(axis=0),
                    "impact_ratio": impact,
                    "below_four_fifths": pd.array(impact < FOUR_FIFTHS, dtype="boolean"),
                    "tpr": tpr[own].mean(axis=0),
                    "precision": precision[own].mean(axis=0),
                }
            )
        )
    frame = pd.concat(frames, ignore_index=True)
    unknown = frame["impact_ratio"].isna()
    return frame.assign(below_four_fifths=frame["below_four_fifths"].mask(unknown))


def _rule(
    models: Models,
    seeds: Mapping[str, int],
    counts: GroupCounts,
    enough: _Enough,
    permuted: FloatArray,
    seed: int,
) -> pd.DataFrame:
    """The four-fifths rule.

    Args:
        permuted: Impact ratios when groups are permuted. [permutations, models, groups]
    """
    observed, permutations = _ratios(counts, enough)[0], len(permuted)
    audits = _permuted_ratios(models, enough, permutations, seed, redrawn=True)[_IMPACT]
    rows, names = [], np.array(models.groups.names)
    for arm, own in _own(seeds).items():
        ratios = observed[own].mean(axis=0)
        under, chance = (
            np.fmin.reduce(each[:, own].mean(axis=1), axis=-1) for each in (permuted, audits)
        )
        known = np.isfinite(ratios).any()
        lowest = float(np.nanmin(ratios)) if known else np.nan
        rows.append(
            {
                "attribute": models.groups.attribute,
                "arm": arm,
                "impact_ratio": lowest,
                "group": str(names[np.nanargmin(ratios)]) if known else "",
                "below": ", ".join(names[ratios < FOUR_FIFTHS]),
                "chance_of_below": float(np.mean(chance < FOUR_FIFTHS)) if known else np.nan,
                "p_value": lower_p_value(lowest, under),
                "permutations": permutations,
            }
        )
    return pd.DataFrame(rows)


def _permuted_ratios(
    models: Models, enough: _Enough, permutations: int, seed: int, *, redrawn: bool = False
) -> dict[str, FloatArray]:
    """Impact ratios when groups do not matter; see `parity.permuted_values`."""
    return permuted_values(
        models,
        np.zeros_like(models.labels),
        permutations,
        np.random.default_rng(seed),
        partial(_ratio_values, enough=enough),
        redrawn=redrawn,
    )


def _null(
    models: Models,
    seeds: Mapping[str, int],
    enough: _Enough,
    ratios: FloatArray,
    metrics: Collection[str],
    permutations: int,
    seed: int,
) -> pd.DataFrame:
    """The chance levels, as a table like that of `parity.parity_null`.

    Args:
        ratios: The demographic parity ratio when groups are permuted. [permutations, models]
    """
    generator = np.random.default_rng(seed)
    measure = partial(_decision_values, enough=enough)
    values = measure(Profiles(models).observed(), models.large)
    null = {DEMOGRAPHIC_PARITY_RATIO: ratios}
    if EQUAL_OPPORTUNITY in metrics:
        found = permuted_values(models, models.labels, permutations, generator, measure)
        null[EQUAL_OPPORTUNITY] = found[EQUAL_OPPORTUNITY]
    if PREDICTIVE_PARITY in metrics:
        null[PREDICTIVE_PARITY] = np.concatenate(
            [
                _precision_null(models, number, enough, permutations, generator)
                for number in range(len(models.predictions))
            ],
            axis=1,
        )
    observed = {name: values[name][0] for name in null}
    return null_table(models, seeds, observed, null, {DEMOGRAPHIC_PARITY_RATIO})


def _precision_null(
    models: Models, number: int, enough: _Enough, permutations: int, generator: np.random.Generator
) -> FloatArray:
    """Spread of the precision when groups are permuted among the examples that one model selects.

    Returns:
        [permutations, 1]
    """
    chosen = models.predictions[number] == 1
    if not chosen.any():
        return np.full((permutations, 1), np.nan)
    selected = replace(
        models,
        groups=replace(models.groups, codes=models.groups.codes[chosen]),
        labels=models.labels[chosen],
        predictions=models.predictions[[number]][:, chosen],
        weights=None if models.weights is None else models.weights[chosen],
    )
    own = replace(enough, selected=enough.selected[[number]])
    strata = np.zeros_like(selected.labels)
    measure = partial(_decision_values, enough=own)
    return permuted_values(selected, strata, permutations, generator, measure)[PREDICTIVE_PARITY]
