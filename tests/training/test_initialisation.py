import pytest
import torch

from kdplatform.data import Dataset
from kdplatform.roles import Role
from kdplatform.training import initialised_model


def weights(dataset: Dataset, seed: int, role: Role) -> torch.Tensor:
    model = initialised_model("lenet5", dataset, seed=seed, role=role)
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.parametrize(
    ("other_seed", "other_role", "equal"),
    [(0, "student", True), (0, "distilled", True), (0, "teacher", False), (1, "student", False)],
)
def test_weights_depend_on_seed_and_family(
    dataset: Dataset, other_seed: int, other_role: Role, equal: bool
) -> None:
    one, other = weights(dataset, 0, "student"), weights(dataset, other_seed, other_role)
    assert torch.equal(one, other) is equal


def test_global_generator_neither_matters_nor_moves(dataset: Dataset) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = weights(dataset, 0, "student")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(dataset, 0, "student"), one)


def test_inputs_are_normalised_by_the_training_split(dataset: Dataset) -> None:
    model = initialised_model("lenet5", dataset, seed=0, role="student")
    pixels = dataset.train.inputs.float() / 255
    torch.testing.assert_close(model.mean, pixels.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(model.std, pixels.std(dim=(0, 2, 3), correction=0))
