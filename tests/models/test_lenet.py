import pytest
import torch
from helpers.facts import image_facts

from kdplatform.models import build_model


def test_parameter_count_at_the_papers_size() -> None:
    # 156 and 2416 (all maps connected) for the convolutions, then 48120, 10164 and 850.
    model = build_model("lenet5", image_facts(1, 32, 10))
    assert sum(parameter.numel() for parameter in model.parameters()) == 61706


@pytest.mark.parametrize("image_size", [1, 8, 28, 31, 32, 33, 48, 64])
@pytest.mark.parametrize("classes", [2, 10])
def test_any_image_size_and_class_count(image_size: int, classes: int) -> None:
    model = build_model("lenet5", image_facts(3, image_size, classes))
    assert model(torch.zeros(2, 3, image_size, image_size)).shape == (2, classes)


def test_small_images_are_centred_in_the_papers_frame() -> None:
    small = build_model("lenet5", image_facts(1, 28, 10))
    full = build_model("lenet5", image_facts(1, 32, 10))
    full.load_state_dict(small.state_dict())
    image = torch.rand(1, 1, 28, 28)
    framed = torch.zeros(1, 1, 32, 32)
    framed[:, :, 2:30, 2:30] = image
    assert torch.equal(small(image), full(framed))
