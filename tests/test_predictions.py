"""The prediction table: one schema, kept to the last bit."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from kdplatform.data import Split
from kdplatform.errors import DivergedError
from kdplatform.predictions import COLUMNS, load_predictions, prediction_table, save_predictions

LOGITS = torch.tensor([[0.1, -2.0, 3.0], [1.5, 1.0, -1.0], [0.0, 1e-30, -7.0], [2.0, 2.0, 1.0]])


@pytest.fixture
def table() -> pd.DataFrame:
    # An index that is not 0, 1, 2, ...: rows belong together by position.
    columns = pd.DataFrame({"color": ["red", "blue", "red", "blue"]}, index=[7, 5, 3, 1])
    split = Split(
        inputs=torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        labels=torch.tensor([2, 1, 1, 0]),
        ids=np.array([40, 41, 42, 43]),
        columns=columns,
    )
    return prediction_table(split, LOGITS)


def test_the_table_has_the_schema_and_the_attributes_behind_it(table: pd.DataFrame) -> None:
    assert list(table.columns) == [*COLUMNS, "color"]
    assert list(table["id"]) == [40, 41, 42, 43]
    assert list(table["label"]) == [2, 1, 1, 0]
    assert list(table["color"]) == ["red", "blue", "red", "blue"]


def test_the_prediction_is_the_largest_logit_and_the_first_of_equals(table: pd.DataFrame) -> None:
    assert list(table["prediction"]) == [2, 0, 1, 0]


def test_a_saved_table_comes_back_bit_for_bit(table: pd.DataFrame, tmp_path: Path) -> None:
    save_predictions(tmp_path / "test.parquet", table)
    loaded = load_predictions(tmp_path / "test.parquet")
    np.testing.assert_array_equal(np.stack(loaded["logits"].to_list()), LOGITS.numpy())
    pd.testing.assert_frame_equal(
        loaded.drop(columns="logits"), table.drop(columns="logits"), check_dtype=True
    )


def test_logits_are_kept_in_single_precision(table: pd.DataFrame, tmp_path: Path) -> None:
    save_predictions(tmp_path / "test.parquet", table)
    assert str(pq.read_schema(tmp_path / "test.parquet").field("logits").type) == (
        "fixed_size_list<element: float>[3]"
    )
    assert load_predictions(tmp_path / "test.parquet")["logits"][0].dtype == np.float32


def test_half_precision_and_gradients_make_no_difference() -> None:
    split = Split(
        torch.zeros(1, 1, 2, 2), torch.tensor([0]), np.array([0]), pd.DataFrame(index=range(1))
    )
    logits = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    row = prediction_table(split, logits).iloc[0]
    assert row["logits"].dtype == np.float32
    assert row["prediction"] == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_that_predicts_no_numbers_is_refused(value: float) -> None:
    split = Split(
        torch.zeros(1, 1, 2, 2), torch.tensor([0]), np.array([0]), pd.DataFrame(index=range(1))
    )
    with pytest.raises(DivergedError, match="NaN or infinite"):
        prediction_table(split, torch.tensor([[0.0, value]]))
