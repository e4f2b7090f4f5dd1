"""The method that CONTRIBUTING.md writes is one: its code runs, and is its formula."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.formulas import Array, ce
from helpers.given_logits import evaluate, random_logits
from helpers.method_folder import method_folder
from torch import Tensor

from kdplatform.methods import method_config_class

GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"
METHOD, FORMULA, PROPERTY = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.fixture(scope="module", autouse=True)
def _written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with method_folder(tmp_path_factory.mktemp("methods"), logit_matching=METHOD):
        yield


def rows_of(name: str, *given: Tensor, **fields: Any) -> Tensor:
    return evaluate(method_config_class(name).model_validate(fields), *given).rows


def term(name: str, *given: Tensor, **fields: Any) -> Tensor:
    return rows_of(name, *given, ce_weight=0, **fields)


def defined(source: str) -> dict[str, Any]:
    """Returns what a block of the guide defines in the file that it is written for."""
    names = {"Any": Any, "Array": Array, "ce": ce, "rows_of": rows_of, "term": term, "torch": torch}
    exec(source, names)
    return names


@pytest.mark.parametrize("fields", [{}, {"kd_weight": 3.0}])
def test_its_loss_is_its_formula(fields: dict[str, float]) -> None:
    given = random_logits(6, 5)
    formula = defined(FORMULA)["logit_matching"]
    expected: Array = formula(*(z.numpy() for z in given), **fields)
    np.testing.assert_allclose(rows_of("logit_matching", *given, **fields).numpy(), expected)


def test_its_property_holds() -> None:
    property_of = defined(PROPERTY)["test_logit_matching_is_distillation_at_a_high_temperature"]
    property_of(random_logits(6, 5))
