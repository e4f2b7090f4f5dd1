"""Densely connected networks, torchvision's: Huang et al. 2016 (arXiv 1608.06993), table 1.

Images of at most 64 pixels keep their size in the first layer, which is a 3x3 convolution of stride
1 without pooling.
"""

import re

from torch import nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model
from kdplatform.models._small_images import adapted_network
from kdplatform.models.pretrained import register_torchvision

_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def _renamed(name: str) -> str:
    """Returns a layer's present name: the published files use norm.1 for norm1."""
    return _OLD_NAME.sub(r"\1\2", name)


register_torchvision("densenet121", weights="DenseNet121_Weights.IMAGENET1K_V1", renamed=_renamed)
register_torchvision("densenet169", weights="DenseNet169_Weights.IMAGENET1K_V1", renamed=_renamed)


@register_model("densenet121", "densenet169")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds torchvision's densely connected network of this name."""
    return adapted_network(name, data, "features.conv0", "features.pool0")
