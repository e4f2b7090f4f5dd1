"""Memory banks: a unit vector for every training example, and how examples are drawn by class.

Tian, Krishnan, Isola, ICLR 2020 (arXiv 1910.10699) contrast with a bank. Xing et al. 2021 (arXiv
2107.03225) contrast by class, and use the centres of classes as anchors of relations.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kdplatform.errors import UserError
from kdplatform.lazy import functional, torch
from kdplatform.methods._features import unit_rows

if TYPE_CHECKING:
    from torch import Tensor

# If a bank has at most this many times the number of drawn vectors, products with the whole bank
# cost less than fetching the drawn vectors for every row.
_WHOLE_BANK = 16
_FLOAT_BYTES = 4


class Draws:
    """Draws examples of an example's own class, and of all others.

    Attributes:
        order: int64 [N], the rows of the split, class by class.
        starts: int64 [C], where each class begins in `order`.
        sizes: int64 [C].
        places: int64 [N], the position of each row within its class.

    Args:
        labels: int64 [N], of the training split.
    """

    def __init__(self, labels: Tensor, device: torch.device) -> None:
        labels = labels.to(device)
        self.order = labels.argsort(stable=True)
        self.sizes = labels.bincount()
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.places = torch.empty_like(self.order)
        within = torch.arange(len(labels), device=device) - self.starts[labels[self.order]]
        self.places[self.order] = within

    def same_class(
        self, rows: Tensor, classes: Tensor, count: int, generator: torch.Generator
    ) -> Tensor:
        """Returns each row itself, then others of its class: int64 [B, count].

        The others are all different if the class has enough rows. A row alone in its class is
        repeated.
        """
        others = self.sizes[classes] - 1
        drawn = _drawn(others.clamp(min=1), count - 1, generator)
        # The row's own position is skipped.
        drawn = drawn + (drawn >= self.places[rows, None])
        drawn = torch.where(others[:, None] > 0, drawn, 0)
        found = self.order[self.starts[classes][:, None] + drawn]
        return torch.cat([rows[:, None], found], dim=1)

    def other_classes(self, classes: Tensor, count: int, generator: torch.Generator) -> Tensor:
        """Returns rows of other classes: int64 [B, count], all different if there are enough."""
        size, start = self.sizes[classes][:, None], self.starts[classes][:, None]
        drawn = _drawn(len(self.order) - size.squeeze(1), count, generator)
        return self.order[torch.where(drawn < start, drawn, drawn + size)]


def _drawn(pools: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draws from 0 to each pool's size - 1: int64 [B, count], all different if possible."""
    device = pools.device
    uniform = torch.rand(len(pools), count, generator=generator).to(device)
    drawn = (uniform * pools[:, None]).long().clamp(max=(pools - 1)[:, None])
    enough = pools >= count
    if count and bool(enough.any()):
        widest = int(pools[enough].max())
        keys = torch.rand(int(enough.sum()), widest, generator=generator).to(device)
        outside = torch.arange(widest, device=device) >= pools[enough][:, None]
        drawn[enough] = keys.masked_fill(outside, -1.0).topk(count, dim=1).indices
    return drawn


def new_bank(rows: int, width: int, generator: torch.Generator) -> Tensor:
    """Returns random unit vectors: float32 [rows, width]."""
    return unit_rows(torch.randn(rows, width, generator=generator))


def updated_bank(bank: Tensor, rows: Tensor, vectors: Tensor, momentum: float) -> Tensor:
    """Returns the bank with rows moved to momentum * old + (1 - momentum) * new.

    The changed rows are unit vectors again.

    Args:
        bank: [N, d]; changed in place.
        rows: int64 [B].
        vectors: [B, d].
    """
    moved = momentum * bank[rows] + (1 - momentum) * vectors.to(bank.dtype)
    bank[rows] = unit_rows(moved)
    return bank


def bank_logits(anchors: Tensor, bank: Tensor, chosen: Tensor, temperature: float) -> Tensor:
    """Returns <anchor, bank vector> / temperature of the chosen rows: [B, K].

    Args:
        anchors: [B, d].
        bank: [N, d], no gradient.
        chosen: int64 [B, K].
    """
    bank = bank.to(anchors.dtype)
    if len(bank) <= _WHOLE_BANK * chosen.shape[1]:
        return (anchors @ bank.t()).gather(1, chosen) / temperature
    return torch.einsum("bd,bkd->bk", anchors, bank[chosen]) / temperature


def log_normaliser(logits: Tensor, examples: int) -> Tensor:
    """Returns log(examples * mean of exp(logits)): a scalar."""
    mean = logits.flatten().logsumexp(0) - torch.log(logits.new_tensor(float(logits.numel())))
    return (mean + torch.log(mean.new_tensor(float(examples)))).detach()


def contrast(logits: Tensor, log_z: Tensor, positives: int, examples: int) -> Tensor:
    """Returns -(1/P) sum_pos log(s / (s + c)) - sum_neg log(c / (s + c)) of each row: [B].

    s = exp(logits) / Z, and c the number of negatives over that of examples (2107.03225, from
    noise-contrastive estimation).

    Args:
        logits: [B, P + K], positives first.
        log_z: scalar.
    """
    negatives = logits.shape[1] - positives
    log_odds = logits - log_z - torch.log(logits.new_tensor(negatives / examples))
    attracted = functional.softplus(-log_odds[:, :positives]).mean(dim=1)
    return attracted + functional.softplus(log_odds[:, positives:]).sum(dim=1)


def class_anchors(bank: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Returns the unit vector of each class, [C, d]: the normalised mean of relu(bank) over it.

    Args:
        bank: [N, d].
        labels: int64 [N].
    """
    sums = torch.zeros(classes, bank.shape[1], dtype=bank.dtype, device=bank.device)
    # The sum serves as well as the mean, because the vectors are normalised.
    return unit_rows(sums.index_add(0, labels, bank.relu()))


def check_room(rows: int, width: int, banks: int, memory: int, where: str) -> None:
    """Refuses banks that are larger than the given memory in bytes.

    Raises:
        UserError: they are; says how large they are.
    """
    needed = rows * width * banks * _FLOAT_BYTES
    if needed > memory:
        largest = memory // (rows * banks * _FLOAT_BYTES)
        raise UserError(
            f"width={width} is not allowed: {banks} memory banks of {rows:,} examples take "
            f"{needed / 2**30:.1f} GiB, and {where} has {memory / 2**30:.1f} GiB; allowed: at most "
            f"{largest}, or fewer training examples"
        )


def machine_memory() -> int:
    """Returns the bytes of this machine's memory."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
