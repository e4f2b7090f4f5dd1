"""What these seeds can show: detectable shifts, and trends over the temperature."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import optimize, stats

from kdplatform.analysis.classwise import Arm
from kdplatform.analysis.significance import Normalisation, arm_pair, check_fraction, normalised


def _check_deviation(deviation: float) -> None:
    if deviation <= 0 or not np.isfinite(deviation):
        raise ValueError(f"deviation is {deviation}; allowed: a finite number above 0")


def power_of_shift(
    shift: float, deviation: float, seeds_a: int, seeds_b: int, alpha: float = 0.05
) -> float:
    """Chance that a two-sided t-test at level alpha finds a shift between two arms.

    Non-central t with seeds_a + seeds_b - 2 degrees of freedom and non-centrality
    shift / (deviation sqrt(1/seeds_a + 1/seeds_b)): normal values of equal deviation in both arms.

    Args:
        shift: True difference of the arms' means.
        deviation: Standard deviation over seeds, in the same unit.

    >>> round(power_of_shift(0.04, 0.032, 5, 5), 2)
    0.41
    """
    check_fraction("alpha", alpha)
    for name, seeds in (("seeds_a", seeds_a), ("seeds_b", seeds_b)):
        if seeds < 2:
            raise ValueError(f"{name} is {seeds}; allowed: at least 2")
    _check_deviation(deviation)
    degrees = seeds_a + seeds_b - 2
    centre = abs(shift) / (deviation * np.sqrt(1 / seeds_a + 1 / seeds_b))
    critical = stats.t.isf(alpha / 2, degrees)
    upper = stats.nct.sf(critical, degrees, centre)
    # far out in the wrong tail the library returns NaN instead of 0
    lower = np.nan_to_num(stats.nct.cdf(-critical, degrees, centre), nan=0.0)
    return float(upper + lower)


def detectable_shift(
    deviation: float, seeds_a: int, seeds_b: int, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest shift that a two-sided t-test finds with the given power, in the deviation's unit.

    >>> round(detectable_shift(1.0, 5, 5), 2)
    2.02
    """
    check_fraction("power", power)
    _check_deviation(deviation)
    if power <= alpha:
        raise ValueError(f"power is {power}; allowed: above alpha, {alpha}")

    def excess(size: float) -> float:
        return power_of_shift(size, 1.0, seeds_a, seeds_b, alpha) - power

    enough = 1.0
    while excess(enough) < 0:
        enough *= 2
    standardised = optimize.brentq(excess, 0.0, enough)
    return float(standardised * deviation)


