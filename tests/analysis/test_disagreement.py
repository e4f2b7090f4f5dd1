import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.disagreement import (
    disagreement,
    disagreement_by_class,
    disagreement_matrix,
    disagreement_over_seeds,
)

LABELS = [0, 0, 1, 1, 1, 1]


def table(predictions):
    return pd.DataFrame({"id": range(6), "label": LABELS, "prediction": predictions})


A, B = table([0, 1, 1, 1, 2, 0]), table([0, 0, 1, 2, 1, 0])


def test_disagreement_is_counted_per_true_class():
    result = disagreement_by_class(A, B, n_classes=3)
    assert result["disagreements"].tolist() == [1, 2, 0]
    np.testing.assert_array_equal(result["disagreement"], [0.5, 0.5, np.nan])
    assert disagreement(A, B) == 0.5


def test_matrix_is_predicted_by_predicted_without_its_diagonal():
    matrix = disagreement_matrix(A, B)
    assert matrix.to_numpy().tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 0]]
    assert matrix.to_numpy().sum() == disagreement_by_class(A, B)["disagreements"].sum()


def test_same_seed_pairs_are_kept_apart_from_other_seeds():
    result = disagreement_over_seeds([A, B], [A, B])
    assert result["same_seed"].tolist() == [0.0, 0.0]
    assert result["other_seed"].tolist() == [0.5, 0.5]
    assert result["baseline_a"].tolist() == result["baseline_b"].tolist() == [0.5, 0.5]


def test_arms_of_different_size_are_compared_over_all_pairs():
    result = disagreement_over_seeds([A], [A, B])
    assert result["same_seed"].isna().all()
    assert result["other_seed"].tolist() == [0.25, 0.25]
    assert result["baseline_a"].isna().all()


def test_other_examples_are_refused():
    with pytest.raises(ValueError, match="different examples"):
        disagreement(A, B.assign(id=range(1, 7)))
