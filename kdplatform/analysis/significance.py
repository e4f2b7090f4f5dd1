"""Which classes differ between two arms: Welch's test over seeds, McNemar's test for one pair.

Arm `a` is the reference (Teacher or NDS), and arm `b` is compared with it (DS). Every difference is
`b` minus `a`. Accuracies and differences are fractions, not per cent.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import special, stats

from kdplatform.analysis.classwise import (
    Arm,
    ArmAccuracies,
    arm_accuracies,
    check_same_examples,
    class_total,
)
from kdplatform.analysis.mcnemar import (
    attained_level,
    change_interval,
    detectable_change,
    mcnemar_p,
)
from kdplatform.analysis.tables import quotient, stack_tables
from kdplatform.analysis.weighted import weighted_changes
from kdplatform.predictions import FloatArray, Table

Normalisation = Literal["ratio", "difference", "pooled-difference"]
NORMALISATIONS: tuple[Normalisation, ...] = ("ratio", "difference", "pooled-difference")

# Class accuracies are ratios of counts, so differences below this come from rounding.
ROUNDING = 1e-13


@dataclass(frozen=True)
class Counts:
    """How many classes differ, and how many by chance.

    Attributes:
        classes: Rows of the table.
        tested: Classes with a p-value.
        undefined: Classes with examples but without a p-value.
        significant: Classes with p below `alpha`, uncorrected: the paper's #SC or #TC.
        expected_by_chance: Sum of the tests' levels: `alpha` times `tested` over seeds. It is lower
            for McNemar's test, whose level depends on how many examples differ.
        chance_p: Probability of at least `significant` if classes were independent. It is only a
            guide, since classes share the same seeds; rely on the permutation of seeds.
        significant_bh: Classes kept at false discovery rate `alpha` (Benjamini-Hochberg).
        significant_holm: Classes kept at family-wise error rate `alpha` (Holm).
    """

    classes: int
    tested: int
    undefined: int
    significant: int
    expected_by_chance: float
    chance_p: float
    significant_bh: int
    significant_holm: int
    alpha: float


def check_fraction(name: str, value: float) -> None:
    """Refuses a level or rate that is not strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name} is {value}; allowed: above 0 and below 1")


def _p_values(values: npt.ArrayLike) -> FloatArray:
    p = np.asarray(values, dtype=float)
    if p.ndim != 1:
        raise ValueError(f"p_values have shape {p.shape}; allowed: one dimension")
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"p_values hold {p[(p < 0) | (p > 1)][0]}; allowed: 0 to 1, NaN")
    return p


