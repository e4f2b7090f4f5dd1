"""Residual networks for large images, torchvision's: He et al. 2015 (arXiv 1512.03385), table 1.

Images of at most 64 pixels keep their size in the first layer, which is a 3x3 convolution of stride
1 without pooling.
"""

from torch import nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model
from kdplatform.models._small_images import SMALL_SIDE, first_convolution
from kdplatform.models.pretrained import register_torchvision

register_torchvision("resnet18", weights="ResNet18_Weights.IMAGENET1K_V1")
register_torchvision("resnet50", weights="ResNet50_Weights.IMAGENET1K_V1")


@register_model("resnet18", "resnet50")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds torchvision's residual network of this name."""
    from torchvision.models import get_model

    channels, side = data.image_shape(name)
    network: nn.Module = get_model(name, weights=None, num_classes=data.num_classes)
    if side <= SMALL_SIDE or channels != 3:
        network.conv1 = first_convolution(channels, 64, side)
    if side <= SMALL_SIDE:
        network.maxpool = nn.Identity()
    return network
