from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.parity import parity_null


def table(n, groups, rng, shift=0.0):
    """Predictions that ignore the group, apart from `shift` added to group 0's selection rate."""
    group = np.arange(n) % groups
    prediction = (rng.random(n) < 0.5 + shift * (group == 0)).astype(int)
    return pd.DataFrame(
        {
            "id": np.arange(n),
            "label": rng.integers(0, 2, n),
            "prediction": prediction,
            "color": np.char.add("g", group.astype(str)),
        }
    )


def test_null_mean_of_ten_groups_of_100_is_the_range_of_ten_rates():
    data = table(1000, 10, np.random.default_rng(0))
    row = parity_null({"ds": [data]}, "color").set_index("metric").loc["dpd"]
    assert row["null_mean"] == pytest.approx(0.15, abs=0.01)
    assert row["observed"] == fairness_metrics(data, "color").dpd
    assert row["excess"] == pytest.approx(row["observed"] - row["null_mean"])


def test_p_is_uniform_under_parity():
    rng = np.random.default_rng(1)
    rejected = {"dpd": 0, "eod": 0}
    for _ in range(200):
        result = parity_null(
            {"ds": [table(200, 4, rng)]}, "color", permutations=99, min_group_size=1
        )
        p = result.set_index("metric")["p_value"]
        for metric in rejected:
            rejected[metric] += p[metric] <= 0.05
    for count in rejected.values():
        interval = stats.binomtest(count, 200).proportion_ci(0.99)
        assert interval.low < 0.05 < interval.high


def test_unfair_selection_is_found():
    data = table(1000, 4, np.random.default_rng(2), shift=0.25)
    p = parity_null({"ds": [data]}, "color", permutations=199).set_index("metric")["p_value"]
    assert p["dpd"] == 1 / 200  # the smallest there is
    assert p["eod"] < 0.05


def test_base_rates_alone_make_dpd_but_not_eod_significant():
    # a perfect model on groups of different base rates: Yh depends on A, but not given Y
    rng = np.random.default_rng(3)
    data = table(1000, 2, rng)
    group = (data["color"] == "g0").to_numpy()
    label = (rng.random(1000) < np.where(group, 0.7, 0.3)).astype(int)
    result = parity_null({"ds": [data.assign(label=label, prediction=label)]}, "color")
    p = result.set_index("metric")["p_value"]
    assert p["dpd"] < 0.01
    assert p["eod"] == 1.0


def test_arms_are_averaged_over_seeds_and_multi_class_metrics_agree():
    rng = np.random.default_rng(4)
    first = table(400, 3, rng).assign(label=rng.integers(0, 4, 400))
    models = [first.assign(prediction=rng.integers(0, 4, 400)) for _ in range(2)]
    result = parity_null({"ds": models}, "color", permutations=20).set_index("metric")
    each = [asdict(fairness_metrics(model, "color")) for model in models]
    for metric in result.index:
        assert result.loc[metric, "observed"] == pytest.approx(np.mean([m[metric] for m in each]))
    assert (result["seeds"] == 2).all()


def test_a_single_group_has_no_null():
    data = table(100, 1, np.random.default_rng(5))
    result = parity_null({"ds": [data]}, "color", permutations=5)
    assert result["p_value"].isna().all()


def test_bad_arguments_are_refused():
    data = table(10, 2, np.random.default_rng(6))
    with pytest.raises(ValueError, match="permutations is 0"):
        parity_null({"ds": [data]}, "color", permutations=0)
    with pytest.raises(ValueError, match="arms are"):
        parity_null({}, "color")
