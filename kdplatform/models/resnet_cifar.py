"""Residual networks for small images: He et al. 2015 (arXiv 1512.03385), section 4.2.

The network has 6n + 2 layers: a 3x3 convolution, three stages of n blocks with 16, 32 and 64
channels, global average pooling and one linear layer. The second and third stage halve the image.
Shortcuts are "option A" of the paper: at a change of shape they take every second pixel and fill
the new channels with zeros, so they have no parameters.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model

WIDTHS = (16, 32, 64)


def _convolution(in_channels: int, out_channels: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut without parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _convolution(out_channels, out_channels, 1)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.new_channels = out_channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Maps [B, in_channels, H, W] to [B, out_channels, ceil(H / stride), ceil(W / stride)]."""
        residual = F.relu(self.bn1(self.conv1(x)), inplace=True)
        output: Tensor = self.bn2(self.conv2(residual))
        output += self._shortcut(x)
        return F.relu(output, inplace=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and self.new_channels == 0:
            return x
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.new_channels))


class ResNetCifar(nn.Module):
    """The network of the module's docstring, for images of any size.

    Args:
        in_channels: channels of an image.
        num_classes: number of logits.
        blocks_per_stage: n of the paper; the network has 6n + 2 layers.
    """

    def __init__(self, *, in_channels: int, num_classes: int, blocks_per_stage: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _convolution(in_channels, WIDTHS[0], 1), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(True)
        )
        stages = []
        width = WIDTHS[0]
        for next_width in WIDTHS:
            first = BasicBlock(width, next_width, stride=1 if next_width == width else 2)
            rest = [BasicBlock(next_width, next_width, 1) for _ in range(blocks_per_stage - 1)]
            stages.append(nn.Sequential(first, *rest))
            width = next_width
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(width, num_classes)
        for module in self.modules():
            # The paper draws weights as in He et al. 2015 (arXiv 1502.01852).
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, in_channels, H, W] to logits [B, num_classes]."""
        features: Tensor = self.stages(self.stem(images))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits


# The paper begins at 20 layers. 8 and 14 are for small machines.
@register_model("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds the residual network of this name. Pooling is global, so it takes any image size."""
    channels, _ = data.image_shape(name)
    layers = int(name.removeprefix("resnet"))
    return ResNetCifar(
        in_channels=channels, num_classes=data.num_classes, blocks_per_stage=(layers - 2) // 6
    )
