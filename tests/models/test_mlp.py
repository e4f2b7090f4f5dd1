import pytest
import torch

from kdplatform.data import DataFacts, Vocabulary
from kdplatform.errors import UserError
from kdplatform.models import build_model


@pytest.mark.parametrize("name", ["mlp_small", "mlp_large"])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (1, 8, 8)])
def test_any_shape_is_flattened(name: str, shape: tuple[int, ...]) -> None:
    model = build_model(name, DataFacts(shape, ("no", "yes")))
    assert model(torch.zeros(4, *shape)).shape == (4, 2)


def test_parameter_counts() -> None:
    data = DataFacts((10,), ("no", "yes"))
    counts = {
        name: sum(p.numel() for p in build_model(name, data).parameters())
        for name in ("mlp_small", "mlp_large")
    }
    # (10 + 1) * 32 + (32 + 1) * 2, and 256 * (11 + 257 + 257) + 257 * 2.
    assert counts == {"mlp_small": 418, "mlp_large": 134914}


def test_token_ids_are_refused() -> None:
    text = DataFacts((16,), ("no", "yes"), Vocabulary("trained", 100))
    with pytest.raises(UserError, match=r"model='mlp_small' takes images or features; this data"):
        build_model("mlp_small", text)


def test_images_are_needed_by_a_convolution() -> None:
    with pytest.raises(UserError, match=r"model='lenet5' takes images; .* of shape \(5,\)"):
        build_model("lenet5", DataFacts((5,), ("no", "yes")))
