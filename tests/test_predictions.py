"""The prediction table: one schema, kept to the last bit."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kdplatform import predictions
from kdplatform.data import Split
from kdplatform.errors import DivergedError, UserError
from kdplatform.predictions import RESERVED, Predictions

LOGITS = torch.tensor([[0.1, -2.0, 3.0], [1.5, 1.0, -1.0], [0.0, 1e-30, -7.0], [2.0, 2.0, 1.0]])


@pytest.fixture
def table() -> Predictions:
    # An index that is not 0, 1, 2, ...: rows belong together by position.
    columns = pd.DataFrame({"color": ["red", "blue", "red", "blue"]}, index=[7, 5, 3, 1])
    split = Split(
        inputs=torch.zeros(4, 1, 2, 2, dtype=torch.uint8),
        labels=torch.tensor([2, 1, 1, 0]),
        ids=np.array([40, 41, 42, 43]),
        columns=columns,
    )
    return Predictions.from_logits(split, LOGITS)


def test_the_file_has_the_schema_and_the_attributes_behind_it(
    table: Predictions, tmp_path: Path
) -> None:
    table.write(tmp_path / "test.parquet")
    frame = pd.read_parquet(tmp_path / "test.parquet")
    assert list(frame.columns) == [*RESERVED, "color"]
    assert list(frame["id"]) == [40, 41, 42, 43]
    assert list(frame["label"]) == [2, 1, 1, 0]
    assert list(frame["color"]) == ["red", "blue", "red", "blue"]


def test_the_prediction_is_the_largest_logit_and_the_first_of_equals(table: Predictions) -> None:
    assert list(table.predictions) == [2, 0, 1, 0]


def test_a_written_table_comes_back_bit_for_bit(table: Predictions, tmp_path: Path) -> None:
    table.write(tmp_path / "test.parquet")
    read = Predictions.read(tmp_path / "test.parquet")
    np.testing.assert_array_equal(read.logits, LOGITS.numpy())
    for name in ("ids", "labels", "predictions"):
        np.testing.assert_array_equal(getattr(read, name), getattr(table, name))
    pd.testing.assert_frame_equal(read.columns, table.columns)


def test_logits_are_kept_in_single_precision(table: Predictions, tmp_path: Path) -> None:
    table.write(tmp_path / "test.parquet")
    assert str(pq.read_schema(tmp_path / "test.parquet").field("logits").type) == (
        "fixed_size_list<element: float>[3]"
    )
    assert Predictions.read(tmp_path / "test.parquet").logits.dtype == np.float32


def test_a_file_need_not_have_logits(table: Predictions, tmp_path: Path) -> None:
    replace(table, logits=None).write(tmp_path / "test.parquet")
    assert Predictions.read(tmp_path / "test.parquet").logits is None


def test_rows_are_brought_into_the_order_of_another_table(table: Predictions) -> None:
    frame = pd.DataFrame(
        {"id": [43, 41, 40, 42], "label": [0, 1, 2, 1], "prediction": [0, 1, 2, 3]}
    )
    own = Predictions.of(
        frame.assign(logits=list(2 * np.eye(4, dtype=np.float32)), size=list("dbac"))
    )
    found = own.aligned(table)
    assert found.predictions.tolist() == [2, 1, 3, 0]
    assert found.columns["size"].tolist() == list("abcd")
    assert found.logits.argmax(axis=1).tolist() == [2, 1, 3, 0]


def test_half_precision_and_gradients_make_no_difference() -> None:
    split = Split(
        torch.zeros(1, 1, 2, 2), torch.tensor([0]), np.array([0]), pd.DataFrame(index=range(1))
    )
    logits = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    table = Predictions.from_logits(split, logits)
    assert table.logits.dtype == np.float32
    assert table.predictions.tolist() == [1]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_model_that_predicts_no_numbers_is_refused(value: float) -> None:
    split = Split(
        torch.zeros(1, 1, 2, 2), torch.tensor([0]), np.array([0]), pd.DataFrame(index=range(1))
    )
    with pytest.raises(DivergedError, match="NaN or infinite"):
        Predictions.from_logits(split, torch.tensor([[0.0, value]]))


# ---- what is no prediction table


def rows(**columns):
    return pd.DataFrame({"id": [3, 1, 2], "label": [0, 1, 2], "prediction": [0, 1, 1]} | columns)


def of(**columns):
    return Predictions.of(rows(**columns))


def test_what_is_checked_is_not_checked_again():
    checked = of()
    assert Predictions.of(checked) is checked


def test_classes_without_a_logit_are_refused():
    with pytest.raises(ValueError, match="class 2 has no logit; allowed: 0 to 1"):
        of(logits=[[0.0, 1.0]] * 3)


def test_tables_of_different_examples_are_refused_with_both_digests():
    first, second = rows(), rows(id=[3, 1, 4])
    with pytest.raises(ValueError, match="different examples") as caught:
        Predictions.of(second).aligned(Predictions.of(first))
    assert Predictions.of(first).digest in str(caught.value)
    assert Predictions.of(second).digest in str(caught.value)


def test_tables_that_disagree_on_labels_are_refused():
    with pytest.raises(ValueError, match="disagree on labels"):
        of(label=[0, 1, 1]).aligned(of())


def test_digest_depends_on_ids_and_labels_but_not_on_row_order():
    assert of().digest == Predictions.of(rows().iloc[::-1]).digest
    assert of().digest != of(label=[0, 1, 1]).digest


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (rows(id=[1, 1, 2]), "id 1 occurs more than once"),
        (rows(id=[1, np.nan, 2]), "column 'id' has missing values"),
        (rows(label=[0.0, 1.0, 2.0]), "column 'label' has type float64"),
        (rows(prediction=[0, -1, 1]), "column 'prediction' holds -1"),
        (rows(label=[0, 1, 10**9]), "column 'label' holds 1000000000"),
        (rows(label=pd.array([0, 1, None], dtype="Int64")), "'label' has no value in row 3"),
        (rows(id=[1, "a", 2]), "column 'id' holds values of several types"),
        (rows().drop(columns="prediction"), "lacks column 'prediction'"),
        (
            rows().rename(columns={"id": "image", "label": "y"}),
            "lacks columns 'id', 'label'; it has .*; rename those that hold them",
        ),
        (rows().iloc[:0], "has 0 rows"),
    ],
)
def test_bad_tables_are_refused_with_the_column_and_value(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        Predictions.of(bad)
    assert "\n" not in str(caught.value)


ROWS = [[0.5, 1.5, 0.0], [2.5, -1.0, 0.0], [0.0, 3.0, 0.0]]


def arrow_lists(values):
    return pd.Series(values, dtype=pd.ArrowDtype(pa.list_(pa.float32())))


@pytest.mark.parametrize(
    "column",
    [
        ROWS,
        [np.array(row, dtype=np.float32) for row in ROWS],
        arrow_lists(ROWS),
    ],
    ids=["lists", "arrays", "arrow"],
)
def test_logits_become_a_float32_matrix(column):
    matrix = of(prediction=[1, 0, 1], logits=column).logits
    assert matrix.dtype == np.float32
    assert matrix.tolist() == ROWS


@pytest.mark.parametrize("wrap", [list, arrow_lists], ids=["lists", "arrow"])
@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([[0.0, 1.0], [np.nan, 1.0], [0.0, 1.0]], "row 1 are not finite"),
        ([[0.0, 1.0], [0.0, 1.0], [np.inf, 1.0]], "row 2 are not finite"),
        ([[0.0, 1.0], [0.0], [0.0, 1.0]], "lengths"),
        ([[0.0], [1.0], [2.0]], "lengths"),
        ([[0.0, 1.0], None, [0.0, 1.0]], "missing values"),
    ],
)
def test_bad_logits_are_refused(wrap, logits, message):
    with pytest.raises(ValueError, match=message):
        of(logits=wrap(logits))


def test_logits_of_a_csv_file_are_read_from_their_texts() -> None:
    table = pd.DataFrame({"id": [0, 1], "label": [0, 1], "prediction": [0, 1]})
    texts = table.assign(logits=["[0.5, -0.5]", "[-1, 2]"])
    logits = Predictions.of(texts).logits
    assert logits is not None
    assert logits.tolist() == [[0.5, -0.5], [-1.0, 2.0]]
    with pytest.raises(
        ValueError, match=r"logits '0\.5 -0\.5' are not a list of numbers; allowed: "
    ):
        Predictions.of(table.assign(logits="0.5 -0.5"))


@pytest.mark.parametrize("cell", [0.5, {"a": 1.0}, [[0.5], [1.0]]])
def test_logits_that_are_no_lists_of_numbers_are_refused(cell: object) -> None:
    with pytest.raises(ValueError, match=r"column 'logits' holds .* allowed: lists of numbers"):
        of(logits=[cell] * 3)


def test_logits_in_another_order_of_classes_are_refused() -> None:
    logits = np.asarray(ROWS)
    swapped = of(prediction=logits.argmax(axis=1), logits=logits.tolist())
    assert swapped.n_classes == 3
    with pytest.raises(
        ValueError,
        match="id 3: the largest of 3 logits is that of class 0, the prediction is 1, so",
    ):
        of(prediction=logits.argmax(axis=1), logits=logits[:, [1, 0, 2]].tolist())


def test_equal_logits_may_have_either_prediction() -> None:
    assert of(prediction=[0, 1, 0], logits=[[2.0, 2.0, 1.0]] * 3).n_classes == 3


@pytest.mark.parametrize("digits", [2, 7])
def test_probabilities_are_no_logits(digits: int) -> None:
    odds = np.array([[0.6, 0.3, 0.1], [0.1, 0.85, 0.05], [0.333333, 0.333333, 0.333334]])
    table = {"prediction": odds.argmax(axis=1), "logits": odds.round(digits).tolist()}
    with pytest.raises(ValueError, match="they are probabilities; allowed: logits"):
        of(**table)
    logarithms = np.log(odds)
    assert of(**table | {"logits": logarithms.tolist()}).n_classes == 3


def test_a_model_that_returns_probabilities_is_refused() -> None:
    split = Split(torch.zeros(2, 1), torch.tensor([0, 1]), np.arange(2), pd.DataFrame(index=[0, 1]))
    with pytest.raises(UserError, match="allowed: a model without softmax"):
        Predictions.from_logits(split, torch.tensor([[0.9, 0.1], [0.2, 0.8]]))


def test_logits_are_written_and_read_some_rows_at_a_time(
    table: Predictions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert table.logits is not None
    table.write(tmp_path / "whole.parquet")
    monkeypatch.setattr(predictions, "_LOGITS_AT_ONCE", 2 * table.n_classes)
    table.write(tmp_path / "parts.parquet")
    groups = [
        pq.ParquetFile(tmp_path / f"{name}.parquet").num_row_groups for name in ("whole", "parts")
    ]
    assert groups == [1, -(-len(table) // 2)]
    for name in ("whole", "parts"):
        read = Predictions.read(tmp_path / f"{name}.parquet")
        assert read.logits is not None
        assert read.logits.tobytes() == table.logits.tobytes()


def test_a_bad_row_is_named_by_its_place_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_LOGITS_AT_ONCE", 4)
    for name, logits, message in (
        ("nan", [[1.0, 0.0]] * 6 + [[np.nan, 0.0]], "logits of row 6 are not finite"),
        ("ragged", [[1.0, 0.0]] * 6 + [[1.0, 0.0, 0.0]], r"lengths \[2, 3\]"),
    ):
        frame = pd.DataFrame({"id": range(7), "label": 0, "prediction": 0, "logits": logits})
        frame.to_parquet(tmp_path / f"{name}.parquet")
        with pytest.raises(ValueError, match=message):
            Predictions.read(tmp_path / f"{name}.parquet")


def test_a_table_without_predictions_names_its_logits_among_the_columns():
    table = pd.DataFrame({"id": ["a"], "label": [0], "logits": [[0.5, -0.5]]})
    with pytest.raises(ValueError, match=r"'prediction'; it has \['id', 'label', 'logits'\]"):
        Predictions.of(table)
