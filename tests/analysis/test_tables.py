import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.tables import (
    align_table,
    attribute_groups,
    check_table,
    examples_digest,
    logits_matrix,
    stack_tables,
)


def table(**columns):
    return pd.DataFrame({"id": [3, 1, 2], "label": [0, 1, 2], "prediction": [0, 1, 1]} | columns)


def test_tables_in_another_row_order_are_aligned_by_id():
    first, second = table(), table(prediction=[2, 0, 1]).iloc[[2, 0, 1]]
    stack = stack_tables([first, second])
    assert stack.ids.tolist() == [3, 1, 2]
    assert stack.predictions.tolist() == [[0, 1, 1], [2, 0, 1]]
    assert align_table(second, first)["prediction"].tolist() == [2, 0, 1]


def test_ids_may_be_strings():
    stack = stack_tables([table(id=["a", "b", "c"]), table(id=["b", "a", "c"], label=[1, 0, 2])])
    assert stack.predictions.tolist() == [[0, 1, 1], [1, 0, 1]]


def test_tables_of_different_examples_are_refused_with_both_digests():
    first, second = table(), table(id=[3, 1, 4])
    with pytest.raises(ValueError, match="different examples") as caught:
        stack_tables([first, second])
    assert examples_digest(first) in str(caught.value)
    assert examples_digest(second) in str(caught.value)


def test_tables_that_disagree_on_labels_are_refused():
    with pytest.raises(ValueError, match="disagree on labels"):
        stack_tables([table(), table(label=[0, 1, 1])])


def test_digest_depends_on_ids_and_labels_but_not_on_row_order():
    assert examples_digest(table()) == examples_digest(table().iloc[::-1])
    assert examples_digest(table()) != examples_digest(table(label=[0, 1, 1]))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (table(id=[1, 1, 2]), "id 1 occurs more than once"),
        (table(id=[1, np.nan, 2]), "column 'id' has missing values"),
        (table(label=[0.0, 1.0, 2.0]), "column 'label' has type float64"),
        (table(prediction=[0, -1, 1]), "column 'prediction' holds -1"),
        (table(label=[0, 1, 10**9]), "column 'label' holds 1000000000"),
        (table(label=pd.array([0, 1, None], dtype="Int64")), "'label' has no value in row 3"),
        (table(id=[1, "a", 2]), "column 'id' holds values of several types"),
        (table().drop(columns="prediction"), "lacks column 'prediction'"),
        (table().iloc[:0], "has 0 rows"),
    ],
)
def test_bad_tables_are_refused_with_the_column_and_value(bad, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_table(bad)
    assert "\n" not in str(caught.value)


def test_bad_second_table_is_refused_like_the_first():
    with pytest.raises(ValueError, match="id 1 occurs more than once"):
        stack_tables([table(), table(id=[1, 1, 2])])


ROWS = [[0.5, 1.5], [2.5, -1.0], [0.0, 3.0]]


def arrow_lists(rows):
    import pyarrow as pa

    return pd.Series(rows, dtype=pd.ArrowDtype(pa.list_(pa.float32())))


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
    matrix = logits_matrix(table(logits=column))
    assert matrix.dtype == np.float32
    assert matrix.tolist() == ROWS


@pytest.mark.parametrize("wrap", [list, arrow_lists], ids=["lists", "arrow"])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[0.0, 1.0], [np.nan, 1.0], [0.0, 1.0]], "row 1 are not finite"),
        ([[0.0, 1.0], [0.0, 1.0], [np.inf, 1.0]], "row 2 are not finite"),
        ([[0.0, 1.0], [0.0], [0.0, 1.0]], "lengths"),
        ([[0.0], [1.0], [2.0]], "lengths"),
        ([[0.0, 1.0], None, [0.0, 1.0]], "missing values"),
    ],
)
def test_bad_logits_are_refused(wrap, rows, message):
    with pytest.raises(ValueError, match=message):
        logits_matrix(table(logits=wrap(rows)))


def test_missing_attribute_values_belong_to_no_group():
    groups = attribute_groups(table(color=["red", None, "blue"]), "color")
    assert groups.names == ("blue", "red")
    assert groups.codes.tolist() == [1, -1, 0]


def test_categories_without_examples_are_not_groups():
    column = pd.Categorical(["red", "red", "blue"], categories=["blue", "green", "red"])
    assert attribute_groups(table(color=column), "color").names == ("blue", "red")


def test_intersection_needs_a_group_in_every_attribute():
    data = table(color=["red", "red", "blue"], texture=["dots", None, "grid"])
    groups = attribute_groups(data, ["color", "texture"])
    assert groups.attribute == "color & texture"
    assert groups.names == ("blue & grid", "red & dots")
    assert groups.codes.tolist() == [1, -1, 0]


@pytest.mark.parametrize("attribute", ["colour", "label", [], ["color", "nothing"]])
def test_unknown_attributes_are_refused(attribute):
    with pytest.raises(ValueError, match="allowed"):
        attribute_groups(table(color=["red", "red", "blue"]), attribute)


def test_attribute_without_any_group_is_refused():
    with pytest.raises(ValueError, match="has no group"):
        attribute_groups(table(color=[None, None, None]), "color")
