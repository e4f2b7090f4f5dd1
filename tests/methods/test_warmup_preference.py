"""Preferences of the teacher among the student's answers: the proofs of the method."""

import math
from typing import Any

import pytest
import torch
from helpers.given_logits import begun, evaluate, given_batch, given_run, random_logits
from helpers.refusals import refusal_of
from torch import Tensor, nn

from kdplatform.methods import build_method, method_config_class
from kdplatform.methods.warmup_preference import Config, mismatch, preference_loss
from kdplatform.settings.project import load_project
from kdplatform.settings.schema import MethodConfig

ALL, NONE = 1.5, -1.0


def config(**fields: Any) -> Config:
    return Config.model_validate({"eta": 0, **fields})


def in_warmup(own: Config, student: Tensor, teacher: Tensor, labels: Tensor) -> Any:
    """Returns the loss of the first step: of a student that is still as it was at first."""
    run = given_run(student, teacher, epoch=0)
    run.model.logits = student.detach().clone()
    return begun(own, run).loss(given_batch(labels), run)  # type: ignore[arg-type]


def test_at_first_the_loss_is_log_2_and_its_gradient_half_of_beta() -> None:
    student, teacher, labels = random_logits()
    own = config(eta=ALL, answers="most_likely", beta=0.3)
    student.requires_grad_()
    loss = in_warmup(own, student, teacher, labels)
    differs = student.argmax(1) != teacher.argmax(1)
    torch.testing.assert_close(loss.rows, torch.full((6,), math.log(2), dtype=torch.float64))
    [found] = torch.autograd.grad(loss.rows.sum(), student)
    signs = nn.functional.one_hot(student.argmax(1), 5) - nn.functional.one_hot(
        teacher.argmax(1), 5
    )
    assert differs.any()
    torch.testing.assert_close(found, 0.15 * signs.double())


def test_the_loss_is_that_of_sequences_of_one_class() -> None:
    student, initial, _ = random_logits()
    y_plus, y_minus = torch.tensor([0, 1, 2, 3, 4, 0]), torch.tensor([1, 1, 0, 2, 0, 4])

    def log_ratio(y: Tensor) -> Tensor:
        one, other = (z.log_softmax(1)[torch.arange(6), y] for z in (student, initial))
        return one - other

    expected = -nn.functional.logsigmoid(0.7 * (log_ratio(y_plus) - log_ratio(y_minus)))
    found = preference_loss(student, initial, y_plus, y_minus, 0.7)
    torch.testing.assert_close(found, expected)


def test_the_mismatch_is_of_probabilities_or_logarithms() -> None:
    student, teacher, labels = random_logits()
    rows = torch.arange(6)
    p, q = teacher.softmax(1)[rows, labels], student.softmax(1)[rows, labels]
    torch.testing.assert_close(mismatch(student, teacher, labels, "probability"), p - q)
    found = mismatch(student, teacher, labels, "log_probability")
    torch.testing.assert_close(found, p.log() - q.log())


@pytest.mark.parametrize("of", ["probability", "log_probability"])
def test_pairs_are_the_rows_whose_answer_the_teacher_finds_improbable(of: Any) -> None:
    student, teacher, labels = random_logits()
    loss = in_warmup(config(eta=-0.1, answers="most_likely", mismatch=of), student, teacher, labels)
    expected = mismatch(student, teacher, student.argmax(1), of) < -0.1
    assert torch.equal(loss.parts["pairs"].bool(), expected)
    assert expected.any()
    assert not expected.all()
    assert torch.equal(loss.rows != 0, expected)


def test_answers_are_samples_at_their_temperature() -> None:
    own = build_method(config(sampling_temperature=2.0))
    logits = torch.tensor([[2.0, 0.0, -2.0]]).expand(20_000, 3)
    counts = own._answers(logits, torch.Generator().manual_seed(0)).bincount(minlength=3)
    expected = 20_000 * (logits[0] / 2).softmax(0)
    assert ((counts - expected).square() / expected).sum() < 13.8  # chi-square, 2 df, p = .001


def test_the_student_as_it_was_gets_no_gradient() -> None:
    student, teacher, _ = random_logits()
    run = given_run(student, teacher, epoch=0)
    run.model = nn.Linear(3, 5)
    method = build_method(config())
    method.begin(run)  # type: ignore[arg-type]
    assert method.initial is not run.model
    assert not any(parameter.requires_grad for parameter in method.initial.parameters())


def test_after_the_warmup_it_is_the_other_method_whose_epochs_begin_anew() -> None:
    given = random_logits()
    own = config(then="dkd", then_fields="warmup_epochs=10", warmup_epochs=3, temperature=2)
    plain = method_config_class("dkd").model_validate({"warmup_epochs": 10, "temperature": 2})
    for epoch in (0, 4, 30):
        expected = evaluate(plain, *given, epoch=epoch).rows
        assert torch.equal(evaluate(own, *given, epoch=epoch + 3).rows, expected)


# ---- settings


def test_eta_is_to_be_given() -> None:
    method = build_method(config(eta=None))
    line = refusal_of(method.check, None)
    assert line.startswith("distillation.eta is not given, and method='warmup_preference' has no")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"then": "cross_entropy"}, "then='cross_entropy' is no method that can follow; allowed: "),
        ({"then": "warmup_preference"}, "is no method that can follow; allowed: adaptive_alpha, "),
        (
            {"then_fields": "beta=2"},
            "then_fields='beta=2' is not allowed with then='kd'; allowed: name=value, names: alpha",
        ),
        (
            {"then": "dkd", "then_fields": "beta=-2"},
            "then_fields: beta='-2' is not allowed; allowed: number >= 0",
        ),
        ({"then": "cist", "temperature": "3"}, "temperature=3 is not allowed with then='cist'"),
    ],
)
def test_what_cannot_follow_is_refused(fields: dict[str, str], message: str) -> None:
    overrides = {f"distillation.{name}": value for name, value in fields.items()}
    line = refusal_of(load_project, "digits", {"method": "warmup_preference", **overrides})
    assert message in line


def test_a_method_by_groups_that_follows_goes_by_the_projects_attribute() -> None:
    words = {"method": "warmup_preference", "distillation.then": "group_dro"}
    own = load_project("trifeature", words).distillation
    assert isinstance(own, Config)
    assert own.base_config.attribute == "color"  # type: ignore[attr-defined]
    line = refusal_of(load_project, "digits", words)
    assert "method='group_dro' uses groups, and project digits has no attributes" in line


def test_the_temperature_is_that_of_the_method_that_follows() -> None:
    own = load_project("digits", {"method": "warmup_preference", "temperature": "7"}).distillation
    assert own.softmax_temperature == 7
    assert own.base_config.softmax_temperature == 7  # type: ignore[attr-defined]
    without: MethodConfig = config(then="cist")
    assert without.softmax_temperature is None
