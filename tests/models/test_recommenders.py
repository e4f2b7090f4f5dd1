"""Matrix factorisation and LightGCN: their logits by the papers' formulas, what they refuse."""

from pathlib import Path

import pytest
import torch
from helpers.movielens_files import write_atomic, zipf_ratings
from helpers.refusals import assert_refused

from kdplatform.data import DataFacts, Dataset, Interactions, load_dataset
from kdplatform.data.movielens import Config
from kdplatform.models import build_model, model_names
from kdplatform.models.lightgcn import LAYERS, LightGCN
from kdplatform.models.matrix_factorization import MatrixFactorization
from kdplatform.roles import Role
from kdplatform.training import initialised_model
from kdplatform.training.features import logits_and_features

USERS = torch.tensor([0, 0, 1, 2, 2])
ITEMS = torch.tensor([0, 1, 1, 2, 0])


def facts(items: int = 4) -> DataFacts:
    names = tuple(map(str, range(items)))
    return DataFacts((1,), names, interactions=Interactions(3, USERS, ITEMS))


@pytest.fixture
def small(tmp_path: Path) -> Dataset:
    return load_dataset(Config(root=str(write_atomic(tmp_path / "ml", zipf_ratings()))), tmp_path)


def test_logits_are_products_of_vectors_and_features_are_the_users() -> None:
    model = build_model("matrix_factorization_4", facts())
    assert isinstance(model, MatrixFactorization)
    inputs = torch.tensor([[2], [0], [2]])
    logits, features = logits_and_features(model, inputs)
    users, items = model.users.weight, model.items.weight
    torch.testing.assert_close(logits, users[[2, 0, 2]] @ items.T)
    torch.testing.assert_close(features, users[[2, 0, 2]])


@pytest.mark.parametrize(("name", "size"), [("matrix_factorization_100", 100), ("lightgcn_10", 10)])
def test_every_user_and_item_has_a_vector(name: str, size: int) -> None:
    model = build_model(name, facts())
    assert sum(own.numel() for own in model.parameters()) == size * (3 + 4)


def test_lightgcn_is_the_mean_of_the_normalised_graphs_powers() -> None:
    torch.manual_seed(0)
    model = LightGCN(USERS, ITEMS, user_count=3, item_count=4, size=5).double()
    adjacency = torch.zeros(7, 7, dtype=torch.float64)
    adjacency[USERS, 3 + ITEMS] = adjacency[3 + ITEMS, USERS] = 1
    degree = adjacency.sum(1)
    scale = torch.where(degree > 0, degree.clamp(min=1).rsqrt(), 0)
    normalised = scale[:, None] * adjacency * scale
    layer = vectors = torch.cat([model.users, model.items])
    for _ in range(LAYERS):
        layer = normalised @ layer
        vectors = vectors + layer
    vectors = vectors / (LAYERS + 1)
    expected = vectors[:3] @ vectors[3:].T
    torch.testing.assert_close(model(torch.tensor([[0], [1], [2]])), expected)


def test_the_graph_is_that_of_training_and_saved_with_the_weights(small: Dataset) -> None:
    model = build_model("lightgcn_4", small.facts())
    assert small.train.seen is not None
    assert torch.equal(model.state_dict()["taken"], small.train.seen.table)


@pytest.mark.parametrize("name", ["matrix_factorization_4", "lightgcn_4"])
def test_a_graph_of_any_number_of_rows_can_be_exported(name: str, small: Dataset) -> None:
    model = build_model(name, small.facts()).eval()
    example = small.test.inputs[:2]
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(model, (example,), dynamic_shapes=({0: rows},))
    torch.testing.assert_close(
        program.module()(small.test.inputs), model(small.test.inputs), rtol=1e-4, atol=1e-6
    )


def test_other_models_refuse_users_and_these_refuse_other_inputs(small: Dataset) -> None:
    for name in model_names():
        takes_users = name.startswith(("matrix_factorization", "lightgcn"))
        given = DataFacts((1, 8, 8), ("a", "b")) if takes_users else small.facts()
        if takes_users or name.startswith(("mlp", "lenet", "resnet2", "bert")):
            wanted = "takes users" if takes_users else "this dataset has users"
            assert_refused(build_model, name, wanted, given)


def test_nothing_is_normalised_in_front_of_users(small: Dataset) -> None:
    model = initialised_model("matrix_factorization_4", small, seed=0, role=Role.STUDENT)
    assert isinstance(model, MatrixFactorization)
