"""Fully connected networks, for tables and any other numeric inputs.

Layers of equal width with rectified linear units, the plain MLP that Gorishniy et al. 2021 (arXiv
2106.11959) found to be a strong baseline on tables. The widths are ours. Inputs of more than one
dimension are flattened.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model

WIDTHS = {"mlp_small": (32,), "mlp_large": (256, 256, 256)}


class MLP(nn.Module):
    """Rectified linear hidden layers, and one linear layer of logits.

    Args:
        features: numbers of one example.
        widths: units of each hidden layer.
        num_classes: number of logits.
    """

    def __init__(self, *, features: int, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for width in widths:
            hidden += [nn.Linear(features, width), nn.ReLU()]
            features = width
        self.hidden = nn.Sequential(*hidden)
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [B, ...] with `features` numbers per row to logits [B, num_classes]."""
        logits: Tensor = self.classifier(self.hidden(inputs.flatten(1)))
        return logits


@register_model("mlp_small", "mlp_large")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds the fully connected network of this name."""
    return MLP(features=data.feature_count(name), widths=WIDTHS[name], num_classes=data.num_classes)
