import pytest

from kdplatform.errors import UserError
from kdplatform.models import build_model, model_names


def test_every_family_is_discovered() -> None:
    assert model_names() == (
        "lenet5",
        "resnet110",
        "resnet20",
        "resnet32",
        "resnet44",
        "resnet56",
    )


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="model='resnet21' does not exist; did you mean 'resnet32'"):
        build_model("resnet21", in_channels=3, image_size=32, num_classes=10)
