import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.classwise import (
    arm_accuracies,
    check_same_examples,
    class_table,
    class_table_over_seeds,
    worst_class,
)
from kdplatform.predictions import Predictions

LABELS = [0, 0, 0, 0, 1, 1, 3, 3]


def table(predictions, ids=None):
    ids = range(len(LABELS)) if ids is None else ids
    return pd.DataFrame({"id": ids, "label": LABELS, "prediction": predictions})


def test_class_table_counts_examples_predictions_and_hits():
    result = class_table(table([0, 0, 0, 1, 1, 0, 3, 3]))
    assert result["n"].tolist() == [4, 2, 0, 2]
    assert result["predicted"].tolist() == [4, 2, 0, 2]
    np.testing.assert_array_equal(result["accuracy"], [0.75, 0.5, np.nan, 1.0])


def test_absent_and_never_predicted_classes_are_named():
    result = class_table(table([0] * 8), n_classes=5)
    assert result["note"].tolist() == ["", "never predicted", "absent", "never predicted", "absent"]
    assert result["accuracy"].iloc[1] == 0.0


def test_class_predicted_beyond_the_labels_gets_a_row():
    assert class_table(table([0, 0, 0, 0, 1, 1, 3, 6]))["n"].tolist() == [4, 2, 0, 2, 0, 0, 0]


def test_too_few_classes_are_refused():
    with pytest.raises(ValueError, match="n_classes is 3; allowed: at least 4"):
        class_table(table([0] * 8), n_classes=3)


def test_overall_and_worst_class():
    predictions = [0, 0, 0, 1, 1, 0, 3, 3]
    assert Predictions.of(table(predictions)).accuracy == 6 / 8
    assert worst_class(table(predictions)) == (1, 0.5, 2)


def test_arm_holds_one_row_of_accuracies_per_seed():
    arm = arm_accuracies([table(LABELS), table([0] * 8)])
    np.testing.assert_array_equal(arm.accuracy, [[1, 1, np.nan, 1], [1, 0, np.nan, 0]])
    assert arm.overall.tolist() == [1.0, 0.5]


def test_arms_on_other_examples_are_refused_and_reordered_ones_are_not():
    arm = arm_accuracies([table(LABELS)])
    check_same_examples(arm, arm_accuracies([table(LABELS).iloc[::-1]]))
    with pytest.raises(ValueError, match="different examples: digest"):
        check_same_examples(arm, arm_accuracies([table(LABELS, ids=range(1, 9))]))


def test_table_over_seeds_gives_mean_sd_and_relative_accuracy():
    result = class_table_over_seeds([table(LABELS), table([0] * 8)])
    assert result["accuracy"].iloc[1] == 0.5
    assert result["accuracy_sd"].iloc[1] == pytest.approx(np.sqrt(0.5))
    assert result["relative_accuracy"].iloc[0] == pytest.approx((1 / 1 + 1 / 0.5) / 2)


def test_one_seed_has_no_deviation():
    assert class_table_over_seeds([table(LABELS)])["accuracy_sd"].isna().all()
