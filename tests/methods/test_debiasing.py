"""Debiasing: rows drawn by groups, errors of a first model, and a last layer refitted."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from kdplatform.data import Dataset, Split
from kdplatform.errors import UserError
from kdplatform.methods import Method, build_method
from kdplatform.methods._groups import check_groups, group_shares, grouped_by_project, groups_of
from kdplatform.methods.dfr import Config as DfrConfig
from kdplatform.methods.group_balanced import WithoutTeacher as BalancedConfig
from kdplatform.methods.jtt import Config as JttConfig
from kdplatform.roles import Role
from kdplatform.settings.schema import MethodConfig, TrainingConfig
from kdplatform.training import Teacher, fit
from kdplatform.training.features import logits_and_features

CPU = torch.device("cpu")


def tied(count: int, minority: int, seed: int = 0) -> Split:
    """Two classes of two colours; the color is a strong feature, the label's own a weak one."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    colors = labels.copy()
    rare = random.permutation(count)[:minority]
    colors[rare] = 1 - colors[rare]
    own = np.stack([2 * labels - 1, 3 * (2 * colors - 1)], axis=1)
    inputs = torch.from_numpy((own + random.normal(size=(count, 2))).astype(np.float32))
    columns = pd.DataFrame({"color": np.array(["blue", "red"])[colors]})
    return Split(inputs, torch.from_numpy(labels), np.arange(count), columns)


def training(epochs: int = 30) -> TrainingConfig:
    fields = {"optimizer": "adamw", "learning_rate": 0.05, "batch_size": 50, "precision": "fp32"}
    return TrainingConfig(model="lenet5", epochs=epochs, **fields)


