"""Relations and contrast by class, a mean teacher, and banks: the proofs of the method."""

import copy
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.given_logits import begun, evaluate, given_batch, given_run, random_logits, split_of
from torch import Tensor, nn

from kdplatform.data import Dataset
from kdplatform.errors import UserError
from kdplatform.kernels import kd_loss
from kdplatform.methods import _banks, build_method, crckd
from kdplatform.methods._banks import (
    Draws,
    bank_logits,
    check_room,
    class_anchors,
    contrast,
    log_normaliser,
    new_bank,
    updated_bank,
)
from kdplatform.methods._features import unit_rows
from kdplatform.methods.crckd import Config, WithoutTeacher, ramp, relation

# A class of one example, a class of two, and a large one.
LABELS = torch.tensor([0, 1, 2, 2, 1, 2, 2, 2, 3, 2, 3, 3])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vectors(rows: int, width: int = 4, seed: int = 0) -> Tensor:
    return unit_rows(torch.randn(rows, width, generator=generator(seed), dtype=torch.float64))


# ---- draws


def test_the_first_positive_is_the_example_and_all_are_of_its_class() -> None:
    draws, rows = Draws(LABELS, torch.device("cpu")), torch.arange(len(LABELS))
    found = draws.same_class(rows, LABELS, 5, generator())
    assert torch.equal(found[:, 0], rows)
    assert torch.equal(LABELS[found], LABELS[:, None].expand(-1, 5))
    for row, others in enumerate(found[:, 1:]):
        if LABELS[row] == 2:  # of six examples, four others are all different
            assert len({row, *others.tolist()}) == 5
        elif LABELS[row] != 0:  # the one that is alone stands for its others
            assert row not in others


def test_no_negative_is_of_the_examples_class() -> None:
    draws = Draws(LABELS, torch.device("cpu"))
    for count in (1, 6, 11, 40):
        found = draws.other_classes(LABELS, count, generator())
        assert (LABELS[found] != LABELS[:, None]).all()
        for row, others in enumerate(found):
            pool = int((LABELS[row] != LABELS).sum())
            if count <= pool:
                assert len(set(others.tolist())) == count


def test_every_other_example_is_drawn_as_often_as_another() -> None:
    draws = Draws(LABELS, torch.device("cpu"))
    classes = torch.full((6000,), 2)
    for count in (2, 9):
        found = draws.other_classes(classes, count, generator())
        counts = found.flatten().bincount(minlength=len(LABELS))[LABELS != 2]
        expected = 6000 * count / 6
        assert ((counts - expected).square() / expected).sum() < 20.5  # chi-square, 5 df, p = .001


# ---- contrast and relations


def test_contrast_is_its_closed_form_on_a_hand_made_bank() -> None:
    bank = torch.eye(4, dtype=torch.float64)
    anchor = unit_rows(torch.tensor([[1.0, 2.0, 0.0, 2.0]], dtype=torch.float64))
    logits = bank_logits(anchor, bank, torch.tensor([[0, 1, 2, 3]]), 0.5)
    torch.testing.assert_close(logits, torch.tensor([[2, 4, 0, 4]], dtype=torch.float64) / 3)
    log_z = log_normaliser(logits, 4)
    z = sum(math.exp(v / 3) for v in (2, 4, 0, 4))  # the mean of four, times four examples
    assert log_z.exp().item() == pytest.approx(z)
    s = [math.exp(v / 3) / z for v in (2, 4, 0, 4)]
    c = 2 / 4
    attracted = sum(math.log(x / (x + c)) for x in s[:2]) / 2
    repelled = sum(math.log(c / (x + c)) for x in s[2:])
    found = contrast(logits, log_z, positives=2, examples=4)
    assert found.item() == pytest.approx(-(attracted + repelled))


def test_scores_do_not_depend_on_how_they_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = torch.randint(0, 30, (5, 3), generator=generator())
    whole = bank_logits(vectors(5), vectors(30, seed=1), chosen, 0.07)
    monkeypatch.setattr(_banks, "_WHOLE_BANK", 0)
    torch.testing.assert_close(whole, bank_logits(vectors(5), vectors(30, seed=1), chosen, 0.07))


def test_anchors_are_the_directions_of_the_class_means() -> None:
    bank = vectors(len(LABELS))
    anchors = class_anchors(bank, LABELS, 5)
    for label in range(4):
        mean = bank[label == LABELS].relu().mean(0)
        torch.testing.assert_close(anchors[label], mean / mean.norm())
    assert not anchors[4].any()


def test_relations_are_the_kl_of_explicit_logits() -> None:
    student, teacher = vectors(6).requires_grad_(), vectors(6, seed=1)
    own, others = vectors(3, seed=2), vectors(3, seed=3)
    found = relation(student, teacher, own, others, 0.07)
    q, p = ((f @ a.t() / 0.07).log_softmax(1) for f, a in ((student, own), (teacher, others)))
    torch.testing.assert_close(found, (p.exp() * (p - q)).sum(1), rtol=1e-6, atol=1e-8)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(found, relation(student, teacher, own[order], others[order], 0.07))


def test_relations_vanish_where_models_projections_and_banks_coincide() -> None:
    student, _, labels = random_logits()
    run = given_run(student, student)
    method = begun(Config(), run)
    method.teacher_projection = copy.deepcopy(method.student_projection)
    method.teacher_bank = method.student_bank.clone()
    loss = method.loss(given_batch(labels), run)  # type: ignore[arg-type]
    torch.testing.assert_close(loss.parts["relation"], torch.zeros(6, dtype=torch.float64))


