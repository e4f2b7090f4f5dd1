"""Matrix factorisation: a vector for each user and each item, their product as the logit.

Rendle et al. 2009, "BPR", arXiv 1205.2618. Vectors begin normal with deviation 0.1, as those of
LightGCN's authors do. The number in a model's name is that of the numbers in a vector.
"""

from torch import Tensor, nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model

DEVIATION = 0.1


class MatrixFactorization(nn.Module):
    """Logit of user u and item i: the product of their vectors.

    The items are a linear layer, so that a user's vector is the model's features.

    Args:
        users: number of users.
        items: number of items, the classes.
        size: numbers in a vector.
    """

    def __init__(self, *, users: int, items: int, size: int) -> None:
        super().__init__()
        self.users = nn.Embedding(users, size)
        self.items = nn.Linear(size, items, bias=False)
        for weights in (self.users.weight, self.items.weight):
            nn.init.normal_(weights, std=DEVIATION)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps numbers of users [B, 1] to logits [B, items]."""
        logits: Tensor = self.items(self.users(inputs.squeeze(1)))
        return logits


@register_model(
    "matrix_factorization_4",
    "matrix_factorization_10",
    "matrix_factorization_20",
    "matrix_factorization_32",
    "matrix_factorization_50",
    "matrix_factorization_64",
    "matrix_factorization_100",
)
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds the matrix factorisation of this name."""
    taken = data.taken(name)
    size = int(name.rpartition("_")[2])
    return MatrixFactorization(users=taken.user_count, items=data.num_classes, size=size)
