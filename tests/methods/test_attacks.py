"""Attacks stay within eps, find the worst case where it is known, and are those of a library."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.refusals import refusal_of
from torch import Tensor, nn

from kdplatform.data import Dataset, Split
from kdplatform.data._facts import Vocabulary
from kdplatform.methods._attacks import (
    attacked,
    check_attackable,
    check_takes_fractions,
    in_eval,
    iterates,
    pixels,
)
from kdplatform.models.normalization import InputNormalization
from kdplatform.settings.schema import AttackConfig

EPS = 8 / 255


def images(rows: int = 6, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, 3, 8, 8, generator=generator)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def cross_entropy(model: nn.Module) -> Any:
    labels = torch.arange(6) % 4
    return lambda x: nn.functional.cross_entropy(model(x), labels[: len(x)], reduction="none")


def run(attack: AttackConfig, model: nn.Module, given: Tensor, seed: int = 0) -> Tensor:
    return attacked(given, cross_entropy(model), attack, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("kind", ["pgd", "fgsm"])
def test_images_stay_within_eps_and_within_black_and_white(kind: Any, norm: Any) -> None:
    given = torch.cat([images(4), torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)])
    attack = AttackConfig(attack=kind, norm=norm, eps=0.3)
    moves = attack.model_copy(update={"step_size": 0.2})
    for found in iterates(given, cross_entropy(network()), moves, torch.Generator()):
        change = found - given
        size = change.abs().amax() if norm == "inf" else change.flatten(1).norm(dim=1).max()
        assert size <= 0.3 + 1e-6
        assert 0 <= found.min() <= found.max() <= 1
    assert size > 0.25


@pytest.mark.parametrize("norm", ["inf", "2"])
def test_the_start_is_random_and_of_the_generator(norm: Any) -> None:
    attack = AttackConfig(norm=norm, eps=0.2, steps=1)
    starts = [
        next(iterates(images(), torch.sum, attack, torch.Generator().manual_seed(s)))
        for s in (0, 0, 1)
    ]
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])
    still = next(iterates(images(), torch.sum, AttackConfig(random_start=False), torch.Generator()))
    assert torch.equal(still, images())


def test_starts_are_spread_over_the_whole_ball() -> None:
    given = torch.full((4000, 1, 1, 2), 0.5)
    attack = AttackConfig(norm="2", eps=0.4)
    start = next(iterates(given, torch.sum, attack, torch.Generator().manual_seed(0))) - given
    radii = start.flatten(1).norm(dim=1) / 0.4
    # In two dimensions a quarter of the ball lies within half of its radius.
    assert (radii < 0.5).float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(("norm", "dual"), [("inf", 1), ("2", 2)])
def test_a_linear_models_worst_case_is_met(norm: Any, dual: int) -> None:
    torch.manual_seed(0)
    weight = torch.randn(2, 192)
    labels = torch.arange(6) % 2
    given = 0.3 + 0.4 * images()
    signs = 2.0 * labels - 1

    def margins(x: Tensor) -> Tensor:
        logits = x.flatten(1) @ weight.t()
        return signs * (logits[:, 1] - logits[:, 0])

    def loss(x: Tensor) -> Tensor:
        return nn.functional.softplus(-margins(x))

    worst = margins(given) - EPS * (weight[1] - weight[0]).norm(dual)
    one_step = attacked(given, loss, AttackConfig(attack="fgsm", norm=norm), torch.Generator())
    torch.testing.assert_close(margins(one_step), worst, rtol=1e-4, atol=1e-4)
    many = AttackConfig(norm=norm, steps=200)
    losses = [loss(x) for x in iterates(given, loss, many, torch.Generator())]
    assert all((after >= before - 1e-4).all() for before, after in pairwise(losses))
    torch.testing.assert_close(losses[-1], loss(one_step), rtol=1e-3, atol=1e-4)


def test_no_slope_is_no_step() -> None:
    for norm in ("inf", "2"):
        attack = AttackConfig(norm=norm, random_start=False)  # type: ignore[arg-type]
        assert torch.equal(
            attacked(images(), lambda x: 0 * x.sum(), attack, torch.Generator()), images()
        )


# ---- against a library


def foolbox_attack(attack: AttackConfig) -> Any:
    foolbox = pytest.importorskip("foolbox", reason="the extra `attacks` is not installed")
    attacks = foolbox.attacks
    if attack.attack == "fgsm":
        return {"inf": attacks.FGSM, "2": attacks.FGM}[attack.norm](random_start=False)
    kind = {
        "inf": attacks.LinfProjectedGradientDescentAttack,
        "2": attacks.L2ProjectedGradientDescentAttack,
    }[attack.norm]
    return kind(abs_stepsize=attack.step_size, steps=attack.steps, random_start=False)


@pytest.mark.parametrize("norm", ["inf", "2"])
@pytest.mark.parametrize("kind", ["pgd", "fgsm"])
def test_attacks_are_those_of_foolbox(kind: Any, norm: Any) -> None:
    eps = EPS if norm == "inf" else 0.5
    size = 2 / 255 if norm == "inf" else 0.1
    fields = {"steps": 20, "step_size": size, "random_start": False} if kind == "pgd" else {}
    attack = AttackConfig.model_validate({"attack": kind, "norm": norm, "eps": eps, **fields})
    library = foolbox_attack(attack)
    foolbox = pytest.importorskip("foolbox")
    model = network().eval()
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    expected, _, _ = library(wrapped, images(), torch.arange(6) % 4, epsilons=eps)
    found = run(attack, model, images())
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    assert (found - images()).abs().max() > eps / 50


# ---- what can be attacked


def dataset(inputs: Tensor, vocabulary: Vocabulary | None = None) -> Dataset:
    labels = torch.arange(len(inputs)) % 2
    split = Split(inputs, labels, np.arange(len(inputs)), pd.DataFrame(index=range(len(inputs))))
    return Dataset("mine", "0", ("a", "b"), (), split, split, split, vocabulary)


def test_tables_and_texts_are_refused_in_one_line() -> None:
    check_attackable(dataset(torch.zeros(4, 3, 8, 8, dtype=torch.uint8)), "method='adversarial'")
    line = refusal_of(check_attackable, dataset(torch.zeros(4, 9)), "method='adversarial'")
    assert line == (
        "method='adversarial' changes images, and dataset mine holds features of a table of shape "
        "(9,); allowed: data of images"
    )
    tokens = dataset(torch.zeros(4, 9, dtype=torch.int64), Vocabulary("trained", 10))
    line = refusal_of(check_attackable, tokens, "condition 'pgd'")
    assert "condition 'pgd' changes images, and dataset mine holds token ids of shape (9,)" in line


class Divides(nn.Module):
    """A model of a user that takes all inputs for bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.inner(inputs.float() / 255)
        return logits


def test_a_model_that_takes_fractions_for_bytes_is_refused() -> None:
    given = (255 * images()).to(torch.uint8)
    own = InputNormalization(network(), torch.full((3,), 0.4), torch.full((3,), 0.2)).train()
    check_takes_fractions(own, given, "method='adversarial'")
    assert own.training
    line = refusal_of(check_takes_fractions, Divides(), given, "method='adversarial'")
    assert "Divides answers the two differently; allowed: a model of the platform" in line


def test_normalisation_does_not_change_what_eps_means() -> None:
    given = (255 * images()).to(torch.uint8)
    model = InputNormalization(network(), torch.full((3,), 0.4), torch.full((3,), 0.01)).eval()
    found = run(AttackConfig(), model, pixels(given))
    assert (255 * (found - pixels(given))).abs().max() == pytest.approx(8, abs=1e-3)


def test_each_part_of_a_model_is_as_it_was_after_an_attack() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))).train()
    model[1][0].eval()
    with in_eval(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == [True, True, True, False, True]
