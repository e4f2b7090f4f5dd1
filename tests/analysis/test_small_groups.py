"""Groups too small to carry a rate are listed and not measured, in every fairness function."""

import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.group_fairness import (
    METRICS,
    fairness_metrics,
    group_table,
    rates_by_class,
)
from kdplatform.analysis.parity import parity_null

SIZES = {"White": 900, "Black": 400, "Asian": 8, "Native American": 3}
TINY = ("Asian", "Native American")


def people(seed: int = 0) -> pd.DataFrame:
    """Two large groups and two tiny ones, for which every prediction is positive."""
    rng = np.random.default_rng(seed)
    race = np.repeat(list(SIZES), list(SIZES.values()))
    label = np.random.default_rng(9).integers(0, 2, len(race))
    prediction = np.where(rng.random(len(race)) < 0.85, label, 1 - label)
    prediction[np.isin(race, TINY)] = 1
    return pd.DataFrame({"id": range(len(race)), "label": label, "prediction": prediction}).assign(
        race=race
    )


def large(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["race"].isin(TINY)]


def test_tiny_groups_do_not_decide_the_metrics() -> None:
    table = people()
    found = fairness_metrics(table, "race")
    alone = fairness_metrics(large(table), "race", min_group_size=1)
    for metric in METRICS:
        assert getattr(found, metric) == getattr(alone, metric), metric
    assert fairness_metrics(table, "race", min_group_size=1).dpd > found.dpd + 0.3
    assert (found.groups, found.smallest_group, found.worst_group) == (2, 400, alone.worst_group)


def test_they_are_listed_with_their_sizes_in_one_line() -> None:
    assert fairness_metrics(people(), "race").note == (
        "Asian (8), Native American (3) are smaller than 30 and left out; "
        "min_group_size=1 counts them"
    )
    assert fairness_metrics(people(), "race", min_group_size=5).note.startswith(
        "Native American (3) is smaller than 5 and left out"
    )
    assert "smaller" not in fairness_metrics(people(), "race", min_group_size=3).note


def test_their_rates_are_not_shown() -> None:
    groups = group_table(people(), "race").set_index("group")
    assert groups["n"].to_dict() == SIZES
    for column in ("accuracy", "selection_rate", "tpr", "fpr"):
        assert groups[column].isna().to_dict() == {name: name in TINY for name in SIZES}
    by_class = rates_by_class(people(), "race").set_index("group")
    assert by_class.loc["Asian", ["selection_rate", "tpr", "fpr"]].isna().all(axis=None)


def test_bootstrap_and_parity_leave_the_same_groups_out() -> None:
    arms = {"DS": [people(0), people(1)]}
    expected = np.mean([fairness_metrics(table, "race").dpd for table in arms["DS"]])
    boot = bootstrap_fairness(arms, "race", draws=200)
    null = parity_null(arms, "race", permutations=200).set_index("metric")
    interval = boot.interval("DS", "dpd")
    assert interval.estimate == null.loc["dpd", "observed"] == pytest.approx(expected)
    assert interval.high < 0.2
    # Eight examples differ from the rest by some .35 by chance alone.
    assert null.loc["dpd", "null_mean"] < 0.05
    counted = parity_null(arms, "race", permutations=200, min_group_size=1).set_index("metric")
    assert counted.loc["dpd", "null_mean"] > 0.2
    assert np.isnan(boot.group_accuracy["DS"]).tolist() == [True, False, True, False]


def test_what_counts_for_eod_is_the_denominator_of_each_rate() -> None:
    # 100 examples each, but group b has 29 positives: it has a selection rate and no TPR.
    label = np.r_[np.arange(100) < 50, np.arange(100) < 29, np.arange(100) < 40].astype(int)
    table = pd.DataFrame({"id": range(300), "label": label, "prediction": label})
    table = table.assign(group=np.repeat(["a", "b", "c"], 100))
    table.loc[100:128, "prediction"] = 0
    found = fairness_metrics(table, "group")
    assert found.tpr_difference == 0
    assert found.dpd == pytest.approx(0.5)
    assert found.note == (
        "TPR leaves out b (fewer than 30 positives); min_group_size=1 counts them"
    )
    assert fairness_metrics(table, "group", min_group_size=29).tpr_difference == 1


def test_fewer_than_two_groups_leave_nothing_and_the_note_says_why() -> None:
    table = people()
    one = fairness_metrics(table, "race", min_group_size=500)
    assert np.isnan([one.dpd, one.eod, one.accuracy_gap]).all()
    assert one.note == (
        "Asian (8), Black (400), Native American (3) are smaller than 500 and left out; one group "
        "only (White): differences are undefined; min_group_size=1 counts them"
    )
    none = fairness_metrics(table, "race", min_group_size=5000)
    assert np.isnan([none.dpd, none.eod, none.worst_group_accuracy]).all()
    assert (none.groups, none.smallest_group, none.worst_group) == (0, 0, "")
    assert "no group is left to measure" in none.note
    interval = bootstrap_fairness({"DS": [table]}, "race", draws=10, min_group_size=500).interval(
        "DS", "dpd"
    )
    assert np.isnan(interval).all()


def test_an_undefined_eod_is_said() -> None:
    rng = np.random.default_rng(0)
    label, group = rng.integers(0, 10, 800), rng.integers(0, 4, 800)
    table = pd.DataFrame({"id": range(800), "label": label, "prediction": label, "group": group})
    found = fairness_metrics(table, "group")
    assert np.isnan(found.eod)
    assert found.note == (
        "TPR leaves out every group (fewer than 30 positives); EOD is undefined; "
        "min_group_size=1 counts them"
    )
    assert fairness_metrics(table, "group", min_group_size=1).eod == 0


def test_a_group_without_positives_is_told_from_one_with_few() -> None:
    # 100 examples each: a has no positives, b 29, c 40.
    label = np.r_[np.zeros(100), np.arange(100) < 29, np.arange(100) < 40].astype(int)
    table = pd.DataFrame({"id": range(300), "label": label, "prediction": label})
    table = table.assign(group=np.repeat(["a", "b", "c"], 100))
    assert fairness_metrics(table, "group").note == (
        "TPR leaves out a (no positives); TPR leaves out b (fewer than 30 positives); EOD is "
        "undefined; min_group_size=1 counts them"
    )
    # No min_group_size counts what is not there.
    assert fairness_metrics(table[table["group"] != "b"], "group").note == (
        "TPR leaves out a (no positives); EOD is undefined"
    )


def test_intersections_are_left_out_alike() -> None:
    table = people().assign(sex=np.arange(1311) % 2)
    table.loc[(table["race"] == "Black") & (table.index % 20 != 0), "sex"] = 0
    small = table.groupby(["race", "sex"]).size()
    kept = small[small >= 30]
    found = fairness_metrics(table, ("race", "sex"))
    assert found.groups == len(kept) < len(small)
    assert found.smallest_group == kept.min()


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused(size: int) -> None:
    for measure in (
        lambda: fairness_metrics(people(), "race", min_group_size=size),
        lambda: group_table(people(), "race", min_group_size=size),
        lambda: bootstrap_fairness({"DS": [people()]}, "race", min_group_size=size),
        lambda: parity_null({"DS": [people()]}, "race", min_group_size=size),
    ):
        with pytest.raises(ValueError, match=f"min_group_size is {size}; allowed: integer >= 1"):
            measure()