def test_features_enter_as_directions() -> None:
    layer = nn.Linear(5, 3)
    nn.init.zeros_(layer.bias)
    features = torch.randn(2, 5)
    answers = [SimpleNamespace(features=scale * features) for scale in (1, 7.5)]
    one, other = (crckd._projected(layer, each) for each in answers)  # type: ignore[arg-type]
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 1.0])
def test_a_bank_moves_by_its_momentum_and_keeps_unit_vectors(momentum: float) -> None:
    before, rows, new = new_bank(10, 4, generator()), torch.tensor([3, 7]), vectors(2, seed=1)
    after = updated_bank(before.clone(), rows, new, momentum)
    torch.testing.assert_close(after.norm(dim=1), torch.ones(10))
    untouched = [row for row in range(10) if row not in (3, 7)]
    assert torch.equal(after[untouched], before[untouched])
    expected = unit_rows(momentum * before[rows] + (1 - momentum) * new.float())
    torch.testing.assert_close(after[rows], expected)
    if momentum in (0, 1):
        torch.testing.assert_close(after[rows], before[rows] if momentum else new.float())


# ---- weights and times


def test_the_ramp_is_the_papers() -> None:
    assert ramp(0, 30) == pytest.approx(math.exp(-5))
    assert ramp(15, 30) == pytest.approx(math.exp(-5 / 4))
    assert ramp(30, 30) == ramp(80, 30) == ramp(0, 0) == 1


def test_mean_teacher_and_relations_count_from_their_epoch_on() -> None:
    student, teacher, labels = random_logits()
    config = Config(class_weights=False, contrast_weight=0.0)

    def rows(epoch: int) -> tuple[Tensor, Any]:
        loss = evaluate(config, student, teacher, labels, epoch=epoch)
        return loss.rows, loss.parts

    before, parts = rows(19)
    torch.testing.assert_close(before, parts["ce"])
    after, parts = rows(20)
    expected = parts["ce"] + ramp(20, 30) * parts["consistency"] + parts["relation"]
    torch.testing.assert_close(after, expected)
    kl = kd_loss(student, teacher, temperature=1.0, kl_weight=1.0, reduction="none").loss
    torch.testing.assert_close(parts["consistency"], kl)


def test_classes_weigh_as_in_torchs_weighted_cross_entropy() -> None:
    student, teacher, _ = random_logits(6, 3)
    labels = torch.tensor([0, 0, 0, 1, 1, 2])
    run = given_run(student, teacher)
    run.split = split_of(3)
    run.split.labels[:12] = 0
    method = begun(Config(consistency_weight=0, relation_weight=0, contrast_weight=0), run)
    rows = method.loss(given_batch(labels), run).rows  # type: ignore[arg-type]
    shares = 24 / run.split.labels.bincount().double()
    expected = nn.functional.cross_entropy(student, labels, weight=shares)
    torch.testing.assert_close(rows.mean(), expected)


# ---- the mean teacher


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(1), nn.Linear(1, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.norm(inputs))
        return logits


@pytest.mark.parametrize("batch_norm", ["batch", "average"])
def test_the_mean_teacher_is_the_papers_recursion(batch_norm: Any) -> None:
    torch.manual_seed(0)
    run = given_run(*random_logits(6, 3)[:2])
    run.model = Normalised()
    method = build_method(WithoutTeacher(batch_norm=batch_norm, decay=0.6))
    run.ask = lambda network, inputs, features=False: SimpleNamespace(features=torch.zeros(2, 1))
    method.begin(run)
    method.seen = (torch.tensor([0]), *method.student_bank[:1].expand(2, 1, -1))
    expected = None
    for step in range(1, 6):
        with torch.no_grad():
            run.model.linear.weight += 1.0
            run.model.norm.running_mean += 2.0
            run.model.norm.num_batches_tracked += 1
        run.step = step
        method.after_step(run)
        decay = min(1 - 1 / step, 0.6)
        own = run.model.linear.weight.detach()
        expected = own.clone() if expected is None else decay * expected + (1 - decay) * own
        torch.testing.assert_close(method.mean_teacher.linear.weight, expected)
        if step == 1:
            assert torch.equal(method.mean_teacher.linear.weight, own)
    averaged = batch_norm == "average"
    assert bool(method.mean_teacher.norm.running_mean.any()) is averaged
    assert int(method.mean_teacher.norm.num_batches_tracked) == (5 if averaged else 0)
    assert not any(p.requires_grad for p in method.mean_teacher.parameters())


# ---- bad input


def test_banks_larger_than_the_memory_are_refused_in_one_line() -> None:
    check_room(1000, 128, 2, 1_024_000, "here")
    with pytest.raises(UserError) as refused:
        check_room(1000, 128, 2, 1_000_000, "here")
    line = str(refused.value)
    assert line.startswith(
        "width=128 is not allowed: 2 memory banks of 1,000 examples take 0.0 GiB"
    )
    assert "allowed: at most 125" in line
    split = split_of(3)
    data = Dataset("small", "0", ("a", "b", "c"), (), split, split, split)
    with pytest.raises(UserError, match=r"this machine has \d.* GiB; allowed: at most"):
        build_method(Config(width=10**12)).check(data)
