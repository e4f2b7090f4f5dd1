"""Ensembles: the identities of mixing, weighing and disagreement, and what labels decide."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.given_logits import begun, given_batch, given_run, random_logits
from torch import Tensor

from kdplatform.data import Dataset, Split
from kdplatform.errors import UserError
from kdplatform.methods import Loss, build_method
from kdplatform.methods._mixing import (
    correctness_weights,
    disagreement,
    even_weights,
    label_losses,
    log_mixture,
    row_weights,
    shortcut_weights,
)
from kdplatform.methods.ensemble import Config
from kdplatform.methods.kd import Config as KdConfig

NAMES = ["seed 0", "seed 1", "seed 2"]


def several(count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return 2 * torch.randn(count, 6, 5, generator=generator, dtype=torch.float64)


def loss_of(config: Any, student: Tensor, teachers: Tensor, labels: Tensor, **more: Any) -> Loss:
    run = given_run(student, teachers[0])
    run.teachers = lambda batch: list(
        more.get("others", teachers) if not batch.labelled else teachers
    )
    run.reference = lambda batch: more["reference"]
    batch = given_batch(labels)
    if "unlabeled" in more:
        unlabeled = given_batch(more["unlabeled"])
        batch = SimpleNamespace(**{**vars(batch), "unlabeled": unlabeled})
        batch.unlabeled = SimpleNamespace(**{**vars(unlabeled), "labelled": False})
    return begun(config, run).loss(batch, run)  # type: ignore[arg-type]


def gradient_of(config: Any, student: Tensor, *given: Any, **more: Any) -> Tensor:
    student = student.clone().requires_grad_()
    [found] = torch.autograd.grad(loss_of(config, student, *given, **more).rows.mean(), student)
    return found


# ---- one teacher


@pytest.mark.parametrize("weighting", ["mean", "correctness"])
def test_one_teacher_gives_the_bits_of_plain_distillation(weighting: str) -> None:
    student, teacher, labels = random_logits(dtype=torch.float32)
    config = Config(weighting=weighting, temperature=3, alpha=0.6)
    plain = loss_of(KdConfig(temperature=3, alpha=0.6), student, teacher[None], labels)
    assert torch.equal(loss_of(config, student, teacher[None], labels).rows, plain.rows)


def test_one_teacher_weighed_by_correctness_is_plain_distillation_times_how_right_it_is() -> None:
    student, teacher, labels = random_logits()
    config = Config(row_weight="inverse_ce", alpha=1.0)
    plain = loss_of(KdConfig(alpha=1.0), student, teacher[None], labels)
    right = 1 / (1 + torch.nn.functional.cross_entropy(teacher, labels, reduction="none"))
    found = loss_of(config, student, teacher[None], labels)
    torch.testing.assert_close(found.rows, right * plain.rows)
    torch.testing.assert_close(found.parts["row_weight"], right)


# ---- mixing


def test_the_temperature_applies_to_each_teacher_before_they_are_mixed() -> None:
    teachers = several()
    weights = torch.rand(3, 6, dtype=torch.float64)
    weights = weights / weights.sum(0)
    expected = (weights[:, :, None] * (teachers / 4).softmax(2)).sum(0)
    torch.testing.assert_close(log_mixture(teachers, weights, 4).exp(), expected)
    student, _, labels = random_logits()
    found = loss_of(Config(temperature=4, alpha=1.0), student, teachers, labels)
    mean = (teachers / 4).softmax(2).mean(0)
    kl = (mean * (mean.log() - (student / 4).log_softmax(1))).sum(1)
    torch.testing.assert_close(found.rows, 16 * kl)


def test_mixing_predictions_and_mixing_losses_differ_by_what_the_student_has_no_part_in() -> None:
    student, _, labels = random_logits()
    teachers, q = several(), student.log_softmax(1)
    a = correctness_weights(teachers, labels, "softmax_ce", 1.0)
    p = teachers.softmax(2)

    def kl(one: Tensor, log_other: Tensor) -> Tensor:
        return (one * (one.log() - log_other)).sum(-1)

    mixed = log_mixture(teachers, a)
    left = (a * kl(p, q)).sum(0)
    torch.testing.assert_close(left, kl(mixed.exp(), q) + (a * kl(p, mixed)).sum(0))


def test_permuting_teachers_changes_nothing() -> None:
    student, _, labels = random_logits()
    teachers = several()
    for config in (Config(), Config(weighting="correctness", row_weight="probability")):
        one = loss_of(config, student, teachers, labels).rows
        torch.testing.assert_close(loss_of(config, student, teachers.flip(0), labels).rows, one)


def test_fixed_weights_are_scaled_and_one_alone_is_that_teacher() -> None:
    student, _, labels = random_logits()
    teachers = several()
    alone = loss_of(Config(weighting="fixed", weights=(0, 5, 0)), student, teachers, labels)
    expected = loss_of(KdConfig(), student, teachers[1:2], labels)
    torch.testing.assert_close(alone.rows, expected.rows)


# ---- by correctness


def test_softmax_of_cross_entropies_is_each_teachers_share_of_the_labels_probability() -> None:
    _, _, labels = random_logits()
    teachers = several()
    own = teachers.softmax(2)[:, torch.arange(6), labels]
    found = correctness_weights(teachers, labels, "softmax_ce", 1.0)
    torch.testing.assert_close(found, own / own.sum(0))


@pytest.mark.parametrize("form", ["softmax_ce", "inverse_ce", "camkd"])
def test_weights_sum_to_1_and_rise_with_what_the_label_is_given(form: Any) -> None:
    _, _, labels = random_logits()
    teachers = several()
    found = correctness_weights(teachers, labels, form, 1.0)
    torch.testing.assert_close(found.sum(0), torch.ones(6, dtype=torch.float64))
    assert ((found > 0) & (found <= 1)).all()
    assert torch.equal(found.argsort(0), (-label_losses(teachers, labels)).argsort(0))
    raised = teachers.clone()
    raised[0, torch.arange(6), labels] += 1
    assert (correctness_weights(raised, labels, form, 1.0)[0] > found[0]).all()


def test_camkd_is_the_formula_of_its_code() -> None:
    _, _, labels = random_logits()
    teachers = several()
    losses = label_losses(teachers, labels)
    expected = (1 - torch.softmax(losses, dim=0)) / 2
    torch.testing.assert_close(correctness_weights(teachers, labels, "camkd", 1.0), expected)


@pytest.mark.parametrize("form", ["inverse_ce", "probability"])
def test_row_weights_lie_in_0_to_1(form: Any) -> None:
    _, _, labels = random_logits()
    mixed = log_mixture(several(), even_weights(several()))
    found = row_weights(mixed, labels, form)
    assert ((found > 0) & (found <= 1)).all()
    certain = torch.full((6, 5), -50.0).scatter(1, labels[:, None], 0.0)
    torch.testing.assert_close(row_weights(certain, labels, form), torch.ones(6))


# ---- by groups


def grouped(count: int = 12) -> Split:
    columns = pd.DataFrame({"color": ["red", "blue", "green"] * (count // 3)})
    return Split(torch.zeros(count, 1), torch.arange(count) % 5, np.arange(count), columns)


def data() -> Dataset:
    split = grouped()
    names = tuple("abcde")
    return Dataset("toy", "digest", names, ("color",), split, split, split)


def test_each_group_learns_from_its_own_teacher() -> None:
    student, _, labels = random_logits()
    teachers = several()
    config = Config(
        weighting="group", attribute="color", group_teachers=("red=1", "blue=3", "green=1")
    )
    run = given_run(student, teachers[0])
    run.split = grouped()
    run.teachers = lambda batch: list(teachers)
    found = begun(config, run).loss(given_batch(labels), run).rows  # type: ignore[arg-type]
    for row in range(6):
        teacher = teachers[[0, 2, 0][row % 3]]
        expected = loss_of(KdConfig(), student, teacher[None], labels).rows[row]
        torch.testing.assert_close(found[row], expected)


def test_the_teachers_of_groups_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    build_method(Config(weighting="group", attribute="color")).check_teachers(NAMES, data())
    assert "groups of color learn: blue from seed 0, green from seed 1, red from seed 2" in (
        capsys.readouterr().err
    )


# ---- by logit gradients


def test_a_teacher_that_pulls_as_the_reference_does_counts_least() -> None:
    student, _, _ = random_logits()
    teachers = several()
    found = shortcut_weights(student, teachers, teachers[1], 2.0)
    torch.testing.assert_close(found[1], torch.zeros(6, dtype=torch.float64))
    torch.testing.assert_close(found.sum(0), torch.ones(6, dtype=torch.float64))
    alike = shortcut_weights(student, teachers[:1].expand(3, -1, -1), teachers[0], 2.0)
    torch.testing.assert_close(alike, torch.full((3, 6), 1 / 3, dtype=torch.float64))


def test_the_weights_are_those_of_the_gradients_of_the_distillation_terms() -> None:
    student, reference, labels = random_logits()
    teachers = several()

    def pull(teacher: Tensor) -> Tensor:
        found = gradient_of(KdConfig(alpha=1.0), student, teacher[None], labels)
        return found / found.norm(dim=1, keepdim=True)

    raw = torch.stack([1 - (pull(t) * pull(reference)).sum(1) for t in teachers])
    found = shortcut_weights(student, teachers, reference, 4.0)
    torch.testing.assert_close(found, raw / raw.sum(0))
    loss = loss_of(Config(weighting="agre"), student, teachers, labels, reference=reference)
    torch.testing.assert_close(loss.parts["teacher_2"], found[1])


# ---- examples without labels


UNLABELED = {"unlabeled_weight": 2.0, "alpha": 0.5}


@pytest.mark.parametrize("form", ["jsd", "variance", "pairwise_kl"])
def test_teachers_that_agree_teach_nothing_without_labels(form: Any) -> None:
    same = several(1).expand(3, -1, -1)
    torch.testing.assert_close(
        disagreement(same, form), torch.zeros(6, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert (disagreement(several(), form) > 0).all()
    torch.testing.assert_close(disagreement(several().flip(0), form), disagreement(several(), form))


def test_pairwise_divergences_are_the_mean_over_pairs() -> None:
    p = several().softmax(2)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = sum((p[i] * (p[i].log() - p[j].log())).sum(1) for i, j in pairs) / 6
    torch.testing.assert_close(disagreement(several(), "pairwise_kl"), expected)


def test_examples_without_labels_count_by_how_far_teachers_disagree() -> None:
    student, _, labels = random_logits()
    teachers, others = several(), several().flip(2)
    given = {"others": others, "unlabeled": torch.full((6,), -1)}
    found = loss_of(Config(**UNLABELED), student, teachers, labels, **given)
    plain = loss_of(Config(alpha=0.5), student, teachers, labels)
    mean = (others / 4).softmax(2).mean(0)
    kl = (mean * (mean.log() - (student / 4).log_softmax(1))).sum(1)
    term = (disagreement(others, "jsd") * 16 * kl).mean()
    torch.testing.assert_close(found.rows, plain.rows + 2 * term)
    torch.testing.assert_close(found.parts["unlabeled"], term.expand(6))


def test_no_label_is_read_where_labels_are_hidden() -> None:
    student, _, labels = random_logits()
    teachers = several()
    one, other = (
        loss_of(Config(**UNLABELED), student, teachers, labels, unlabeled=hidden).rows
        for hidden in (torch.full((6,), -1), torch.tensor([4, 2, 0, 1, 3, 3]))
    )
    assert torch.equal(one, other)


# ---- what is refused


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weighting": "fixed", "weights": (1, 2)}, "2 weights and there are 3 teachers"),
        (
            {"weighting": "group", "attribute": "color", "group_teachers": ("red=4",)},
            "group=number of the teacher, from 1 to 3",
        ),
        (
            {
                "weighting": "group",
                "attribute": "color",
                "group_teachers": ("red=1", "blue=1", "green=1", "red=2"),
            },
            "group_teachers gives 'red' twice",
        ),
        (
            {"weighting": "group", "attribute": "color", "group_teachers": ("red=1",)},
            "lacks 'blue', one of 2 groups",
        ),
        (
            {"weighting": "group", "attribute": "label"},
            "3 teachers for 5 groups of label",
        ),
    ],
)
def test_teachers_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_method(Config(**fields)).check_teachers(NAMES, data())


def test_disagreement_needs_several_teachers() -> None:
    with pytest.raises(UserError, match="there is one; allowed: several teachers"):
        build_method(Config(unlabeled_weight=1)).check_teachers(NAMES[:1], data())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weighting": "fixed"}, "weights are all 0, or none"),
        ({"weights": (1.0,)}, "weights are not for weighting=mean"),
        ({"group_teachers": ("a=1",)}, "group_teachers are not for weighting=mean"),
        ({"kappa": 3.0}, "kappa=3.0 would not be read; allowed: with weighting=correctness"),
        ({"weighting": "correctness", "correctness": "camkd", "kappa": 3.0}, "kappa=3.0 would not"),
        ({"correctness": "camkd"}, "correctness='camkd' would not be read"),
        ({"attribute": "color"}, "attribute='color' would not be read; allowed: with weighting=gr"),
        ({"reference": "3"}, "reference='3' would not be read; allowed: with weighting=agre"),
        ({"disagreement": "variance"}, "would not be read; allowed: with unlabeled_weight above 0"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config(**fields)


def test_weights_may_be_a_text() -> None:
    assert Config.model_validate({"weighting": "fixed", "weights": "1, 2.5"}).weights == (1, 2.5)
