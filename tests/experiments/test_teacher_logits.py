"""The teacher is asked once: its logits are kept by the run that trained it."""

from typing import Any

import numpy as np
import pytest

from kdplatform.config import load_project
from kdplatform.experiments.teacher_logits import views_pay


@pytest.mark.parametrize(
    ("overrides", "pays"),
    [
        ({"student.augmentation.horizontal_flip": "true"}, True),
        # 81 places, mirrored or not: 162 views against 13 students of 13 passes, and of 12.
        ({"student.augmentation.crop_padding": "4", "student.epochs": "13"}, True),
        ({"student.augmentation.crop_padding": "4", "student.epochs": "12"}, False),
    ],
)
def test_a_table_of_views_is_made_when_it_costs_no_more_passes(
    overrides: dict[str, str], pays: bool
) -> None:
    flip = {"student.augmentation.horizontal_flip": "true"}
    config = load_project("digits", flip | overrides)
    assert views_pay(config, examples=1000, classes=10) is pays


def test_a_table_that_is_too_large_is_not_made() -> None:
    config = load_project("digits", {"student.augmentation.horizontal_flip": "true"})
    assert views_pay(config, examples=1_000_000, classes=1000)
    assert not views_pay(config, examples=2_000_000, classes=1000)


@pytest.mark.usefixtures("spared")
@pytest.mark.parametrize(
    ("words", "name"),
    [
        ({}, "{teacher}.npz"),
        ({"student__augmentation__horizontal_flip": "true"}, "{teacher}-crop0-flip.npy"),
    ],
)
def test_logits_are_kept_by_the_run_of_the_teacher(
    words: dict[str, str], name: str, trained_place: Any, as_before: dict[str, str]
) -> None:
    """A teacher trained afresh may differ in its last bits, and its key does not say so."""
    assert trained_place.run("distill", **as_before | words) == 0
    [teacher] = trained_place.runs("teacher")
    path = trained_place.home / "teacher_logits" / name.format(teacher=teacher.info.run_id)
    assert path.exists()
    if path.suffix == ".npy":
        examples, views, classes = np.load(path).shape
        assert (examples, views, classes) == (108, 2, 3)
