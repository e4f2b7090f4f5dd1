"""Distillation of the teacher's order of classes by pairs of any of them: `unkd` with one stratum.

    softplus(z_negative - z_label) + kd_weight * mean over pairs (i, j) of softplus(z_j - z_i)

The unstratified twin of UnKD (WSDM 2023, arXiv 2211.14729), for comparison with it. Pairs, their
ranks and defaults are the same, and popular and rare classes are in one order.
`_pair_distillation.py` explains the pairs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from kdplatform.methods._pair_distillation import PairConfig, PairMethod

if TYPE_CHECKING:
    from collections.abc import Sequence


class Config(PairConfig):
    """How many pairs are drawn, and from where in the teacher's order."""

    method: Literal["rank_distillation"] = Field("rank_distillation", description="method")


class RankDistillation(PairMethod[Config]):
    """The label before others, and the teacher's order of any two classes."""

    def strata(self, counts: Sequence[int]) -> list[list[int]]:
        """Returns all classes as one stratum."""
        return [list(range(len(counts)))]
