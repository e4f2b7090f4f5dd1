"""Architectures that torchvision, timm and transformers define."""

import sys

import pytest
import torch
from helpers.facts import image_facts
from torch import nn

from kdplatform.data import DataFacts, Vocabulary
from kdplatform.errors import UserError
from kdplatform.models import build_model

IMAGE_MODELS = ("resnet18", "resnet50", "densenet121", "densenet169", "vit_b_16", "tiny_vit_5m")


def texts(length: int = 16, tokens: int = 50, classes: int = 2) -> DataFacts:
    return DataFacts((length,), tuple(map(str, range(classes))), Vocabulary("trained", tokens))


def millions(name: str, data: DataFacts) -> float:
    with torch.device("meta"):
        model = build_model(name, data)
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


@pytest.mark.parametrize(
    ("name", "classes", "published"),
    [
        # Mohammadshahi & Ioannou 2025: 24M and 11.4M for two classes; the latter is 11.2 here.
        ("resnet50", 2, 23.5),
        ("resnet18", 2, 11.2),
        # torchvision's documentation, for ImageNet's classes.
        ("resnet50", 1000, 25.6),
        ("resnet18", 1000, 11.7),
        ("densenet121", 1000, 8.0),
        ("densenet169", 1000, 14.1),
        ("vit_b_16", 1000, 86.6),
        # Wu et al. 2022, table 1.
        ("tiny_vit_5m", 1000, 5.4),
        ("tiny_vit_11m", 1000, 11.0),
        ("tiny_vit_21m", 1000, 21.2),
    ],
)
def test_parameter_counts_of_image_models(name: str, classes: int, published: float) -> None:
    assert millions(name, image_facts(3, 224, classes)) == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize(
    ("name", "published"),
    # Devlin et al. 2018, Sanh et al. 2019, Turc et al. 2019 (with a head of two classes).
    [("bert_base", 109.5), ("distilbert", 67.0), ("bert_mini", 11.2), ("bert_tiny", 4.4)],
)
def test_parameter_counts_of_text_models(name: str, published: float) -> None:
    assert millions(name, texts(128, 30522)) == pytest.approx(published, abs=0.06)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "tiny_vit_5m"])
@pytest.mark.parametrize(("channels", "side"), [(1, 8), (3, 32), (3, 65)])
def test_any_channels_and_size(name: str, channels: int, side: int) -> None:
    model = build_model(name, image_facts(channels, side, 4)).eval()
    assert model(torch.zeros(2, channels, side, side)).shape == (2, 4)


def test_vit_takes_any_channels_and_multiples_of_its_patch() -> None:
    model = build_model("vit_b_16", image_facts(1, 32, 4)).eval()
    assert model(torch.zeros(1, 1, 32, 32)).shape == (1, 4)
    with pytest.raises(UserError, match="images of 40 pixels; allowed: multiples of 16"):
        build_model("vit_b_16", image_facts(3, 40, 4))


@pytest.mark.parametrize(
    ("name", "layer", "pooling"),
    [("resnet18", "conv1", "maxpool"), ("densenet121", "features.conv0", "features.pool0")],
)
@pytest.mark.parametrize(("side", "kernel", "stride"), [(64, 3, 1), (65, 7, 2)])
def test_small_images_keep_their_size_at_first(
    name: str, layer: str, pooling: str, side: int, kernel: int, stride: int
) -> None:
    with torch.device("meta"):
        model = build_model(name, image_facts(3, side, 4))
    first = model.get_submodule(layer)
    assert isinstance(first, nn.Conv2d)
    assert (first.kernel_size, first.stride) == ((kernel, kernel), (stride, stride))
    assert isinstance(model.get_submodule(pooling), nn.Identity) is (side <= 64)


@pytest.mark.parametrize("name", ["bert_tiny", "bert_mini"])
def test_what_stands_behind_a_texts_end_does_not_matter(name: str) -> None:
    model = build_model(name, texts()).eval()
    tokens = torch.randint(1, 50, (3, 16))
    tokens[:, 10:] = 0
    with torch.no_grad():
        torch.testing.assert_close(model(tokens), model(tokens[:, :10]), rtol=1e-4, atol=1e-5)


def test_longer_texts_than_positions_are_refused() -> None:
    with pytest.raises(UserError, match="texts of 600 tokens; allowed: at most 512"):
        build_model("bert_tiny", texts(length=600))


def test_text_models_refuse_images() -> None:
    with pytest.raises(UserError, match="model='bert_tiny' takes token ids"):
        build_model("bert_tiny", image_facts(3, 32, 10))


@pytest.mark.parametrize(
    ("name", "data", "extra"),
    [("tiny_vit_5m", image_facts(3, 32, 2), "vision"), ("bert_tiny", texts(), "text")],
)
def test_a_missing_library_is_named_with_its_extra(
    name: str, data: DataFacts, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("timm", "transformers"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"needs the package .* install 'kdplatform\[{extra}\]'"):
        build_model(name, data)
