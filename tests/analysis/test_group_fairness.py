import warnings

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_difference,
    equalized_odds_difference,
    selection_rate,
    true_positive_rate,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdplatform.analysis.group_fairness import fairness_metrics, group_table, rates_by_class
from kdplatform.analysis.tables import attribute_groups


def table(labels, predictions, groups, **columns):
    ids = range(len(labels))
    data = {"id": ids, "label": labels, "prediction": predictions, "color": groups}
    return pd.DataFrame(data | columns)


@st.composite
def binary_tables(draw):
    """Random tables of 2 to 4 groups and 4 to 40 rows, every group with both labels."""
    n_groups = draw(st.integers(2, 4))
    content = draw(st.binary(min_size=2 * n_groups, max_size=40))  # cheaper than a list of integers
    every_pair = [2 * pair + content[pair] % 2 for pair in range(2 * n_groups)]
    cells = every_pair + [byte % (4 * n_groups) for byte in content[2 * n_groups :]]
    predictions = [cell % 2 for cell in cells]
    labels = [cell // 2 % 2 for cell in cells]
    groups = ["abcd"[cell // 4] for cell in cells]
    return labels, predictions, groups


def rates_spread(labels, predictions, groups, label=None):
    """Spread over groups of fairlearn's selection rate, among the examples of a label."""
    labels, predictions, groups = map(np.asarray, (labels, predictions, groups))
    kept = np.ones(len(labels), dtype=bool) if label is None else labels == label
    rates = [
        selection_rate(labels[kept & (groups == g)], predictions[kept & (groups == g)])
        for g in np.unique(groups)
    ]
    return max(rates) - min(rates)


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(binary_tables())
def test_metrics_equal_spreads_of_fairlearns_rates_on_thousands_of_tables(data):
    ours = fairness_metrics(table(*data), "color", min_group_size=1)
    tpr, fpr = rates_spread(*data, label=1), rates_spread(*data, label=0)
    assert ours.dpd == pytest.approx(rates_spread(*data), abs=1e-12)
    assert ours.tpr_difference == pytest.approx(tpr, abs=1e-12)
    assert ours.fpr_difference == pytest.approx(fpr, abs=1e-12)
    assert ours.eod == pytest.approx(max(tpr, fpr), abs=1e-12)


# fairlearn needs tens of milliseconds per metric, so its own DPD and EOD see fewer tables
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(binary_tables())
def test_binary_metrics_equal_fairlearn(data):
    labels, predictions, groups = data
    ours = fairness_metrics(table(*data), "color", min_group_size=1)
    arguments = {"y_true": labels, "y_pred": predictions, "sensitive_features": groups}
    assert ours.dpd == pytest.approx(demographic_parity_difference(**arguments), abs=1e-12)
    assert ours.eod == pytest.approx(equalized_odds_difference(**arguments), abs=1e-12)
    assert ours.dpd_max == ours.dpd
    assert ours.note == ""


@pytest.mark.parametrize(("seed", "classes"), [(0, 3), (1, 3), (2, 3), (3, 6)])
def test_multi_class_metrics_equal_fairlearn_one_vs_rest(seed, classes):
    rng = np.random.default_rng(seed)
    labels, predictions = rng.integers(0, classes, (2, 150 * classes))
    groups = rng.choice(list("abc"), len(labels), p=[0.2, 0.3, 0.5])
    ours = fairness_metrics(table(labels, predictions, groups), "color", min_group_size=1)
    dpd, eod = [], []
    for c in range(classes):
        arguments = (labels == c, predictions == c)
        dpd.append(demographic_parity_difference(*arguments, sensitive_features=groups))
        eod.append(equalized_odds_difference(*arguments, sensitive_features=groups))
    assert (ours.dpd, ours.dpd_max) == pytest.approx((np.mean(dpd), max(dpd)))
    assert (ours.eod, ours.eod_max) == pytest.approx((np.mean(eod), max(eod)))


def test_group_table_equals_fairlearns_metric_frame():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, (2, 300))
    groups = rng.choice(list("abc"), 300)
    frame = MetricFrame(
        metrics={"selection_rate": selection_rate, "tpr": true_positive_rate},
        y_true=labels,
        y_pred=predictions,
        sensitive_features=groups,
    ).by_group
    ours = group_table(table(labels, predictions, groups), "color").set_index("group")
    np.testing.assert_allclose(ours[frame.columns], frame)
    assert ours["n"].sum() == 300
    assert ours["share"].sum() == pytest.approx(1.0)


def test_perfect_model_has_eod_zero_when_a_group_has_no_positives():
    labels, groups = [0, 1, 0, 1, 0, 0], ["a", "a", "b", "b", "c", "c"]
    ours = fairness_metrics(table(labels, labels, groups), "color", min_group_size=1)
    assert ours.eod == 0.0
    assert ours.note == "TPR leaves out c (no positives)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trap = equalized_odds_difference(labels, labels, sensitive_features=groups)
    assert trap == 1.0  # the reason the group is left out here


def test_eod_is_undefined_when_one_group_has_positives():
    ours = fairness_metrics(
        table([0, 1, 0, 0], [0, 1, 0, 1], ["a", "a", "b", "b"]), "color", min_group_size=1
    )
    assert np.isnan(ours.eod)
    assert np.isnan(ours.tpr_difference)
    assert ours.fpr_difference == 0.5
    assert ours.dpd == 0.0


def test_classes_without_a_defined_eod_are_left_out_of_the_mean():
    # class 2 occurs in group a alone, so it has no TPR difference; classes 0 and 1 are perfect
    labels, groups = [0, 1, 2, 0, 1], ["a", "a", "a", "b", "b"]
    ours = fairness_metrics(table(labels, labels, groups), "color", min_group_size=1)
    assert ours.eod == 0.0
    assert ours.classes == 3
    assert ours.note == "TPR leaves out b in 1 of 3 classes (no positives)"


def test_one_group_has_no_differences():
    ours = fairness_metrics(table([0, 1], [0, 1], ["a", "a"]), "color", min_group_size=1)
    assert np.isnan([ours.dpd, ours.eod, ours.accuracy_gap]).all()
    assert ours.worst_group_accuracy == 1.0
    assert "one group only" in ours.note


def test_examples_without_a_group_are_excluded_and_counted():
    ours = fairness_metrics(
        table([0, 1, 1], [0, 1, 0], ["a", "b", None]), "color", min_group_size=1
    )
    assert (ours.n, ours.excluded, ours.groups) == (2, 1, 2)
    assert ours.note.endswith("1 of 3 examples are in no group")
    assert ours.worst_group_accuracy == 1.0


def test_equal_predictions_for_all_give_no_differences_except_accuracy():
    ours = fairness_metrics(
        table([0, 1, 1, 1], [1] * 4, ["a", "a", "b", "b"]), "color", min_group_size=1
    )
    assert ours.dpd == 0.0
    assert (ours.worst_group, ours.worst_group_accuracy, ours.accuracy_gap) == ("a", 0.5, 0.5)


def test_a_group_of_one_example_is_shown_by_its_size():
    ours = fairness_metrics(table([0, 1, 1], [0, 1, 0], ["a", "a", "b"]), "color", min_group_size=1)
    assert ours.smallest_group == 1
    assert ours.worst_group_accuracy == 0.0


def test_intersection_is_measured_like_an_attribute_of_its_own():
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 2, (2, 400))
    color, texture = rng.choice(list("ab"), 400), rng.choice(list("xy"), 400)
    data = table(labels, predictions, color, texture=texture)
    joined = [f"{c} & {t}" for c, t in zip(color, texture, strict=True)]
    ours = fairness_metrics(data, ["color", "texture"], min_group_size=1)
    assert ours.attribute == "color & texture"
    assert ours.eod == pytest.approx(
        equalized_odds_difference(labels, predictions, sensitive_features=joined)
    )
    assert attribute_groups(data, ["color", "texture"]).names == tuple(sorted(set(joined)))


def test_rates_by_class_are_the_one_vs_rest_rates():
    labels, predictions = [0, 1, 2, 2], [0, 1, 2, 1]
    rates = rates_by_class(
        table(labels, predictions, ["a", "a", "b", "b"]), "color", min_group_size=1
    )
    row = rates[(rates["class"] == 1) & (rates["group"] == "b")].iloc[0]
    assert (row["positives"], row["selection_rate"], row["fpr"]) == (0, 0.5, 0.5)
    assert np.isnan(row["tpr"])
