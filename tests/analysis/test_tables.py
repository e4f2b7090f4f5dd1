import pandas as pd
import pytest

from kdplatform.analysis.tables import attribute_groups, stack_tables


def table(**columns):
    return pd.DataFrame({"id": [3, 1, 2], "label": [0, 1, 2], "prediction": [0, 1, 1]} | columns)


def test_tables_in_another_row_order_are_aligned_by_id():
    first, second = table(), table(prediction=[2, 0, 1]).iloc[[2, 0, 1]]
    stack = stack_tables([first, second])
    assert stack.reference.ids.tolist() == [3, 1, 2]
    assert stack.predictions.tolist() == [[0, 1, 1], [2, 0, 1]]


def test_ids_may_be_strings():
    stack = stack_tables([table(id=["a", "b", "c"]), table(id=["b", "a", "c"], label=[1, 0, 2])])
    assert stack.predictions.tolist() == [[0, 1, 1], [1, 0, 1]]


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
