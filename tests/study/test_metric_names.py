"""Names of the user's inside names of metrics."""

import pytest
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name

from kdplatform.study.metrics import fairness_metric, in_metric_name

NAMES = ["a & b", "age (years)", "a//b", "/a", ".", "..", "a:b", "50%", "größe", "x" * 400]


@pytest.mark.parametrize("name", ["color", "5_o_Clock_Shadow", "African American", "a.b-c"])
def test_a_plain_name_is_itself(name: str) -> None:
    assert fairness_metric(name, "dpd") == f"fairness/{name}/dpd"


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_one_that_mlflow_takes(name: str) -> None:
    for metric in (fairness_metric(name, "dpd"), f"distilled/{fairness_metric(name, 'dpd')}_sd"):
        _validate_metric_name(metric)
        assert len(metric) <= MAX_ENTITY_KEY_LENGTH


def test_different_names_stay_different() -> None:
    names = [*NAMES, "a : b", "a :26: b", "a 26 b", "x" * 399 + "y", "a_b", "a/b", "a b"]
    assert len({in_metric_name(name) for name in names}) == len(names)
