"""Loss of the worst rows only: conditional value at risk (Rockafellar and Uryasev 2000).

The loss is the mean over the worst share f of a batch's rows, each alpha * T^2 * KL + (1 - alpha) *
CE. If f * B is not a whole number, the last of these rows counts by the fraction that is left. f =
1 is `kd`. With f up to 1 / B only the worst row counts. Levy et al., NeurIPS 2020 (arXiv
2010.05893), use this loss for groups that are not known, without a teacher. Its use with a teacher
is our reading, and the default is ours.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kdplatform.lazy import torch
from kdplatform.methods import Batch, Loss, Run
from kdplatform.methods._rows import DistilledRows, RowMethod, weighted


class Config(DistilledRows):
    """How many rows count."""

    method: Literal["cvar"] = Field("cvar", description="method")
    share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="share of a batch's rows that counts, those with the largest losses",
    )


class ConditionalValueAtRisk(RowMethod[Config]):
    """The mean over the worst rows of a batch."""

    def loss(self, batch: Batch, run: Run) -> Loss:
        """Returns the loss of each row, 0 for one that does not count; parts are `kl` and `ce`."""
        loss = self.usual(batch, run)
        counting = self.config.share * len(loss.rows)
        places = torch.arange(len(loss.rows), device=loss.rows.device)
        worst_first = loss.rows.detach().argsort(descending=True, stable=True)
        weights = torch.empty_like(loss.rows)
        weights[worst_first] = (counting - places).clamp(0, 1).to(weights.dtype)
        # Scaled so that the mean over all rows equals the mean over the rows that count.
        return weighted(loss, weights * (len(loss.rows) / counting))