class Shortcut(nn.Module):
    """A linear model with a layer before its last."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Linear(2, 8), nn.ReLU())
        self.classifier = nn.Linear(8, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.body(inputs))
        return logits


def trained(config: MethodConfig, model: nn.Module | None = None, **more: Any) -> nn.Module:
    model = model or Shortcut()
    method: Method[Any] = build_method(config)
    split = tied(400, 20)
    given = {"seed": 0, "role": Role.TEACHER, "device": CPU, "validation": tied(400, 200, 1)}
    fit(model, split, method, training(), **given, **more)
    return model


def accuracies(model: nn.Module) -> list[float]:
    """Returns those of `0 blue`, `0 red`, `1 blue` and `1 red`; the middle two are rare."""
    split = tied(4000, 2000, seed=2)
    right = model(split.inputs).argmax(1) == split.labels
    groups = groups_of(split, "label*color").of(split)
    return [float(right[groups == group].double().mean()) for group in range(4)]


def worst_group(model: nn.Module) -> float:
    return min(accuracies(model))


@pytest.fixture(scope="module")
def plain() -> nn.Module:
    return trained(MethodConfig())


# ---- groups of class and attribute


def test_groups_of_class_and_attribute_are_their_combinations() -> None:
    split = tied(400, 20)
    groups = groups_of(split, "label*color")
    assert groups.names == ("0 blue", "0 red", "1 blue", "1 red")
    expected = 2 * split.labels + torch.from_numpy((split.columns["color"] == "red").to_numpy())
    assert torch.equal(groups.of(split), expected)
    assert groups.sizes.sum() == 400


def test_auto_behind_the_class_is_the_projects_first_attribute() -> None:
    config = BalancedConfig()
    assert grouped_by_project(config, ("color", "texture"), "toy").attribute == "label*color"
    assert grouped_by_project(config, ("color",), "toy").method == "group_balanced"


def test_an_unknown_attribute_behind_the_class_is_refused() -> None:
    split = tied(40, 4)
    dataset = Dataset("trifeature", "d", ("a", "b"), ("color",), split, split, split)
    check_groups(BalancedConfig(attribute="label*color"), dataset)
    with pytest.raises(UserError, match="attribute='size' does not exist"):
        check_groups(BalancedConfig(attribute="label*size"), dataset)


# ---- rows drawn by groups


def test_shares_are_equal_over_groups_and_within_them() -> None:
    groups = torch.tensor([0, 0, 0, 1, -1])
    shares = group_shares(groups)
    assert shares.sum() == pytest.approx(1)
    assert shares[:3].sum() == pytest.approx(float(shares[3]))
    # Of the two groups the mean has two rows.
    assert float(shares[4]) == pytest.approx(float(shares[3]) / 2)


def test_all_groups_are_drawn_equally_often() -> None:
    seen: list[Tensor] = []

    class Watching(type(build_method(BalancedConfig()))):  # type: ignore[misc]
        def loss(self, batch: Any, run: Any) -> Any:
            seen.append(batch.rows)
            return super().loss(batch, run)

    split = tied(400, 20)
    method = Watching(BalancedConfig(attribute="label*color"))
    given = {"seed": 0, "role": Role.TEACHER, "device": CPU}
    fit(Shortcut(), split, method, training(20), **given)
    drawn = groups_of(split, "label*color").of(split)[torch.cat(seen)].bincount(minlength=4)
    assert int(drawn.sum()) == 20 * 400
    # Four standard deviations of a share of 8,000 draws.
    assert (drawn - 2000).abs().max() < 4 * (8000 * 0.25 * 0.75) ** 0.5


def test_plain_training_draws_each_row_once() -> None:
    assert build_method(MethodConfig()).row_shares(SimpleNamespace()) is None  # type: ignore[arg-type]


# ---- each helps the worst group


def test_drawing_by_groups_helps_the_worst_group(plain: nn.Module) -> None:
    assert worst_group(trained(BalancedConfig(attribute="label*color"))) > worst_group(plain) + 0.1


def test_what_a_first_model_gets_wrong_counts_more(
    plain: nn.Module, capsys: pytest.CaptureFixture[str]
) -> None:
    split = tied(400, 20)
    first = Teacher(None, lambda: plain)
    method = build_method(JttConfig(upweight=4))
    run = SimpleNamespace(split=split, teacher_logits=lambda name: plain(split.inputs).detach())
    method.begin(run)  # type: ignore[arg-type]
    wrong = plain(split.inputs).argmax(1) != split.labels
    weights = method.weights  # type: ignore[attr-defined]
    assert weights.mean() == pytest.approx(1)
    assert torch.allclose(weights[wrong], 4 * weights[~wrong][0])
    assert f"gets {int(wrong.sum())} of 400 training rows wrong" in capsys.readouterr().err
    second = trained(JttConfig(upweight=8), teacher=first)
    rare, before = (sum(accuracies(model)[1:3]) / 2 for model in (second, plain))
    assert rare > before + 0.05


def test_the_last_layer_alone_is_refitted(plain: nn.Module) -> None:
    model = Shortcut()
    model.load_state_dict(plain.state_dict())
    trained(DfrConfig(attribute="label*color"), model)
    assert torch.equal(model.body[0].weight, plain.body[0].weight)
    assert not torch.equal(model.classifier.weight, plain.classifier.weight)
    assert worst_group(model) > worst_group(plain) + 0.1


def test_the_refit_is_a_logistic_regression_on_balanced_rows(plain: nn.Module) -> None:
    from sklearn.linear_model import LogisticRegression

    model = Shortcut()
    model.load_state_dict(plain.state_dict())
    # Groups of equal size: a draw is all rows, in their order.
    even = tied(400, 0, 1)
    colors = np.array(["blue", "red"])[(np.arange(400) // 2) % 2]
    even = Split(even.inputs, even.labels, even.ids, pd.DataFrame({"color": colors}))
    method = build_method(DfrConfig(attribute="label*color", draws=1))
    given = {"seed": 0, "role": Role.TEACHER, "device": CPU, "validation": even}
    fit(model, tied(400, 20), method, training(), **given)
    with torch.no_grad():
        _, features = logits_and_features(plain, even.inputs)
    scaled = features.double().numpy()
    scaled = (scaled - scaled.mean(0)) / np.where(scaled.std(0) > 0, scaled.std(0), 1)
    expected = LogisticRegression(max_iter=1000).fit(scaled, even.labels.numpy())
    with torch.no_grad():
        found = model(even.inputs).softmax(1)[:, 1].numpy()
    np.testing.assert_allclose(found, expected.predict_proba(scaled)[:, 1], atol=1e-3)


def test_a_class_without_validation_rows_is_refused() -> None:
    split = tied(40, 4)
    alone = split.at(np.flatnonzero((split.labels == 0).numpy()))
    dataset = Dataset("trifeature", "d", ("a", "b"), ("color",), split, alone, split)
    with pytest.raises(UserError, match=r"1 of 2 classes have no validation row .* \('b'\)"):
        build_method(DfrConfig(attribute="label*color")).check(dataset)


def test_a_first_model_is_trained_by_cross_entropy_as_its_second() -> None:
    second = training(9).model_copy(update={"method": JttConfig(first_epochs=2)})
    first = second.method.first_training(second)
    assert first is not None
    assert (first.epochs, first.method.method) == (2, "cross_entropy")
    assert first.matters() == {**second.matters(), "epochs": 2}
    refit = DfrConfig().first_training(second)
    assert (refit.epochs, refit.method.method) == (9, "cross_entropy")


def test_few_validation_rows_of_a_group_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    config = DfrConfig(attribute="label*color")
    for minority, said in ((2, True), (200, False)):
        split, val = tied(400, 20), tied(400, minority)
        dataset = Dataset("toy", "d", ("0", "1"), ("color",), split, val, split)
        build_method(config).check(dataset)
        line = capsys.readouterr().err
        least = int(groups_of(split, "label*color").of(val).bincount().min())
        assert (f"has {least} validation rows, so each fit" in line) is said
