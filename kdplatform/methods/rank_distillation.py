"""Distillation of the teacher's ranking by pairs of any two classes: `unkd` with one stratum.

    softplus(z_negative - z_label) + kd_weight * mean over pairs (i, j) of softplus(z_j - z_i)

This is UnKD (WSDM 2023, arXiv 2211.14729) without strata, for comparison with it. Pairs, their
ranks and defaults are the same. Popular and rare classes are in a single order.
`_pair_distillation.py` explains the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform.methods._pair_distillation import PairConfig, PairMethod

if TYPE_CHECKING:
    from collections.abc import Sequence


class Config(PairConfig):
    """How many pairs are drawn, and from which ranks of the teacher."""

    method: Literal["rank_distillation"] = Field("rank_distillation", description="method")


class RankDistillation(PairMethod[Config]):
    """Ranks the label before others, and any two classes in the teacher's order."""

    def strata(self, counts: Sequence[int]) -> list[list[int]]:
        """Returns all classes as one stratum."""
        return [list(range(len(counts)))]
