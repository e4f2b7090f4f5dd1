"""UnKD: the teacher's ranking of items of similar popularity (WSDM 2023, arXiv 2211.14729).

    softplus(z_negative - z_label) + kd_weight * mean over pairs (i, j) of softplus(z_j - z_i)

Items are divided by popularity into `strata` strata with about equally many interactions. Both
items of a pair are from the same stratum. The popularity of an item shifts the teacher's scores,
and comparing items of similar popularity removes this effect. `_pair_distillation.py` explains the
pairs. Stratum g gets the share r_g^popularity_power of all pairs, scaled to sum 1. r_g is the
largest plus the smallest mean popularity of a stratum, minus the mean popularity of g, as a share
of all and at least 0.1.

The authors' code was read, and the defaults are those of the code. Its learning rate 1e-3 and L2
1e-3 belong to the optimiser here. Their code adds 1e-10 inside the logarithm, which softplus does
not need. Two points are our reading: their "normalised" r_g are shares of the sum, and shares
become whole numbers of pairs by the largest remainders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform.methods._pair_distillation import PairConfig, PairMethod
from kdplatform.progress import say
from kdplatform.strata import strata_by_frequency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdplatform.data import Dataset

_LEAST_SHARE = 0.1


class Config(PairConfig):
    """The number of strata of classes, and how the pairs are shared among them."""

    method: Literal["unkd"] = Field("unkd", description="method")
    strata: int = Field(
        2,
        ge=1,
        description="number of strata of classes, with about equally many training examples",
    )
    popularity_power: float = Field(
        0.0, ge=0, description="the authors' lambda; 0: as many pairs in each stratum"
    )


class UnKD(PairMethod[Config]):
    """Ranks the label before others, and two classes of one stratum in the teacher's order."""

    def check(self, dataset: Dataset) -> None:
        """Prints the strata; refuses data of two classes."""
        super().check(dataset)
        counts = dataset.train.labels.bincount(minlength=len(dataset.class_names)).tolist()
        sizes = [
            f"{len(own)} with {sum(counts[c] for c in own):,} examples"
            for own in self.strata(counts)
        ]
        say(f"strata of classes in training: {'; '.join(sizes)}")

    def strata(self, counts: Sequence[int]) -> list[list[int]]:
        """Returns strata of about equally many training examples, the most frequent first."""
        return strata_by_frequency(counts, self.config.strata)

    def shares(self, counts: Sequence[int], strata: Sequence[Sequence[int]]) -> list[float]:
        """Returns the share of the pairs that each stratum gets."""
        means = [sum(counts[c] for c in own) / len(own) for own in strata]
        rarity = [max(means) + min(means) - mean for mean in means]
        weights = [
            max(own / sum(rarity), _LEAST_SHARE) ** self.config.popularity_power for own in rarity
        ]
        return [weight / sum(weights) for weight in weights]
