"""Frozen models whose outputs stand for other classes than the dataset's are noticed."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.refusals import refusal_of
from numpy.typing import NDArray

from kdplatform.experiments.frozen import check_outputs
from kdplatform.experiments.graph import Step, teacher_step
from kdplatform.settings.project import load_project

FIVE = ("a", "b", "c", "d", "e")


@pytest.fixture(scope="module")
def step() -> Step:
    step = teacher_step(load_project("digits"), 0, "digest")
    changes = {"frozen": True, "weights": "given.pt"}
    return replace(step, training=step.training.model_copy(update=changes))


def predicted(
    accuracy: float, meant: tuple[int, ...], examples: int = 20
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Labels, and predictions of a model that is right so often, whose outputs mean these classes.

    Its mistakes are spread evenly over the other classes.
    """
    number = len(meant)
    labels = np.repeat(np.arange(number), examples)
    right = np.tile(np.arange(examples) < round(accuracy * examples), number)
    wrong = (labels + 1 + np.tile(np.arange(examples), number) % (number - 1)) % number
    return labels, np.argsort(meant)[np.where(right, labels, wrong)]


@pytest.mark.parametrize(
    ("accuracy", "meant", "said"),
    [
        (1.0, (1, 2, 3, 4, 0), "0.0% are right, and 100.0% if output 4 is 'a', output 0 is 'b'"),
        (1.0, (1, 0, 2, 3, 4), "60.0% are right, and 100.0% if output 1 is 'a', output 0 is 'b';"),
        (0.6, (4, 3, 2, 1, 0), "20.0% are right, and 60.0% if output 4 is 'a'"),
        (0.9, (1, 0), "10.0% are right, and 90.0% if output 1 is 'a'"),
    ],
)
def test_another_order_of_the_classes_is_refused_and_named(
    step: Step, accuracy: float, meant: tuple[int, ...], said: str
) -> None:
    names = FIVE[: len(meant)]
    line = refusal_of(check_outputs, step, *predicted(accuracy, meant), names)
    assert said in line
    assert "weights='given.pt' have the classes in another order" in line


@pytest.mark.parametrize("accuracy", [0.0, 0.05])
def test_a_model_worse_than_chance_is_said(
    step: Step, accuracy: float, capsys: pytest.CaptureFixture[str]
) -> None:
    check_outputs(step, *predicted(accuracy, (0, 1, 2, 3, 4)), FIVE)
    [line] = capsys.readouterr().err.splitlines()
    assert f"on validation {accuracy:.1%} are right, and guessing gives 20.0%" in line


@pytest.mark.parametrize("accuracy", [0.2, 0.4, 1.0])
def test_the_datasets_order_is_no_news(
    step: Step, accuracy: float, capsys: pytest.CaptureFixture[str]
) -> None:
    check_outputs(step, *predicted(accuracy, (0, 1, 2, 3, 4)), FIVE)
    assert capsys.readouterr().err == ""


def test_a_mediocre_model_of_two_classes_is_not_taken_for_one_with_them_exchanged(
    step: Step,
) -> None:
    check_outputs(step, *predicted(0.4, (0, 1)), FIVE[:2])


def test_too_few_examples_explain_nothing(step: Step) -> None:
    check_outputs(step, *predicted(1.0, (1, 2, 3, 4, 0), examples=2), FIVE)


def test_a_model_that_trains_is_not_asked(step: Step) -> None:
    trained = replace(step, training=step.training.model_copy(update={"frozen": False}))
    check_outputs(trained, *predicted(1.0, (1, 2, 3, 4, 0)), FIVE)
