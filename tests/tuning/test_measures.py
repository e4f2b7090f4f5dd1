"""What is searched must be measurable on the validation split before anything is trained."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.two_groups import two_groups

from kdplatform.errors import UserError
from kdplatform.predictions import Predictions
from kdplatform.settings.project import load_project
from kdplatform.study.study import NDS, distilled_arm
from kdplatform.tuning.measures import Measure, open_measure


def dataset(positives: int, in_test: int = 40) -> Any:
    """Three groups of 200 examples, of which so many are positive in validation and in test."""
    columns = pd.DataFrame({"color": np.repeat(["red", "green", "blue"], 200)})
    val, test = (
        SimpleNamespace(
            labels=torch.tensor(np.tile(np.arange(200) < count, 3).astype(int)),
            ids=np.arange(600),
            columns=columns,
        )
        for count in (positives, in_test)
    )
    return SimpleNamespace(val=val, test=test, attributes=("color",), class_names=("0", "1"))


def config(**overrides: str) -> Any:
    given = {"tuning__unfairness": "eod", "attributes": "color", **overrides}
    names = {name.replace("__", "."): value for name, value in given.items()}
    return load_project("digits", names)


def test_groups_large_enough_are_measured() -> None:
    measure = open_measure(config(), dataset(positives=40))
    assert (measure.attribute, measure.min_group_size) == ("color", 30)


def test_attributes_that_a_search_could_compare_are_named() -> None:
    with pytest.raises(UserError, match=r"needs attributes, .*, or --attributes with color$"):
        open_measure(config(attributes="none"), dataset(positives=40))


def test_groups_too_small_for_what_is_searched_are_refused_with_their_reason() -> None:
    with pytest.raises(
        UserError, match=r"EOD color is undefined on validation data with min_group_size=30"
    ) as e:
        open_measure(config(), dataset(positives=29))
    assert "TPR leaves out every group (fewer than 30 positives)" in str(e.value)
    assert open_measure(config(min_group_size="29"), dataset(positives=29)).min_group_size == 29
    open_measure(config(tuning__unfairness="dpd"), dataset(positives=29))


@pytest.mark.parametrize(("confirmed", "said"), [("5", True), ("0", False)])
def test_what_the_confirmation_cannot_measure_is_said_before_the_search(
    confirmed: str, said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    open_measure(config(confirm_seeds=confirmed), dataset(positives=40, in_test=0))
    line = "tune: EOD color is undefined on test data with min_group_size=30 (TPR leaves out every"
    assert (line in capsys.readouterr().err) is said


def table(predictions: np.ndarray, labels: np.ndarray) -> Predictions:
    frame = {"id": range(len(labels)), "label": labels, "prediction": predictions}
    return Predictions.of(pd.DataFrame(frame | {"color": ["red", "green"] * (len(labels) // 2)}))


def test_a_collapsed_student_is_counted_unless_no_student_can() -> None:
    labels = np.arange(400) // 2 % 2 + (np.arange(400) < 40)
    measure = Measure("eod", "color", 3, "toy", 30, 2)
    right, constant = table(labels, labels), table(np.zeros(400, dtype=int), labels)
    without_two = table(np.minimum(labels, 1), labels)
    assert measure.collapsed([right], [right]) == 0
    # At chance, and two classes that the NDS predicts are never predicted.
    assert measure.collapsed([constant], [right]) == 3
    assert measure.collapsed([right, without_two], [right, right]) == 1
    assert measure.collapsed([without_two], [without_two]) == 0


def test_the_number_of_groups_that_changed_can_be_searched() -> None:
    measure = open_measure(config(tuning__unfairness="n_sg"), dataset(positives=40))
    assert (measure.metric, measure.largest, measure.is_share) == ("groupwise/n_sg", 3.0, False)
    assert (measure.label, measure.slug) == ("n_sg color", "n_sg-color")
    a, b = map(Predictions.of, two_groups())
    arms = {NDS: {0: a}, distilled_arm(4.0): {0: b}}
    by_sex = Measure("n_sg", "sex", 2, "toy", 30, 2)
    scores = by_sex.scores(arms, None)
    assert scores["unfairness"].tolist() == [0, 2]
    with pytest.raises(
        UserError, match="n_sg color is undefined on validation data with min_group_size=201"
    ):
        open_measure(config(tuning__unfairness="n_sg", min_group_size="201"), dataset(positives=40))
