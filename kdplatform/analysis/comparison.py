"""Class-wise comparison of two arms, over seeds or for one pair of models."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdplatform.analysis.classwise import Arm
from kdplatform.analysis.effects import class_detectable_shift
from kdplatform.analysis.permutation import SeedPermutation, permute_seeds
from kdplatform.analysis.significance import (
    Counts,
    Normalisation,
    arm_pair,
    mcnemar_by_class,
    significance_counts,
    welch_by_class,
)
from kdplatform.predictions import Table


@dataclass(frozen=True)
class ClassComparison:
    """Class-wise comparison of two arms.

    Attributes:
        table: One row per class. Over seeds `significance.welch_by_class`, with the family-wise
            `p_max_t` and `significant_max_t` of the permutation of seeds; for one pair
            `significance.mcnemar_by_class`.
        counts: How many classes differ, and how many differ by chance.
        permutation: The headline test, valid with few seeds; None for a single pair of models.
        detectable_shift: Shift of a class that these seeds find with power 0.8, as a fraction; NaN
            for a single pair.
    """

    table: pd.DataFrame
    counts: Counts
    permutation: SeedPermutation | None = None
    detectable_shift: float = float("nan")

    @property
    def test(self) -> str:
        """The test of a class: "Welch" over seeds, "McNemar" for a single pair."""
        return "McNemar" if self.permutation is None else "Welch"


def compare_classes(
    tables_a: Arm,
    tables_b: Arm,
    *,
    normalisation: Normalisation = "ratio",
    alpha: float = 0.05,
    n_classes: int | None = None,
) -> ClassComparison:
    """Welch's tests, counts, permutation of seeds and detectable shift of two arms.

    Args:
        tables_a: The reference arm (Teacher or NDS): one table per seed, or `arm_accuracies`.
        tables_b: The other arm (DS), on the same examples.
        normalisation: As in `welch_by_class`.
        n_classes: Number of classes; the largest label decides when it is not given.

    Raises:
        ValueError: An arm has fewer than two seeds, or the arms hold different examples.
    """
    a, b = arm_pair(tables_a, tables_b, n_classes)
    table = welch_by_class(a, b, normalisation=normalisation, alpha=alpha)
    permutation = permute_seeds(a, b, normalisation=normalisation, alpha=alpha)
    undefined = table["p_value"].isna().to_numpy()
    table["p_max_t"] = np.where(undefined, np.nan, permutation.p_by_class)
    table["significant_max_t"] = table["p_max_t"] < alpha
    shift = class_detectable_shift(a, b, normalisation=normalisation, alpha=alpha)
    return ClassComparison(table, significance_counts(table, alpha), permutation, shift)


def compare_pair(table_a: Table, table_b: Table, n_classes: int | None = None) -> ClassComparison:
    """McNemar's exact tests of one pair of models, which say nothing about other seeds."""
    table = mcnemar_by_class(table_a, table_b, n_classes=n_classes)
    return ClassComparison(table, significance_counts(table))
