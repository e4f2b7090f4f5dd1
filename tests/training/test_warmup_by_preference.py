"""What a warm-up by preference does to a student that is trained."""

from typing import Any

import pytest
import torch
from fits import CPU, assert_equal_weights, kd, train
from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.methods import build_method
from kdplatform.methods.warmup_preference import Config
from kdplatform.roles import Role
from kdplatform.settings.schema import TrainingConfig
from kdplatform.training import Teacher, TeacherTable, initialised_model, predict_logits


@pytest.fixture(scope="module")
def network(dataset: Dataset, config: TrainingConfig) -> nn.Module:
    model, _ = train(dataset, config.model_copy(update={"epochs": 12}), seed=7, role="teacher")
    return model


@pytest.fixture
def teacher(dataset: Dataset, network: nn.Module) -> Teacher:
    table = TeacherTable(predict_logits(network, dataset.train.inputs, device=CPU))
    return Teacher(table, lambda: network)


def warmed(dataset: Dataset, config: TrainingConfig, teacher: Teacher, **fields: Any) -> nn.Module:
    method = build_method(Config(temperature=4, **fields))
    return train(dataset, config, method=method, teacher=teacher)[0]


def divergence(dataset: Dataset, model: nn.Module, network: nn.Module) -> float:
    """Returns KL(student || teacher), the mean over the student's answers to training images."""

    def log_probabilities(asked: nn.Module) -> Tensor:
        return predict_logits(asked, dataset.train.inputs, device=CPU).log_softmax(1)

    q, p = log_probabilities(model), log_probabilities(network)
    return float((q.exp() * (q - p)).sum(1).mean())


def test_without_pairs_the_student_stays_as_it_is_to_the_bit(
    dataset: Dataset, config: TrainingConfig, teacher: Teacher
) -> None:
    first = initialised_model("lenet5", dataset, seed=0, role=Role.STUDENT)
    still = warmed(dataset, config, teacher, eta=-1, warmup_epochs=3)
    assert_equal_weights(first, still)


def test_without_epochs_it_is_the_method_that_follows_to_the_bit(
    dataset: Dataset, config: TrainingConfig, teacher: Teacher
) -> None:
    own = warmed(dataset, config, teacher, eta=0, warmup_epochs=0)
    plain, _ = train(dataset, config, method=kd(temperature=4), teacher=teacher)
    assert_equal_weights(own, plain)


def test_the_student_comes_nearer_to_its_teacher(
    dataset: Dataset, config: TrainingConfig, teacher: Teacher, network: nn.Module
) -> None:
    first = initialised_model("lenet5", dataset, seed=0, role=Role.STUDENT)
    longer = config.model_copy(update={"epochs": 6})
    after = warmed(dataset, longer, teacher, eta=0, warmup_epochs=6, beta=1)
    assert divergence(dataset, after, network) < 0.8 * divergence(dataset, first, network)


def test_the_student_as_it_was_is_kept_and_left_out_of_checkpoints(
    dataset: Dataset, config: TrainingConfig, teacher: Teacher
) -> None:
    method = build_method(Config(eta=0, warmup_epochs=2, beta=1))
    train(dataset, config, method=method, teacher=teacher)
    first = initialised_model("lenet5", dataset, seed=0, role=Role.STUDENT)
    assert_equal_weights(first, method.initial)
    assert torch.equal(next(first.parameters()), next(method.initial.parameters()))
    assert "initial" in method.rebuilt
