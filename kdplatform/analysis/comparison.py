"""The whole class-wise comparison of two arms over seeds, from one call."""

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
    significance_counts,
    welch_by_class,
)


@dataclass(frozen=True)
class ClassComparison:
    """Class-wise comparison of two arms.

    Attributes:
        table: `significance.welch_by_class`, with the family-wise `p_max_t` and `significant_max_t`
            of the permutation of seeds.
        counts: How many classes differ, and how many by chance.
        permutation: The headline test, valid with few seeds.
        detectable_shift: Shift of a class that these seeds find with power 0.8, as a fraction.
        seeds_a: Seeds of the reference arm.
        seeds_b: Seeds of the other arm.
        normalisation: How overall accuracy was taken out.
    """

    table: pd.DataFrame
    counts: Counts
    permutation: SeedPermutation
    detectable_shift: float
    seeds_a: int
    seeds_b: int
    normalisation: Normalisation

    def as_dict(self) -> dict[str, float]:
        """Counts, global p-values and planning line as a flat dictionary."""
        return self.counts.as_dict() | {
            "splits": self.permutation.splits,
            "count_by_chance": self.permutation.count_by_chance,
            "p_count": self.permutation.p_count,
            "p_max_t": self.permutation.p_max_t,
            "detectable_shift": self.detectable_shift,
            "seeds_a": self.seeds_a,
            "seeds_b": self.seeds_b,
        }


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
        alpha: Level.
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
    return ClassComparison(
        table=table,
        counts=significance_counts(table, alpha),
        permutation=permutation,
        detectable_shift=class_detectable_shift(a, b, normalisation=normalisation, alpha=alpha),
        seeds_a=len(a.overall),
        seeds_b=len(b.overall),
        normalisation=normalisation,
    )
