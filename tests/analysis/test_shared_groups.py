"""Examples that are in several groups of an attribute count in each of them."""

import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.group_fairness import fairness_metrics, group_table
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.tables import attribute_groups


def table(groups, labels=None, predictions=None, **columns):
    n = len(groups)
    labels = np.arange(n) % 2 if labels is None else labels
    predictions = (np.arange(n) // 2) % 2 if predictions is None else predictions
    content = {"id": range(n), "label": labels, "prediction": predictions, "race": groups}
    return pd.DataFrame(content | columns)


def random_table(n=300, seed=0):
    generator = np.random.default_rng(seed)
    groups = generator.choice(["a", "b", "a + b", "b + c", "c"], size=n).astype(object)
    groups[::5] = None
    labels, predictions = generator.integers(0, 2, size=(2, n))
    return table(groups, labels, predictions)


def members(frame, group):
    return frame[[isinstance(v, str) and group in v.split(" + ") for v in frame["race"]]]


def test_every_group_has_its_shared_examples():
    frame = random_table()
    ours = group_table(frame, "race").set_index("group")
    assert list(ours.index) == ["a", "b", "c"]
    for group, row in ours.iterrows():
        own = members(frame, group)
        assert row["n"] == len(own)
        assert row["shared"] == own["race"].str.contains("+", regex=False).sum()
        assert row["accuracy"] == pytest.approx((own["label"] == own["prediction"]).mean())
        assert row["selection_rate"] == pytest.approx((own["prediction"] == 1).mean())


def test_metrics_are_those_of_the_groups_taken_one_by_one():
    frame = random_table()
    rates = [(members(frame, group)["prediction"] == 1).mean() for group in "abc"]
    metrics = fairness_metrics(frame, "race")
    assert metrics.dpd == pytest.approx(max(rates) - min(rates))
    grouped = frame["race"].notna()
    assert (metrics.n, metrics.excluded) == (grouped.sum(), (~grouped).sum())
    assert metrics.shared == frame["race"].str.contains("+", regex=False, na=False).sum()
    assert f"{metrics.shared} examples are in several groups and count in each" in metrics.note


def test_order_and_repetition_in_a_name_do_not_matter():
    groups = attribute_groups(table(["b + a", "a + b", "a + a", "b"]), "race")
    assert groups.names == ("a", "b")
    assert groups.codes[0] == groups.codes[1]
    assert groups.members[groups.codes].tolist() == [[1, 1], [1, 1], [1, 0], [0, 1]]


def test_intersections_hold_every_pair_of_an_examples_groups():
    frame = table(["a + b", "a", None], gender=["m", "m + w", "m"])
    groups = attribute_groups(frame, ["race", "gender"])
    assert groups.names == ("a & m", "a & w", "b & m")
    assert groups.members[groups.codes[:2]].tolist() == [[1, 0, 1], [1, 1, 0]]
    assert groups.codes[2] == -1


def test_bootstrap_and_parity_are_about_the_same_metrics():
    frame = random_table()
    expected = fairness_metrics(frame, "race")
    boot = bootstrap_fairness({"DS": [frame]}, "race", draws=200)
    null = parity_null({"DS": [frame]}, "race", permutations=50).set_index("metric")
    for name in ("dpd", "eod", "accuracy_gap"):
        assert boot.interval("DS", name).estimate == pytest.approx(getattr(expected, name))
        assert null.loc[name, "observed"] == pytest.approx(getattr(expected, name))


def test_the_bootstrap_draws_a_shared_example_once_for_all_its_groups():
    # All examples are in both groups: whatever is drawn, the groups are equal.
    frame = table(["a + b"] * 40)
    boot = bootstrap_fairness({"DS": [frame]}, "race", draws=100)
    assert not boot.samples["DS"]["dpd"].any()


def test_parity_moves_all_groups_of_an_example_together():
    frame = table(["a + b"] * 20 + [None] * 10)
    null = parity_null({"DS": [frame]}, "race", permutations=20, min_group_size=1).set_index(
        "metric"
    )
    assert null.loc["dpd", "null_mean"] == 0
