import pytest
import torch
from helpers.facts import image_facts

from kdplatform.models import build_model

# He et al. 2015, table 6, in millions.
PUBLISHED = {
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_count_is_the_papers(name: str) -> None:
    model = build_model(name, image_facts(3, 32, 10))
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    decimals = len(str(PUBLISHED[name]).partition(".")[2])
    assert round(millions, decimals) == PUBLISHED[name]


@pytest.mark.parametrize("name", ["resnet8", "resnet14", *PUBLISHED])
def test_depth_is_in_the_name(name: str) -> None:
    model = build_model(name, image_facts(3, 32, 10))
    layers = sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.modules())
    assert f"resnet{layers}" == name


# Below, at, and off the sizes that halve evenly twice; one channel and three.
@pytest.mark.parametrize(
    ("image_size", "channels", "classes"), [(8, 1, 10), (32, 3, 100), (47, 3, 2), (64, 4, 7)]
)
def test_any_image_size_and_class_count(image_size: int, channels: int, classes: int) -> None:
    model = build_model("resnet20", image_facts(channels, image_size, classes))
    assert model(torch.zeros(2, channels, image_size, image_size)).shape == (2, classes)


def test_shortcut_subsamples_and_adds_zero_channels() -> None:
    from kdplatform.models.resnet_cifar import BasicBlock

    block = BasicBlock(2, 5, stride=2).eval()
    torch.nn.init.zeros_(block.bn2.weight)  # silences the residual branch
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 5, 2, 2)
    expected[:, :2] = x[:, :, ::2, ::2]
    assert torch.equal(block(x), expected)