def class_detectable_shift(
    tables_a: Arm,
    tables_b: Arm,
    *,
    normalisation: Normalisation = "ratio",
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """Shift of one class's accuracy that these seeds would show, as a fraction.

    It stands beside a class table and helps to plan seeds. A class that shifted by less is mostly
    not significant, so "no significant classes" does not mean "no effect". The deviation over seeds
    is the root mean square over classes and arms of the tested values (a ratio is turned back into
    accuracy by the mean overall accuracy). The power is that of the uncorrected test for one class
    of typical deviation.

    Returns:
        The detectable shift, NaN when no class varies over seeds.
    """
    a, b = arm_pair(tables_a, tables_b)
    variances = [normalised(arm, normalisation).var(axis=0, ddof=1) for arm in (a, b)]
    variance = np.concatenate(variances)
    variance = variance[np.isfinite(variance)]
    unit = (a.overall.mean() + b.overall.mean()) / 2 if normalisation == "ratio" else 1.0
    if variance.size == 0 or variance.mean() == 0:
        return float("nan")
    deviation = float(np.sqrt(variance.mean()) * unit)
    return detectable_shift(deviation, len(a.overall), len(b.overall), alpha=alpha, power=power)


@dataclass(frozen=True)
class Trend:
    """A trend of a value over temperatures, with the seeds as blocks.

    Attributes:
        p_increasing: Page's one-sided p for a rise; NaN without a test.
        p_decreasing: Page's one-sided p for a fall.
        p_value: Two-sided: twice the smaller, at most 1.
        method: How the library computed p ("exact" or "asymptotic"), or "none".
        spearman: Mean over seeds of Spearman's correlation with temperature; a seed whose value
            never changes counts as 0.
        spearman_low: The smallest correlation of a seed.
        spearman_high: The largest correlation of a seed.
        dropped_seeds: Seeds left out because they lack a temperature.
        note: Why there is no test, or empty.
    """

    p_increasing: float
    p_decreasing: float
    p_value: float
    method: str
    spearman: float
    spearman_low: float
    spearman_high: float
    temperatures: tuple[float, ...]
    seeds: tuple[int, ...]
    dropped_seeds: tuple[int, ...]
    note: str


class _Page(NamedTuple):
    increasing: float
    decreasing: float
    method: str


def _page(blocks: pd.DataFrame) -> _Page:
    rising = stats.page_trend_test(blocks.to_numpy())
    falling = stats.page_trend_test(blocks.to_numpy()[:, ::-1])
    return _Page(float(rising.pvalue), float(falling.pvalue), str(rising.method))


def _spearman(blocks: pd.DataFrame) -> list[float]:
    """Correlation of each seed's values with temperature, 0 for a seed that never changes."""
    temperatures = blocks.columns.to_numpy(dtype=float)
    return [
        0.0 if np.ptp(row) == 0 else float(stats.spearmanr(temperatures, row).statistic)
        for row in blocks.to_numpy()
    ]


def _labels(index: pd.Index) -> tuple[int, ...]:
    return tuple(int(label) for label in index)


def trend_over_temperature(runs: pd.DataFrame, value: str) -> Trend:
    """Tests whether a value rises or falls with temperature: Page's test, seeds as blocks.

    One test of order replaces a test per temperature (Page 1963; `scipy.stats.page_trend_test`,
    exact up to 8 temperatures and asymptotic beyond). Only seeds that have every temperature are
    used; the others are listed. Ties are given mean ranks, which makes p a little too large.

    Args:
        runs: One row per run, with columns `temperature`, `seed` and the value's.

    Returns:
        The test. With fewer than two seeds or three temperatures there is no test: p is NaN, and
        `note` says why.

    Raises:
        ValueError: A column is missing, a temperature is not finite, or a pair of temperature and
            seed occurs twice.
    """
    for column in ("temperature", "seed", value):
        if column not in runs.columns:
            raise ValueError(f"runs lack column {column!r}; they have {list(runs)}")
    levels = runs["temperature"].to_numpy(dtype=float)
    if not np.isfinite(levels).all():
        raise ValueError(f"temperature is {levels[~np.isfinite(levels)][0]}; allowed: finite")
    twice = runs.duplicated(["temperature", "seed"])
    if twice.any():
        row = runs[twice].iloc[0]
        raise ValueError(
            f"temperature {row['temperature']}, seed {row['seed']} occurs twice; "
            "allowed: one run of each"
        )
    grid = runs.pivot(index="seed", columns="temperature", values=value).sort_index(axis=1)
    blocks = grid.dropna()
    dropped = grid.index.difference(blocks.index)
    seeds, temperatures = blocks.shape
    page, note = _Page(np.nan, np.nan, "none"), ""
    if seeds < 2 or temperatures < 3:
        note = (
            f"no test: {seeds} complete seeds, {temperatures} temperatures; "
            "needed: 2 seeds, 3 temperatures"
        )
    else:
        page = _page(blocks)
    correlations = _spearman(blocks) if seeds and temperatures > 1 else [np.nan]
    return Trend(
        p_increasing=page.increasing,
        p_decreasing=page.decreasing,
        p_value=min(1.0, 2 * min(page.increasing, page.decreasing)) if not note else np.nan,
        method=page.method,
        spearman=float(np.mean(correlations)),
        spearman_low=min(correlations),
        spearman_high=max(correlations),
        temperatures=tuple(float(t) for t in grid.columns),
        seeds=_labels(blocks.index),
        dropped_seeds=_labels(dropped),
        note=note,
    )
