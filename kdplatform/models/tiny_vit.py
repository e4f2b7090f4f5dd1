"""TinyViT, timm's, of 5, 11 and 21 million weights: Wu et al. 2022 (arXiv 2207.10666)."""

from torch import nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model
from kdplatform.models.pretrained import IMAGENET, Pretrained, hub_state, register_pretrained
from kdplatform.registry import optional_module


def _published(name: str) -> Pretrained:
    """Returns the weights trained only on ImageNet-1k, at 224 pixels."""
    repository = f"timm/{name}_224.in1k"
    load = hub_state(repository, extra="vision")
    return Pretrained(f"hub {repository}", load, images=IMAGENET)


register_pretrained("tiny_vit_5m", weights=_published("tiny_vit_5m"))
register_pretrained("tiny_vit_11m", weights=_published("tiny_vit_11m"))
register_pretrained("tiny_vit_21m", weights=_published("tiny_vit_21m"))


@register_model("tiny_vit_5m", "tiny_vit_11m", "tiny_vit_21m")
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds TinyViT of this size. It takes images of any size."""
    channels, _ = data.image_shape(name)
    timm = optional_module("timm", needed_by=f"model={name!r}", extra="vision")
    network: nn.Module = timm.create_model(
        f"{name}_224", pretrained=False, in_chans=channels, num_classes=data.num_classes
    )
    return network
