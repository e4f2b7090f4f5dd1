import pytest
from helpers.facts import image_facts

from kdplatform.errors import UserError
from kdplatform.models import _models, build_model, model_names
from kdplatform.models.pretrained import pretrained, pretrained_names


def test_every_family_is_discovered() -> None:
    assert {"lenet5", "resnet20", "mlp_small"} <= set(model_names())


def test_every_name_that_stands_in_a_file_is_registered_by_it() -> None:
    for name in model_names():
        assert callable(_models.get(name))
    for name in pretrained_names():
        assert pretrained(name).source


def test_unknown_model_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="model='resnet21' does not exist; did you mean 'resnet32'"):
        build_model("resnet21", image_facts(3, 32, 10))
