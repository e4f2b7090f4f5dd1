"""What a model says under an attack or a corruption."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from fits import CPU, train
from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.settings.schema import ConditionConfig, TrainingConfig
from kdplatform.training import answers_under, predict_logits
from kdplatform.training.corruptions import corrupted


@pytest.fixture(scope="module")
def model(dataset: Dataset, config: TrainingConfig) -> nn.Module:
    trained, _ = train(dataset, config.model_copy(update={"epochs": 12}))
    return trained


def condition(**fields: Any) -> ConditionConfig:
    return ConditionConfig.model_validate(fields)


def accuracy(model: nn.Module, dataset: Dataset, own: ConditionConfig) -> float:
    logits = answers_under(model, dataset.test, own, CPU).logits
    return float((logits.argmax(1) == dataset.test.labels).float().mean())


def test_without_distance_it_is_the_test_split_to_the_bit(
    dataset: Dataset, model: nn.Module
) -> None:
    found = answers_under(model, dataset.test, condition(attack="pgd", eps=0), CPU)
    assert torch.equal(found.logits, predict_logits(model, dataset.test.inputs, device=CPU))


def test_more_steps_never_raise_accuracy(dataset: Dataset, model: nn.Module) -> None:
    clean = float(
        (predict_logits(model, dataset.test.inputs, device=CPU).argmax(1) == dataset.test.labels)
        .float()
        .mean()
    )
    own = {"attack": "pgd", "eps": 0.2, "step_size": 0.02}
    found = [accuracy(model, dataset, condition(**own, steps=steps)) for steps in (1, 3, 10, 30)]
    assert [clean, *found] == sorted([clean, *found], reverse=True)
    assert clean > 0.9
    assert found[-1] < 0.5


def test_a_larger_distance_and_a_higher_severity_are_harder(
    dataset: Dataset, model: nn.Module
) -> None:
    attacks = [condition(attack="fgsm", eps=eps) for eps in (0, 0.05, 0.3)]
    contrasts = [condition(corruption="contrast", severity=s) for s in (1, 5)]
    for own in (attacks, contrasts):
        found = [accuracy(model, dataset, each) for each in own]
        assert found == sorted(found, reverse=True)
    assert accuracy(model, dataset, attacks[-1]) < accuracy(model, dataset, attacks[0])


def test_conditions_are_repeatable_and_the_same_for_every_model(
    dataset: Dataset, model: nn.Module
) -> None:
    own = condition(corruption="gaussian_noise", severity=5)
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs.clone())
            return inputs.float().flatten(1)[:, :4]

    torch.manual_seed(0)
    first = answers_under(model, dataset.test, own, CPU).logits
    torch.manual_seed(1)
    assert torch.equal(first, answers_under(model, dataset.test, own, CPU).logits)
    for _ in range(2):
        answers_under(Spy(), dataset.test, own, CPU)
    assert torch.equal(seen[0], seen[1])
    other = answers_under(model, dataset.test, own.model_copy(update={"seed": 1}), CPU).logits
    assert not torch.equal(first, other)


def test_a_model_whose_slope_vanishes_is_found(dataset: Dataset, model: nn.Module) -> None:
    """Gradient masking: right with a margin at which the cross entropy is 0 in float32."""

    class Sure(nn.Module):
        def __init__(self, scale: float) -> None:
            super().__init__()
            self.inner, self.scale = model, scale

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.scale * self.inner(inputs)
            return logits

    own = condition(attack="pgd", eps=8 / 255, steps=3)
    assert answers_under(Sure(1.0), dataset.test, own, CPU).without_slope == 0
    masked = answers_under(Sure(1e4), dataset.test, own, CPU)
    assert masked.without_slope > 0.5

    # The share is of those that are right: with every other label wrong it stays what it was.
    half = dataset.test.labels.clone()
    half[::2] = (half[::2] + 1) % len(dataset.class_names)
    other = answers_under(Sure(1e4), replace(dataset.test, labels=half), own, CPU)
    assert other.without_slope > 0.5


def test_the_model_is_left_as_it_was(dataset: Dataset, model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train().zero_grad()
    answers_under(model, dataset.test, condition(attack="pgd", steps=2), CPU)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


# ---- corruptions


def images(side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(60, 200, (4, 3, side, side), generator=generator).to(torch.uint8)


def test_noise_has_its_severitys_deviation() -> None:
    grey = torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)
    for severity, deviation in ((1, 0.04), (5, 0.10)):
        changed = corrupted(grey, "gaussian_noise", severity, torch.Generator().manual_seed(0))
        assert changed.dtype == torch.uint8
        assert (changed.float().std() / 255).item() == pytest.approx(deviation, rel=0.02)
    large = torch.full((1, 3, 96, 96), 128, dtype=torch.uint8)
    changed = corrupted(large, "gaussian_noise", 1, torch.Generator().manual_seed(0))
    assert (changed.float().std() / 255).item() == pytest.approx(0.08, rel=0.05)


def test_contrast_shrinks_towards_the_mean() -> None:
    changed = corrupted(images(), "contrast", 4, torch.Generator())
    mean = images().float().mean(dim=(2, 3), keepdim=True)
    expected = (0.3 * (images().float() - mean) + mean).round()
    assert (changed.float() - expected).abs().max() <= 1


def test_blur_spreads_a_point_as_a_normal_density() -> None:
    point = torch.zeros(1, 1, 33, 33, dtype=torch.uint8)
    point[0, 0, 16, 16] = 255
    wide = torch.zeros(1, 1, 96, 96, dtype=torch.uint8)
    wide[0, 0, 40:56, 40:56] = 255
    spread = corrupted(point, "gaussian_blur", 5, torch.Generator())[0, 0].float()
    assert spread[16, 16].item() == pytest.approx(255 / (2 * torch.pi), abs=1)
    assert spread[16, 17].item() == pytest.approx(255 / (2 * torch.pi) * 0.6065, abs=1)
    milder, stronger = (
        corrupted(wide, "gaussian_blur", s, torch.Generator())[0, 0, 48, 48] for s in (1, 5)
    )
    assert milder > stronger


def test_a_blur_wider_than_the_image_is_cut() -> None:
    tiny = images(4)
    assert corrupted(tiny, "gaussian_blur", 5, torch.Generator()).shape == tiny.shape
