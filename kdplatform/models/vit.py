"""The vision transformer ViT-B/16, torchvision's: Dosovitskiy et al. 2020 (arXiv 2010.11929)."""

from torch import nn

from kdplatform.data import DataFacts
from kdplatform.errors import UserError
from kdplatform.models import register_model
from kdplatform.models.pretrained import register_torchvision

PATCH = 16

register_torchvision("vit_b_16", weights="ViT_B_16_Weights.IMAGENET1K_V1")


@register_model("vit_b_16")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds ViT-B/16.

    Raises:
        UserError: the side of the images is not a multiple of the patches' 16 pixels.
    """
    from torchvision.models import vit_b_16

    channels, side = data.image_shape(name)
    if side % PATCH:
        raise UserError(
            f"model={name!r} cannot take images of {side} pixels; allowed: multiples of {PATCH}, "
            "which image_size=224 makes of images of any size"
        )
    network: nn.Module = vit_b_16(weights=None, image_size=side, num_classes=data.num_classes)
    if channels != 3:
        width = network.get_parameter("class_token").shape[-1]
        patches = nn.Conv2d(channels, width, PATCH, PATCH)
        # Drawn as in torchvision: the deviation of a linear layer over a patch.
        nn.init.trunc_normal_(patches.weight, std=(channels * PATCH**2) ** -0.5)
        nn.init.zeros_(patches.bias)  # type: ignore[arg-type]
        network.conv_proj = patches
    return network
