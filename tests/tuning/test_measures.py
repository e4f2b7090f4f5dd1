"""What is searched must be measurable on the validation split before anything is trained."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from kdplatform.errors import UserError
from kdplatform.settings.project import load_project
from kdplatform.tuning.measures import open_measure


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


def test_groups_too_small_for_what_is_searched_are_refused_with_their_reason() -> None:
    with pytest.raises(
        UserError, match=r"min_group_size=30 leaves no EOD color on validation"
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
    line = "tune: min_group_size=30 leaves no EOD color on test data (TPR leaves out every group ("
    assert (line in capsys.readouterr().err) is said
