import pytest

from kdplatform.data import image_facts
from kdplatform.errors import UserError
from kdplatform.models import build_model, model_names


def test_every_family_is_discovered() -> None:
    assert {"lenet5", "resnet20", "mlp_small"} <= set(model_names())


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="model='resnet21' does not exist; did you mean 'resnet32'"):
        build_model("resnet21", image_facts(3, 32, 10))
