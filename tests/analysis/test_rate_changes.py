"""Rates of groups under two sides: those of the plain functions, cell by cell."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.group_fairness import group_table, rates_by_class
from kdplatform.analysis.intervals import mean_of_examples, mean_of_seeds_and_examples
from kdplatform.analysis.rate_changes import RateChanges, rate_changes
from kdplatform.predictions import Predictions

N, COLORS = 300, np.array(["blue", "green", "red"])


def table(seed: int, classes: int, accuracy: float = 0.7) -> Predictions:
    of_examples, rng = np.random.default_rng(1), np.random.default_rng(seed)
    labels = of_examples.integers(0, classes, N)
    wrong = rng.random(N) > accuracy
    return Predictions.of(
        pd.DataFrame(
            {
                "id": np.arange(N),
                "label": labels,
                "prediction": np.where(wrong, rng.integers(0, classes, N), labels),
                "color": COLORS[of_examples.integers(0, 3, N)],
            }
        )
    )


def sides(seeds: int, classes: int) -> tuple[list[Predictions], list[Predictions]]:
    return (
        [table(s, classes) for s in range(seeds)],
        [table(100 + s, classes, 0.8) for s in range(seeds)],
    )


@pytest.mark.parametrize("classes", [2, 4])
def test_rates_are_those_of_the_group_tables(classes: int) -> None:
    a, b = sides(2, classes)
    found = rate_changes(a, b, "color", min_group_size=1)
    assert found.groups == tuple(COLORS)
    for side, tables in (("a", a), ("b", b)):
        each = [group_table(t, "color", min_group_size=1) for t in tables]
        accuracy = np.mean([t["accuracy"] for t in each], axis=0)
        np.testing.assert_allclose(getattr(found.accuracy, side).value[:, 0], accuracy)
        rates = [rates_by_class(t, "color", min_group_size=1) for t in tables]
        for measure, column in (("selection", "selection_rate"), ("tpr", "tpr"), ("fpr", "fpr")):
            mean = np.mean([t[column].to_numpy().reshape(classes, 3).T for t in rates], axis=0)
            np.testing.assert_allclose(getattr(found.rates[measure], side).value, mean)
    assert list(found.n) == list(each[0]["n"])


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_are_those_of_the_examples_and_seeds_of_a_cell(seeds: int) -> None:
    a, b = sides(seeds, 4)
    found = rate_changes(a, b, "color", min_group_size=1)
    group, label = a[0].columns["color"].to_numpy() == "green", a[0].labels
    chosen = {"selection": group, "tpr": group & (label == 2), "fpr": group & (label != 2)}
    interval = mean_of_examples if seeds == 1 else mean_of_seeds_and_examples
    for measure, rows in chosen.items():
        values = [[(t.predictions[rows] == 2).astype(float) for t in side] for side in (a, b)]
        for name, array in (
            ("difference", np.subtract(values[1], values[0])),
            ("b", np.asarray(values[1])),
        ):
            limits = getattr(found.rates[measure], name)
            expected = interval(array[0] if seeds == 1 else array)
            assert [x[1, 2] for x in limits] == pytest.approx(list(expected))


def two_groups(sizes: tuple[int, int], right: tuple[int, int]) -> Predictions:
    """Two groups of these sizes, with this many right answers."""
    rows = [(g, k < r) for g, n, r in zip("fm", sizes, right, strict=True) for k in range(n)]
    labels = np.arange(len(rows)) % 2
    return Predictions.of(
        pd.DataFrame(
            {
                "id": np.arange(len(rows)),
                "label": labels,
                "prediction": [y if ok else 1 - y for y, (_, ok) in zip(labels, rows, strict=True)],
                "sex": [g for g, _ in rows],
            }
        )
    )


def cell(found: RateChanges, group: int) -> list[float]:
    return [float(limits[group, 0]) for limits in found.accuracy.difference]


def test_a_group_that_is_too_small_is_not_measured() -> None:
    a, b = two_groups((40, 10), (30, 5)), two_groups((40, 10), (20, 9))
    found = rate_changes([a], [b], "sex", min_group_size=30)
    assert list(found.measured) == [True, False]
    assert cell(found, 0)[0] == pytest.approx(-0.25)
    assert np.isnan(cell(found, 1)).all()


def test_sides_without_pairs_have_no_interval_of_the_difference() -> None:
    a, b = sides(1, 2)[0], sides(3, 2)[1]
    found = rate_changes(a, b, "color", min_group_size=1)
    assert np.isfinite(cell(found, 0)[0])
    assert np.isnan(cell(found, 0)[1:]).all()
    assert np.isfinite(found.accuracy.b.low).all()


def test_models_that_agree_everywhere_are_no_certainty() -> None:
    a = two_groups((40, 40), (30, 20))
    found = rate_changes([a], [a], "sex", min_group_size=1)
    assert cell(found, 0)[0] == 0
    assert np.isnan(cell(found, 0)[1:]).all()


def test_parity_is_where_all_examples_lie() -> None:
    a, b = two_groups((40, 60), (30, 20)), two_groups((40, 60), (40, 60))
    found = rate_changes([a], [b], "sex", min_group_size=1)
    assert found.overall["accuracy"].a.value[0, 0] == 0.5
    assert found.overall["accuracy"].b.value[0, 0] == 1.0


@pytest.mark.parametrize("seeds", [1, 3])
def test_weighted_cells_are_weighted_means_with_their_intervals(seeds: int) -> None:
    weights = np.random.default_rng(0).uniform(0.2, 3, N)
    a, b = ([replace(t, weights=weights) for t in side] for side in sides(seeds, 4))
    found = rate_changes(a, b, "color", min_group_size=1)
    group, label = a[0].columns["color"].to_numpy() == "green", a[0].labels
    chosen = {"selection": group, "tpr": group & (label == 2), "fpr": group & (label != 2)}
    interval = mean_of_examples if seeds == 1 else mean_of_seeds_and_examples
    for measure, rows in chosen.items():
        values = [[(t.predictions[rows] == 2).astype(float) for t in side] for side in (a, b)]
        change = np.subtract(values[1], values[0])
        limits = found.rates[measure].difference
        expected = interval(change[0] if seeds == 1 else change, weights[rows])
        assert [x[1, 2] for x in limits] == pytest.approx(list(expected))
    share = np.average(a[0].correct, weights=weights)
    if seeds == 1:
        assert found.overall["accuracy"].a.value[0, 0] == pytest.approx(share)
    assert found.n.sum() == N
