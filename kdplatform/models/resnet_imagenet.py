"""Residual networks for large images, torchvision's: He et al. 2015 (arXiv 1512.03385), table 1.

Images of at most 64 pixels keep their size in the first layer, which is a 3x3 convolution of stride
1 without pooling.
"""

from torch import nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model
from kdplatform.models._small_images import adapted_network
from kdplatform.models.pretrained import register_torchvision

register_torchvision("resnet18", weights="ResNet18_Weights.IMAGENET1K_V1")
register_torchvision("resnet50", weights="ResNet50_Weights.IMAGENET1K_V1")


@register_model("resnet18", "resnet50")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds torchvision's residual network of this name."""
    return adapted_network(name, data, "conv1", "maxpool")
