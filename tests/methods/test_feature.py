"""Distillation of features: each comparison is its paper's formula."""

from typing import Any

import numpy as np
import pytest
import torch
from helpers.formulas import Array
from helpers.given_logits import answer, begun, evaluate, given_run, random_logits
from torch import Tensor

from kdplatform.methods import feature
from kdplatform.methods._features import unit_rows
from kdplatform.methods.feature import (
    Config,
    angle_relation,
    distance_relation,
    selectivity,
    similarity,
)


def features(width: int, rows: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64)


def huber(difference: Array) -> Array:
    size = np.abs(difference)
    return np.where(size < 1, size**2 / 2, size - 0.5)


def test_fitnet_is_the_squared_distance_behind_a_layer() -> None:
    student, teacher, labels = random_logits()
    run = given_run(student, teacher)
    method = begun(Config(ce_weight=0), run)
    layer = method.projector
    assert layer.weight.shape == (5, 5)
    own, others = (answer(z, features=True).features for z in (student, teacher))
    assert own is not None
    assert others is not None
    expected = (own @ layer.weight.double().t() + layer.bias.double() - others).square().mean(1)
    rows = evaluate(Config(ce_weight=0), student, teacher, labels).rows
    torch.testing.assert_close(rows, expected)


def test_distances_are_relative_to_their_mean() -> None:
    student, teacher = features(4), features(7, seed=1)

    def relative(f: Array) -> Array:
        d = np.sqrt(((f[:, None] - f[None]) ** 2).sum(2))
        return d / d[d > 0].mean()

    expected = huber(relative(student.numpy()) - relative(teacher.numpy())).mean()
    assert distance_relation(student, teacher).mean().item() == pytest.approx(expected)


def test_angles_are_those_of_triples() -> None:
    student, teacher = features(4, rows=4), features(7, rows=4, seed=1)

    def cosines(f: Array) -> Array:
        found = np.zeros((len(f),) * 3)
        for i, j, k in np.ndindex(found.shape):
            if i not in (j, k):
                a, b = f[j] - f[i], f[k] - f[i]
                found[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return found

    expected = huber(cosines(student.numpy()) - cosines(teacher.numpy())).mean()
    assert angle_relation(student, teacher).mean().item() == pytest.approx(expected)


def test_similarities_are_rows_of_unit_length() -> None:
    student, teacher = features(4), features(7, seed=1)

    def rows(f: Array) -> Array:
        gram = f @ f.T
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    expected = ((rows(student.numpy()) - rows(teacher.numpy())) ** 2).sum() / 6**2
    assert similarity(student, teacher).mean().item() == pytest.approx(expected)


def test_selectivity_is_the_discrepancy_of_the_features_responses() -> None:
    student, teacher = features(4), features(7, seed=1)
    one, other = (f.numpy() / np.linalg.norm(f.numpy(), axis=0) for f in (student, teacher))

    def kernel(a: Array, b: Array) -> float:
        return float(((a.T @ b) ** 2).mean())

    expected = kernel(one, one) + kernel(other, other) - 2 * kernel(one, other)
    assert selectivity(student, teacher).mean().item() == pytest.approx(expected)


@pytest.mark.parametrize("compared", [distance_relation, angle_relation, similarity, selectivity])
def test_a_turn_and_a_scale_of_features_change_no_relation(compared: Any) -> None:
    student, teacher = features(4), features(7, seed=1)
    turn, _ = torch.linalg.qr(features(7, rows=7, seed=2))
    turned = teacher if compared is selectivity else teacher @ turn
    torch.testing.assert_close(compared(student, 3 * turned), compared(student, teacher))
    assert compared(student, torch.cat([student, 0 * student], 1)[:, :4]).abs().max() < 1e-12
    assert compared(student, teacher).mean() > 1e-3


@pytest.mark.parametrize("kind", ["rkd", "similarity", "selectivity"])
def test_equal_examples_and_empty_features_give_finite_gradients(kind: Any) -> None:
    run = given_run(*random_logits(4, 3)[:2])
    method = begun(Config(kind=kind), run)
    for given in (torch.zeros(4, 3), torch.ones(4, 3), 1e4 * torch.ones(4, 3)):
        student = given.clone().requires_grad_()
        method._compared(student, torch.randn(4, 3)).mean().backward()
        assert student.grad is not None
        assert student.grad.isfinite().all()


def test_weights_are_those_of_the_kind_unless_they_are_given() -> None:
    given = random_logits()
    for kind, usual in feature._WEIGHTS.items():
        own = evaluate(Config(kind=kind, ce_weight=0), *given)
        torch.testing.assert_close(own.rows, usual * own.parts["feature"])
        other = evaluate(Config(kind=kind, ce_weight=0, weight=2), *given)
        torch.testing.assert_close(other.rows, 2 * other.parts["feature"])


def test_a_vector_of_zeros_stays_one() -> None:
    rows = unit_rows(torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e-30, 4e-30]]))
    torch.testing.assert_close(rows, torch.tensor([[0.6, 0.8], [0.0, 0.0], [0.6, 0.8]]))
