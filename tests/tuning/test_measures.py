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


def dataset(positives: int) -> Any:
    """Three groups of 200 examples, of which so many are positive."""
    labels = np.tile(np.arange(200) < positives, 3).astype(int)
    columns = pd.DataFrame({"color": np.repeat(["red", "green", "blue"], 200)})
    val = SimpleNamespace(labels=torch.tensor(labels), ids=np.arange(600), columns=columns)
    return SimpleNamespace(val=val, attributes=("color",), class_names=("0", "1"))


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
