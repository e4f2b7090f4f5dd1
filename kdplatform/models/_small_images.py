"""The first layer of networks made for 224 pixels, when images are small."""

from torch import nn

# The largest images whose detail a quarter of their side would lose.
SMALL_SIDE = 64


def first_convolution(in_channels: int, out_channels: int, side: int) -> nn.Conv2d:
    """Returns a first layer with freshly drawn weights.

    A 7x7 convolution of stride 2; for images of at most `SMALL_SIDE` pixels a 3x3 one of stride 1,
    as He et al. 2015 (arXiv 1512.03385), section 4.2, do for theirs of 32. Weights are drawn as in
    He et al. 2015 (arXiv 1502.01852).

    Args:
        side: of the images, in pixels.
    """
    size, stride = (3, 1) if side <= SMALL_SIDE else (7, 2)
    layer = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer
