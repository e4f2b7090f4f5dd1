"""LeNet-5: LeCun et al. 1998, "Gradient-Based Learning Applied to Document Recognition", II.B.

The layers and widths are those of the paper: 6 and 16 maps of 5x5 convolutions, each halved, then
120, 84 and the classes. Four things are as usual today and unlike the paper:

- the units are rectified linear instead of scaled tanh,
- halving takes the maximum instead of a trained average,
- every map of the second convolution sees all maps of the first,
- the last layer is linear instead of radial basis functions.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model
from kdplatform.models.pooling import halve_by_maximum

# The paper's input size. It centres digits of 28 pixels in such a frame.
PAPER_IMAGE_SIZE = 32


class LeNet5(nn.Module):
    """LeNet-5 for square images of any size.

    Images smaller than 32 pixels are centred in a frame of 32. Larger images only enlarge the first
    fully connected layer.

    Args:
        in_channels: channels of an image.
        image_size: height and width of an image in pixels.
        num_classes: number of logits.
    """

    def __init__(self, *, in_channels: int, image_size: int, num_classes: int) -> None:
        super().__init__()
        missing = max(PAPER_IMAGE_SIZE - image_size, 0)
        before, after = missing // 2, missing - missing // 2
        self.frame = (before, after, before, after)
        side = (max(image_size, PAPER_IMAGE_SIZE) - 4) // 2
        side = (side - 4) // 2
        self.conv1 = nn.Conv2d(in_channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.hidden1 = nn.Linear(16 * side * side, 120)
        self.hidden2 = nn.Linear(120, 84)
        self.classifier = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images [B, in_channels, image_size, image_size] to logits [B, num_classes]."""
        x = F.pad(images, self.frame) if any(self.frame) else images
        # The rectified maximum equals the maximum of the rectified values, at a quarter of the
        # work.
        x = F.relu(halve_by_maximum(self.conv1(x)))
        x = F.relu(halve_by_maximum(self.conv2(x)))
        x = F.relu(self.hidden1(x.flatten(1)))
        x = F.relu(self.hidden2(x))
        logits: Tensor = self.classifier(x)
        return logits


@register_model("lenet5")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds LeNet-5."""
    channels, side = data.image_shape(name)
    return LeNet5(in_channels=channels, image_size=side, num_classes=data.num_classes)