def holm(p_values: npt.ArrayLike) -> FloatArray:
    """Holm's step-down adjusted p-values (Holm 1979); NaN stays NaN and is not counted.

    Raises:
        ValueError: A p-value is not between 0 and 1, or there is more than one dimension.

    >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    p = _p_values(p_values)
    adjusted = np.full(p.shape, np.nan)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike) -> FloatArray:
    """Benjamini-Hochberg adjusted p-values (1995), by scipy; NaN stays NaN and is not counted.

    Raises:
        ValueError: As `holm`.

    >>> benjamini_hochberg([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.04, 0.04]
    """
    p = _p_values(p_values)
    adjusted = np.full(p.shape, np.nan)
    known = np.isfinite(p)
    if known.any():
        adjusted[known] = stats.false_discovery_control(p[known])
    return adjusted


def chance_of_count(count: int, tested: int, alpha: float = 0.05) -> tuple[float, float]:
    """Chance level of a count if no class differs: expected count and P(at least `count`).

    The probability is the binomial tail for independent tests. Classes of the same models are not
    independent, so it is only a guide. `permutation.permute_seeds` is the valid test.

    >>> expected, probability = chance_of_count(9, 100)
    >>> expected, round(probability, 3)
    (5.0, 0.063)
    """
    check_fraction("alpha", alpha)
    if not 0 <= count <= tested:
        raise ValueError(f"count is {count}; allowed: 0 to the {tested} classes tested")
    return alpha * tested, float(stats.binom.sf(count - 1, tested, alpha))


def chance_of_levels(count: int, levels: FloatArray) -> float:
    """P(at least `count`) for independent tests with different levels.

    This is the tail of the Poisson binomial distribution, which equals the binomial if the levels
    are equal.

    Args:
        levels: each test's probability to reject if nothing differs. [tests]

    >>> round(chance_of_levels(9, np.full(100, 0.05)), 3)
    0.063
    """
    if len(levels) == 0 or np.ptp(levels) == 0:
        level = float(levels[0]) if len(levels) else 0.0
        return float(stats.binom.sf(count - 1, len(levels), level))
    below = np.zeros(max(count, 1))  # chances of 0, 1, ..., count - 1
    below[0] = 1.0
    for level in levels:
        below[1:] = below[1:] * (1 - level) + below[:-1] * level
        below[0] *= 1 - level
    return float(np.clip(1 - below.sum(), 0.0, 1.0)) if count else 1.0


def _true_levels(table: pd.DataFrame, alpha: float) -> FloatArray:
    """The level of each row's test: that of the table if it has one, otherwise the nominal one."""
    if "chance" in table:
        return table["chance"].to_numpy(dtype=float)
    return np.full(len(table), alpha)


def significance_counts(table: pd.DataFrame, alpha: float = 0.05) -> Counts:
    """Counts the classes of a table of `welch_by_class` or `mcnemar_by_class` that differ.

    Args:
        table: A table with columns `n` and `p_value`. Discrete tests, whose true levels are below
            `alpha`, also have `chance`.
        alpha: Level of the uncorrected test, false discovery rate and family-wise error rate.
    """
    check_fraction("alpha", alpha)
    p = table["p_value"].to_numpy(dtype=float)
    tested = int(np.isfinite(p).sum())
    significant = int((p < alpha).sum())
    levels = _true_levels(table, alpha)[np.isfinite(p)]
    return Counts(
        classes=len(table),
        tested=tested,
        undefined=int((table["n"].to_numpy() > 0).sum()) - tested,
        significant=significant,
        expected_by_chance=float(levels.sum()),
        chance_p=chance_of_levels(significant, levels),
        significant_bh=int((benjamini_hochberg(p) < alpha).sum()),
        significant_holm=int((holm(p) < alpha).sum()),
        alpha=alpha,
    )


def _with_corrections(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """Adds the significance columns that follow from the column `p_value`."""
    p = table["p_value"].to_numpy(dtype=float)
    bh, by_holm = benjamini_hochberg(p), holm(p)
    return table.assign(
        significant=p < alpha,
        p_bh=bh,
        significant_bh=bh < alpha,
        p_holm=by_holm,
        significant_holm=by_holm < alpha,
    )


def normalised(arm: ArmAccuracies, normalisation: Normalisation) -> FloatArray:
    """Class accuracies [seeds, classes] without the overall accuracy of their model.

    - `ratio`: acc_c / acc, of each seed (the paper's test);
    - `difference`: acc_c - acc, of each seed;
    - `pooled-difference`: acc_c minus the mean over seeds of acc (Hooker et al. 2019,
      arXiv 1911.05248).

    Raises:
        ValueError: The normalisation is unknown.
    """
    if normalisation == "ratio":
        return quotient(arm.accuracy, arm.overall[:, None])
    if normalisation == "difference":
        return arm.accuracy - arm.overall[:, None]
    if normalisation == "pooled-difference":
        return np.asarray(arm.accuracy - arm.overall.mean())
    raise ValueError(f"normalisation is {normalisation!r}; allowed: {list(NORMALISATIONS)}")


class _Welch(NamedTuple):
    difference: FloatArray
    low: FloatArray
    high: FloatArray
    statistic: FloatArray
    degrees: FloatArray
    p_value: FloatArray


def _variance(values: FloatArray) -> FloatArray:
    """Sample variance per class; exactly 0 when the values differ by rounding only."""
    variance = np.asarray(values.var(axis=0, ddof=1), dtype=float)
    return np.where(np.ptp(values, axis=0) <= ROUNDING, 0.0, variance)


def _welch(a: FloatArray, b: FloatArray, confidence: float) -> _Welch:
    difference = b.mean(axis=0) - a.mean(axis=0)
    part_a, part_b = _variance(a) / len(a), _variance(b) / len(b)
    square = part_a + part_b
    degrees = quotient(square**2, part_a**2 / (len(a) - 1) + part_b**2 / (len(b) - 1))
    statistic = quotient(difference, np.sqrt(square))
    equal = (square == 0) & (np.abs(difference) <= ROUNDING)
    statistic = np.where(equal, 0.0, statistic)
    p_value = np.where(equal, 1.0, 2 * special.stdtr(degrees, -np.abs(statistic)))
    margin = special.stdtrit(degrees, 0.5 + confidence / 2) * np.sqrt(square)
    return _Welch(difference, difference - margin, difference + margin, statistic, degrees, p_value)


def hedges_g(a: FloatArray, b: FloatArray, confidence: float) -> tuple[FloatArray, ...]:
    """Hedges' g per class with its interval: standardised difference, corrected for small samples.

    g = J (mean_b - mean_a) / s_pooled with J = Gamma(m/2) / (sqrt(m/2) Gamma((m-1)/2)) and m = n_a
    + n_b - 2 (Hedges 1981). The interval inverts the non-central t distribution (Steiger and
    Fouladi 1997) and assumes normal values of equal variance. NaN without variance.

    Args:
        a: Values of the reference arm. [seeds, classes]
        b: Values of the other arm. [seeds, classes]

    Returns:
        g, its lower and its upper limit, each [classes].
    """
    degrees = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * _variance(a) + (len(b) - 1) * _variance(b)) / degrees
    correction = np.exp(
        special.gammaln(degrees / 2) - special.gammaln((degrees - 1) / 2) - np.log(degrees / 2) / 2
    )
    scale = np.sqrt(1 / len(a) + 1 / len(b))
    standardised = quotient(b.mean(axis=0) - a.mean(axis=0), np.sqrt(pooled))
    tail = (1 - confidence) / 2
    t = standardised / scale
    low = special.nctdtrinc(degrees, 1 - tail, t) * scale * correction
    high = special.nctdtrinc(degrees, tail, t) * scale * correction
    return standardised * correction, low, high


def welch_by_class(
    tables_a: Arm,
    tables_b: Arm,
    *,
    normalisation: Normalisation = "ratio",
    alpha: float = 0.05,
    n_classes: int | None = None,
) -> pd.DataFrame:
    """Welch's test per class over the seeds of two arms, with effect sizes and corrections.

    t = (mean_b - mean_a) / sqrt(s_a^2/n_a + s_b^2/n_b) on normalised class accuracies, with the
    Welch-Satterthwaite degrees of freedom (Welch 1947). A class without variance on both sides has
    p = 1 if the means are equal. Otherwise it has no p, because the test is undefined.

    Args:
        tables_a: The reference arm: one prediction table per seed, or `arm_accuracies` of them.
        tables_b: The other arm, on the same examples.
        normalisation: How overall accuracy is removed, see `normalised`.
        alpha: Level; intervals have confidence 1 - alpha.
        n_classes: Number of classes; the largest label decides when it is not given.

    Returns:
        One row per class: `class`, `n`, `accuracy_a`, `accuracy_b` (means over seeds), `difference`
        with `difference_low` and `difference_high` (Welch's interval, cut off at -1 and 1),
        `normalised_difference` with its limits, `t`, `df`, `p_value`, `significant`, `p_bh`,
        `significant_bh`, `p_holm`, `significant_holm`, `hedges_g` with its limits, and `status`
        ("tested", "absent" or "undefined: no variance").

    Raises:
        ValueError: An arm has fewer than two seeds, or the arms hold different examples.
    """
    check_fraction("alpha", alpha)
    a, b = arm_pair(tables_a, tables_b, n_classes)
    values_a, values_b = normalised(a, normalisation), normalised(b, normalisation)
    raw = _welch(a.accuracy, b.accuracy, 1 - alpha)
    test = _welch(values_a, values_b, 1 - alpha)
    g, g_low, g_high = hedges_g(values_a, values_b, 1 - alpha)
    status = np.where(
        a.n == 0,
        "absent",
        np.where(np.isfinite(test.p_value), "tested", "undefined: no variance"),
    )
    table = pd.DataFrame(
        {
            "class": np.arange(len(a.n)),
            "n": a.n,
            "accuracy_a": a.accuracy.mean(axis=0),
            "accuracy_b": b.accuracy.mean(axis=0),
            "difference": raw.difference,
            "difference_low": np.maximum(raw.low, -1.0),
            "difference_high": np.minimum(raw.high, 1.0),
            "normalised_difference": test.difference,
            "normalised_low": test.low,
            "normalised_high": test.high,
            "t": test.statistic,
            "df": test.degrees,
            "p_value": test.p_value,
        }
    )
    return _with_corrections(table, alpha).assign(
        hedges_g=g, hedges_g_low=g_low, hedges_g_high=g_high, status=status
    )


def arm_pair(
    tables_a: Arm, tables_b: Arm, n_classes: int | None = None
) -> tuple[ArmAccuracies, ArmAccuracies]:
    """Class accuracies of two arms that can be tested against each other.

    Raises:
        ValueError: An arm has fewer than two seeds, or the arms hold different examples.
    """
    a, b = arm_accuracies(tables_a, n_classes), arm_accuracies(tables_b, n_classes)
    check_same_examples(a, b)
    for name, arm in (("a", a), ("b", b)):
        if len(arm.overall) < 2:
            raise ValueError(
                f"arm {name} has {len(arm.overall)} seed; allowed: at least 2 "
                "(for one pair of models there is mcnemar_by_class)"
            )
    return a, b


def mcnemar_by_class(
    table_a: Table,
    table_b: Table,
    *,
    alpha: float = 0.05,
    n_classes: int | None = None,
) -> pd.DataFrame:
    """Exact McNemar test per class for one pair of models (McNemar 1947).

    Only the examples of a class that exactly one model gets right are used. Under the null
    hypothesis the number that `a` gets right is binomial with probability 1/2. p is two-sided and
    exact, as in `scipy.stats.binomtest`. The result is conditional on these two models and says
    nothing about other seeds. It tests class accuracy itself, without removing overall accuracy.
    Accuracies use the weights, if the tables have them. The test counts examples.

    Args:
        n_classes: Number of classes; the largest label decides when it is not given.

    Returns:
        One row per class: `class`, `n`, `accuracy_a`, `accuracy_b`, `difference`, `difference_low`,
        `difference_high`, `only_a_right`, `only_b_right`, `p_value` (1 without discordant
        examples), `chance` (the test's true level with so many discordant examples), `detectable`
        (change found with power .8; infinite where there is none), `significant`, `p_bh`,
        `significant_bh`, `p_holm`, `significant_holm`, `status` ("tested" or "absent").

    >>> ids = range(8)
    >>> a = pd.DataFrame({"id": ids, "label": 0, "prediction": [0] * 7 + [1]})
    >>> b = pd.DataFrame({"id": ids, "label": 0, "prediction": [1] * 6 + [0, 1]})
    >>> row = mcnemar_by_class(a, b).iloc[0]
    >>> int(row["only_a_right"]), int(row["only_b_right"]), float(row["p_value"])
    (6, 0, 0.03125)
    """
    check_fraction("alpha", alpha)
    stack = stack_tables([table_a, table_b])
    classes = class_total(stack, n_classes, predicted=False)

    def per_class(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        return np.bincount(stack.labels[chosen], minlength=classes)

    right_a, right_b = stack.correct
    n = np.bincount(stack.labels, minlength=classes)
    only_a, only_b = per_class(right_a & ~right_b), per_class(right_b & ~right_a)
    total = stack.total_by_class(classes)
    accuracy_a, accuracy_b = (
        quotient(stack.by_class(right, classes), total) for right in (right_a, right_b)
    )
    low, high = change_interval(only_a, only_b, n, alpha)
    if stack.weights is not None:
        change = right_b.astype(float) - right_a

        def by_label(rows: FloatArray) -> FloatArray:
            return np.stack([np.bincount(stack.labels, row, minlength=classes) for row in rows])

        _, low, high = weighted_changes(by_label, change, stack.weights, alpha)
    table = pd.DataFrame(
        {
            "class": np.arange(classes),
            "n": n,
            "accuracy_a": accuracy_a,
            "accuracy_b": accuracy_b,
            "difference": accuracy_b - accuracy_a,
            "difference_low": np.where(n == 0, np.nan, low),
            "difference_high": np.where(n == 0, np.nan, high),
            "only_a_right": only_a,
            "only_b_right": only_b,
            "p_value": np.where(n == 0, np.nan, mcnemar_p(only_a, only_b)),
            "chance": np.where(n == 0, np.nan, attained_level(only_a + only_b, alpha)),
            "detectable": detectable_change(only_a + only_b, n, alpha),
        }
    )
    return _with_corrections(table, alpha).assign(status=np.where(n == 0, "absent", "tested"))
