"""LightGCN: vectors of users and items, spread over the graph of who took what.

He et al. 2020, arXiv 2002.02126. A layer replaces each vector by the sum of its neighbours',
each divided by the square root of both degrees; the logit is the product of the means over all
layers, the first among them. Three layers, and vectors that begin normal with deviation 0.1, are
the authors'. The number in a model's name is that of the numbers in a vector.
"""

import torch
from torch import Tensor, nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model
from kdplatform.models.matrix_factorization import DEVIATION

LAYERS = 3


class LightGCN(nn.Module):
    """Logit of user u and item i: the product of their vectors after the graph's layers.

    The graph is a buffer, saved with the weights: without it they say nothing. It is dense, which
    at MovieLens' density is faster than a sparse one, and a byte per pair.

    Args:
        users: int64 [M], who took something in training.
        items: int64 [M], what.
        user_count: number of users.
        item_count: number of items, the classes.
        size: numbers in a vector.
    """

    taken: Tensor

    def __init__(
        self, users: Tensor, items: Tensor, *, user_count: int, item_count: int, size: int
    ) -> None:
        super().__init__()
        self.users = nn.Parameter(torch.empty(user_count, size))
        self.items = nn.Parameter(torch.empty(item_count, size))
        for weights in (self.users, self.items):
            nn.init.normal_(weights, std=DEVIATION)
        graph = torch.zeros(user_count, item_count, dtype=torch.bool)
        graph[users, items] = True
        # Not called graph: exported modules have an attribute of that name.
        self.register_buffer("taken", graph)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps numbers of users [B, 1] to logits [B, items]."""
        users, items = self.vectors()
        return users[inputs.squeeze(1)] @ items.T

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Returns the vectors of users [U, size] and of items [I, size] that are multiplied."""
        graph = self.taken.to(self.users.dtype)
        # A user or item without a neighbour has a sum of nothing, whatever it is divided by.
        of_users = graph.sum(1, keepdim=True).clamp(min=1).rsqrt()
        of_items = graph.sum(0).unsqueeze(1).clamp(min=1).rsqrt()
        users: Tensor = self.users
        items: Tensor = self.items
        all_users, all_items = users, items
        for _ in range(LAYERS):
            users, items = (
                of_users * (graph @ (of_items * items)),
                of_items * (graph.T @ (of_users * users)),
            )
            all_users, all_items = all_users + users, all_items + items
        return all_users / (LAYERS + 1), all_items / (LAYERS + 1)


@register_model(
    "lightgcn_4",
    "lightgcn_10",
    "lightgcn_20",
    "lightgcn_32",
    "lightgcn_50",
    "lightgcn_64",
    "lightgcn_100",
)
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds the LightGCN of this name on the graph of the training interactions."""
    taken = data.taken(name)
    return LightGCN(
        taken.users,
        taken.items,
        user_count=taken.user_count,
        item_count=data.num_classes,
        size=int(name.rpartition("_")[2]),
    )
