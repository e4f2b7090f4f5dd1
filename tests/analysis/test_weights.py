"""Weights of examples: every rate counts them as fairlearn and scikit-learn do."""

from dataclasses import replace

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

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.calibration import calibration, expected_calibration_error
from kdplatform.analysis.classwise import arm_accuracies, class_table
from kdplatform.analysis.disagreement import (
    disagreement,
    disagreement_by_class,
    disagreement_over_seeds,
)
from kdplatform.analysis.group_fairness import fairness_metrics, group_table
from kdplatform.analysis.group_shifts import group_shifts
from kdplatform.analysis.intervals import mean_of_examples, mean_of_seeds_and_examples
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.significance import mcnemar_by_class
from kdplatform.predictions import Predictions
from kdplatform.study.evidence import accuracy_change

N = 400


def model(seed: int = 0, *, weights: np.ndarray | None = None) -> Predictions:
    """Predictions of two classes in three groups, with logits."""
    shared, own = np.random.default_rng(9), np.random.default_rng(seed)
    labels = shared.integers(0, 2, N)
    groups = shared.choice(list("abc"), N)
    logits = own.normal(size=(N, 2)) + np.eye(2)[labels]
    table = pd.DataFrame(
        {
            "id": range(N),
            "label": labels,
            "prediction": logits.argmax(axis=1),
            "group": groups,
            "logits": list(logits.astype(np.float32)),
        }
    )
    return replace(Predictions.of(table), weights=weights)


WEIGHTS = np.random.default_rng(5).uniform(0, 3, N)
WHOLE = np.random.default_rng(6).integers(0, 4, N).astype(float)


def repeated(seed: int) -> Predictions:
    """The same examples, each as often as its whole weight says."""
    one = model(seed)
    rows = np.repeat(np.arange(N), WHOLE.astype(int))
    assert one.logits is not None
    return Predictions(
        np.arange(len(rows)),
        one.labels[rows],
        one.predictions[rows],
        one.logits[rows],
        one.columns.iloc[rows].reset_index(drop=True),
    )


def test_metrics_equal_fairlearns_with_sample_weights() -> None:
    one = model(weights=WEIGHTS)
    ours = fairness_metrics(one, "group", min_group_size=1)
    arguments = {
        "y_true": one.labels,
        "y_pred": one.predictions,
        "sensitive_features": one.columns["group"],
    }
    weights = {"sample_weight": WEIGHTS}
    assert ours.dpd == pytest.approx(demographic_parity_difference(**arguments, **weights))
    assert ours.eod == pytest.approx(equalized_odds_difference(**arguments, **weights))
    metrics = {"selection_rate": selection_rate, "tpr": true_positive_rate}
    frame = MetricFrame(
        metrics=metrics, **arguments, sample_params=dict.fromkeys(metrics, weights)
    ).by_group
    table = group_table(one, "group").set_index("group")
    np.testing.assert_allclose(table[frame.columns], frame)
    # Sizes are numbers of examples, whatever they weigh.
    assert table["n"].tolist() == one.columns["group"].value_counts()[list("abc")].tolist()


def test_whole_weights_are_repeated_examples() -> None:
    one, other = model(0, weights=WHOLE), model(1, weights=WHOLE)
    first, second = repeated(0), repeated(1)
    assert one.accuracy == pytest.approx(first.accuracy)
    np.testing.assert_allclose(class_table(one)["accuracy"], class_table(first)["accuracy"])
    arms = arm_accuracies([one, other]), arm_accuracies([first, second])
    np.testing.assert_allclose(arms[0].accuracy, arms[1].accuracy)
    np.testing.assert_allclose(arms[0].overall, arms[1].overall)
    assert disagreement(one, other) == pytest.approx(disagreement(first, second))
    np.testing.assert_allclose(
        disagreement_by_class(one, other)["disagreement"],
        disagreement_by_class(first, second)["disagreement"],
    )
    columns = ["same_seed", "other_seed"]
    np.testing.assert_allclose(
        disagreement_over_seeds([one, other], [other, one])[columns],
        disagreement_over_seeds([first, second], [second, first])[columns],
    )
    scores, expected = calibration(one), calibration(first)
    assert (scores.brier, scores.nll) == pytest.approx((expected.brier, expected.nll))
    boot = bootstrap_fairness({"m": [one]}, "group", draws=2, min_group_size=1)
    again = bootstrap_fairness({"m": [first]}, "group", draws=2, min_group_size=1)
    for metric in ("dpd", "eod", "worst_group_accuracy"):
        assert boot.interval("m", metric).estimate == pytest.approx(
            again.interval("m", metric).estimate
        )


def test_equal_weights_change_nothing() -> None:
    same = np.full(N, 2.5)
    plain, weighted = model(), model(weights=same)
    assert fairness_metrics(plain, "group") == fairness_metrics(weighted, "group")
    assert calibration(plain) == pytest.approx(calibration(weighted))
    pd.testing.assert_frame_equal(
        parity_null({"m": [plain]}, "group", permutations=20),
        parity_null({"m": [weighted]}, "group", permutations=20),
    )
    boots = [bootstrap_fairness({"m": [each]}, "group", draws=50) for each in (plain, weighted)]
    pd.testing.assert_frame_equal(boots[0].table(), boots[1].table())


