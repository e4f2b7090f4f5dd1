"""Checks the statistics against known truth, by simulation.

    python -m benchmarks.analysis_truth          # about two minutes on one core

Coverage: how often a 95% interval of the two-way bootstrap holds the population's DPD (mean over
all seeds there could be, infinitely many examples). Rejection: how often the permutation of seeds
rejects at 5%, without and with a true shift.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import special

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.classwise import ArmAccuracies
from kdplatform.analysis.permutation import permute_seeds
from kdplatform.analysis.significance import Normalisation

STUDIES = 400
DRAWS = 400
SHARED_LUCK = 0.7  # share of an example's luck that all models have in common


def population_dpd(levels: np.ndarray, seed_deviation: float) -> float:
    """Mean over seeds of the spread of the groups' selection rates, by brute force."""
    moved = np.random.default_rng(1).normal(levels, seed_deviation, (100_000, len(levels)))
    return float(np.ptp(special.ndtr(moved), axis=1).mean())


def studies(
    groups: int, per_group: int, seeds: int, levels: np.ndarray, seed_deviation: float
) -> Iterator[dict[str, list[pd.DataFrame]]]:
    """Studies of two arms whose selection rates, on the normal scale, are `levels` and half."""
    rng = np.random.default_rng(2)
    n = groups * per_group
    group = np.repeat(np.arange(groups), per_group)
    for _ in range(STUDIES):
        frame = pd.DataFrame({"id": np.arange(n), "label": rng.integers(0, 2, n), "group": group})
        luck = rng.normal(size=n)
        arms: dict[str, list[pd.DataFrame]] = {"a": [], "b": []}
        for arm, scale in (("a", 1.0), ("b", 0.5)):
            for _ in range(seeds):
                level = rng.normal(levels * scale, seed_deviation)[group]
                own = np.sqrt(SHARED_LUCK) * luck + np.sqrt(1 - SHARED_LUCK) * rng.normal(size=n)
                arms[arm].append(frame.assign(prediction=(own < level).astype(int)))
        yield arms


def coverage(groups: int, per_group: int, seeds: int, spread: float) -> tuple[float, float]:
    """Share of intervals that hold the truth: of an arm's DPD, and of the arms' difference."""
    levels = np.random.default_rng(3).normal(0, 1, groups)
    levels = spread * (levels - levels.mean()) / max(np.std(levels), 1e-9)
    deviation = 0.1 if seeds > 1 else 0.0
    truth = population_dpd(levels, deviation)
    change = population_dpd(levels / 2, deviation) - truth
    own = both = 0
    for arms in studies(groups, per_group, seeds, levels, deviation):
        result = bootstrap_fairness(arms, "group", draws=DRAWS)
        interval, difference = result.interval("a", "dpd"), result.difference("b", "a", "dpd")
        own += interval.low <= truth <= interval.high
        both += difference.low <= change <= difference.high
    return own / STUDIES, both / STUDIES


def rejection(classes: int, shift: float, normalisation: Normalisation = "ratio") -> float:
    """Share of studies of five and five seeds that the count's global test rejects."""
    rng = np.random.default_rng(4)
    labels = np.arange(classes)
    moved = np.where(labels < classes // 5, shift, 0.0)
    rejected = 0
    for _ in range(STUDIES):
        base = rng.uniform(0.5, 0.9, classes)
        arms = []
        for offset in (0.0, moved):
            values = np.round(np.clip(rng.normal(base + offset, 0.03, (5, classes)), 0, 1), 2)
            arms.append(
                ArmAccuracies(labels, labels, np.ones(classes, int), values, values.mean(axis=1))
            )
        rejected += permute_seeds(*arms, normalisation=normalisation).p_count <= 0.05
    return rejected / STUDIES


def main() -> None:
    print(f"{STUDIES} studies each; a true 95% comes out between 92.8 and 97.0% in 95% of runs")
    print("groups  per group  seeds  true spread    covers DPD   covers difference")
    for groups, per_group, seeds, spread in (
        (2, 400, 1, 0.3),
        (2, 400, 5, 0.3),
        (10, 100, 1, 0.3),
        (10, 400, 1, 0.3),
        (10, 400, 5, 0.3),
        (2, 400, 1, 0.0),
        (10, 100, 1, 0.0),
        (10, 400, 5, 0.0),
    ):
        own, both = coverage(groups, per_group, seeds, spread)
        print(
            f"{groups:6}  {per_group:9}  {seeds:5}  {spread:11}  {own:12.1%}  {both:18.1%}",
            flush=True,
        )
    print("classes  shift of a fifth of them    rejected at 5%")
    for classes, shift in ((100, 0.0), (400, 0.0), (100, 0.03), (100, 0.06)):
        print(f"{classes:7}  {shift:24.2f}  {rejection(classes, shift):16.1%}", flush=True)


if __name__ == "__main__":
    main()
