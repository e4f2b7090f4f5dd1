"""Torchvision's networks for 224 pixels, adapted to small images and other channels."""

from torch import nn

from kdplatform.data import DataFacts

# Up to this side, a quarter of the side would lose the detail of the images.
SMALL_SIDE = 64


def adapted_network(name: str, data: DataFacts, first: str, pool: str) -> nn.Module:
    """Returns torchvision's network of this name with a first layer that suits the images.

    The layer is a 7x7 convolution of stride 2. For images of at most `SMALL_SIDE` pixels it is a
    3x3 convolution of stride 1 without pooling, as in He et al. 2015 (arXiv 1512.03385), section
    4.2, for 32 pixels. Its weights are drawn as in He et al. 2015 (arXiv 1502.01852).

    Args:
        first: path of the first convolution.
        pool: path of the pooling after it.
    """
    # Imported here, because torchvision takes long to import.
    from torchvision.models import get_model

    channels, side = data.image_shape(name)
    network: nn.Module = get_model(name, weights=None, num_classes=data.num_classes)
    small = side <= SMALL_SIDE
    if small or channels != 3:
        size, stride = (3, 1) if small else (7, 2)
        layer = nn.Conv2d(channels, 64, size, stride, padding=size // 2, bias=False)
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        network.set_submodule(first, layer)
    if small:
        network.set_submodule(pool, nn.Identity())
    return network