def test_unequal_weights_widen_the_interval_as_fewer_examples_would() -> None:
    differences = np.random.default_rng(0).choice([-1.0, 0.0, 1.0], (2, N))
    plain, weighted = (mean_of_examples(differences[0], w) for w in (None, WEIGHTS**3))
    assert weighted.estimate == pytest.approx(np.average(differences[0], weights=WEIGHTS**3))
    effective = (WEIGHTS**3).sum() ** 2 / (WEIGHTS**6).sum()
    ratio = (weighted.high - weighted.low) / (plain.high - plain.low)
    assert ratio == pytest.approx(np.sqrt(N / effective), rel=0.1)
    both = mean_of_seeds_and_examples(differences, np.ones(N))
    assert both == pytest.approx(mean_of_seeds_and_examples(differences))
    assert np.isnan(mean_of_examples(np.ones(N), WEIGHTS).low)


def test_the_weighted_bootstrap_has_the_spread_of_drawn_weighted_examples() -> None:
    one = model(weights=WEIGHTS)
    interval = bootstrap_fairness({"m": [one]}, "group", draws=4000).interval(
        "m", "worst_group_accuracy"
    )
    rng = np.random.default_rng(3)
    groups = one.columns["group"].to_numpy()
    drawn = []
    for _ in range(1500):
        rows = rng.integers(0, N, N)
        drawn.append(
            min(
                np.average(one.correct[rows], weights=WEIGHTS[rows] * (groups[rows] == group))
                for group in "abc"
            )
        )
    half = 1.96 * np.std(drawn)
    assert interval.high - interval.estimate == pytest.approx(half, rel=0.08)


def test_examples_of_weight_zero_make_no_group_larger() -> None:
    weights = WEIGHTS.copy()
    weights[np.flatnonzero(model().columns["group"] == "a")[5:]] = 0
    ours = fairness_metrics(model(weights=weights), "group")
    assert ours.groups == 2
    assert "a (5) is smaller than 30" in ours.note
    boot = bootstrap_fairness({"m": [model(weights=weights)]}, "group", draws=2)
    assert boot.interval("m", "dpd").estimate == pytest.approx(ours.dpd)


def test_mcnemar_counts_examples_and_its_accuracies_count_weights() -> None:
    one, other = model(0, weights=WEIGHTS), model(1, weights=WEIGHTS)
    found, plain = mcnemar_by_class(one, other), mcnemar_by_class(model(0), model(1))
    assert found["p_value"].tolist() == plain["p_value"].tolist()
    in_class = one.labels == 1
    assert found["accuracy_b"][1] == pytest.approx(
        np.average(other.correct[in_class], weights=WEIGHTS[in_class])
    )


def test_ece_of_weights_sums_weighted_gaps() -> None:
    found = expected_calibration_error(
        [0.9, 0.9, 0.6, 0.6], [1, 0, 1, 0], bins=2, weights=np.array([3.0, 1.0, 1.0, 1.0])
    )
    # bins: |3/4 - .9| with weight 4, |1/2 - .6| with weight 2
    assert found == pytest.approx((4 * 0.15 + 2 * 0.1) / 6)


def test_weights_follow_their_examples() -> None:
    one = model(weights=WEIGHTS)
    order = np.random.default_rng(0).permutation(N)
    shuffled = Predictions(
        one.ids[order],
        one.labels[order],
        one.predictions[order],
        None,
        one.columns.iloc[order].reset_index(drop=True),
        WEIGHTS[order],
    )
    aligned = shuffled.aligned(one)
    assert aligned.weights is not None
    np.testing.assert_array_equal(aligned.weights, WEIGHTS)


@pytest.mark.parametrize("seeds", [1, 3])
def test_group_shifts_are_weighted_means_with_their_intervals(seeds: int) -> None:
    a, b = ([model(10 * s + i, weights=WEIGHTS) for i in range(seeds)] for s in (0, 1))
    table = group_shifts(a, b, ["group"]).table.set_index(["group", "label"])
    group = a[0].columns["group"].to_numpy() == "b"
    for label, own in (("", group), ("1", group & (a[0].labels == 1))):
        values = [[t.correct[own].astype(float) for t in side] for side in (a, b)]
        change = np.subtract(values[1], values[0])
        weights = WEIGHTS[own]
        expected = (
            mean_of_examples(change[0], weights)
            if seeds == 1
            else mean_of_seeds_and_examples(change, weights)
        )
        row = table.loc[("b", label)]
        assert [row["difference"], row["low"], row["high"]] == pytest.approx(list(expected))
        assert row["value_b"] - row["value_a"] == pytest.approx(expected.estimate)
        assert row["n"] == own.sum()


def test_equal_weights_change_no_group_shift_over_seeds() -> None:
    tables = [
        group_shifts(
            [model(i, weights=w) for i in range(3)],
            [model(5 + i, weights=w) for i in range(3)],
            ["group"],
        ).table
        for w in (None, np.full(N, 2.0))
    ]
    pd.testing.assert_frame_equal(*tables)


def test_an_unweighted_test_of_a_pair_has_the_p_of_its_examples() -> None:
    weighted, plain = (
        group_shifts([model(0, weights=w)], [model(1, weights=w)], ["group"]).table
        for w in (WEIGHTS, None)
    )
    columns = ["n", "only_a", "only_b", "p_value", "p_holm"]
    pd.testing.assert_frame_equal(weighted[columns], plain[columns])
    assert not np.allclose(weighted["difference"], plain["difference"])


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_change_of_accuracy_that_findings_tell_is_weighted(seeds: int) -> None:
    a, b = ([model(10 * s + i, weights=WEIGHTS) for i in range(seeds)] for s in (0, 1))
    found = accuracy_change(a, b)
    change = np.subtract(*[[t.correct.astype(float) for t in side] for side in (b, a)])
    expected = (
        mean_of_examples(change[0], WEIGHTS)
        if seeds == 1
        else mean_of_seeds_and_examples(change, WEIGHTS)
    )
    assert found.interval == pytest.approx(expected)
    assert found.b - found.a == pytest.approx(expected.estimate)
