"""TinyViT, timm's, of 5, 11 and 21 million weights: Wu et al. 2022 (arXiv 2207.10666)."""

from torch import nn

from kdplatform.data import DataFacts
from kdplatform.models import register_model
from kdplatform.models.pretrained import IMAGENET, Pretrained, hub_state, register_pretrained
from kdplatform.optional import optional_module

SIZES = ("tiny_vit_5m", "tiny_vit_11m", "tiny_vit_21m")

for _name in SIZES:
    # Trained on ImageNet-1k alone, at 224 pixels.
    _repository = f"timm/{_name}_224.in1k"
    _load = hub_state(_repository, extra="vision")
    register_pretrained(_name, Pretrained(f"hub {_repository}", _load, images=IMAGENET))


@register_model(*SIZES)
def build(name: str, data: DataFacts) -> nn.Module:
    """Builds TinyViT of this size; images of any size will do."""
    channels, _ = data.image_shape(name)
    timm = optional_module("timm", needed_by=f"model={name!r}", extra="vision")
    network: nn.Module = timm.create_model(
        f"{name}_224", pretrained=False, in_chans=channels, num_classes=data.num_classes
    )
    return network
