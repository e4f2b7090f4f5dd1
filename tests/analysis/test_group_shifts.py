"""Which groups got worse: counts and tests of every cell, against the library and brute force."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from helpers.two_groups import two_groups
from scipy import stats

from kdplatform.analysis.group_cells import cells_of
from kdplatform.analysis.group_shifts import group_shifts
from kdplatform.analysis.intervals import mean_of_seeds_and_examples
from kdplatform.analysis.permutation import seed_splits
from kdplatform.analysis.seed_changes import noncentrality
from kdplatform.analysis.significance import holm
from kdplatform.predictions import Predictions

N = 600


def models(seeds: int, accuracy: float, model_seed: int) -> list[pd.DataFrame]:
    """Models on the same examples of three classes, five colors and two shapes."""
    examples = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "id": np.arange(N),
            "label": examples.integers(0, 3, N),
            "color": np.array(list("abcde"))[examples.integers(0, 5, N)],
            "shape": np.array(["box", "ball"])[examples.integers(0, 2, N)],
        }
    )
    hard, rng = examples.random(N), np.random.default_rng(model_seed)
    found = []
    for _ in range(seeds):
        level = accuracy + rng.normal(0, 0.03) - 0.1 * (frame["color"] == "a")
        right = 0.6 * hard + 0.4 * rng.random(N) < level
        wrong = (frame["label"] + rng.integers(1, 3, N)) % 3
        found.append(frame.assign(prediction=np.where(right, frame["label"], wrong)))
    return found


A, B = models(4, 0.6, 1), models(4, 0.7, 2)


def cell(table: pd.DataFrame, attribute: str, group: str, label: str = "") -> pd.Series:
    chosen = table[
        (table["attribute"] == attribute) & (table["group"] == group) & (table["label"] == label)
    ]
    assert len(chosen) == 1
    return chosen.iloc[0]


def right_in(tables: Sequence[pd.DataFrame], chosen: "pd.Series[bool]") -> np.ndarray:
    """Whether each example of a cell is right. [seeds, examples]"""
    return np.array([(t["label"] == t["prediction"])[chosen] for t in tables], dtype=float)


def test_a_group_that_lost_what_another_gained_is_named() -> None:
    a, b = two_groups()
    table = group_shifts([a], [b], ["sex"], class_names=("no", "yes")).table
    f, m = cell(table, "sex", "f"), cell(table, "sex", "m")
    assert [f["value_a"], f["value_b"]] == pytest.approx([0.951, 0.849])
    assert [f["only_a"], f["only_b"], f["n"]] == [289, 85, 2000]
    assert f["p_value"] == pytest.approx(stats.binomtest(85, 374).pvalue)
    assert [f["difference"], f["low"], f["high"]] == pytest.approx(
        [-0.102, -0.120, -0.083], abs=1e-3
    )
    assert f["p_holm"] < 1e-20
    assert m["difference"] == pytest.approx(0.115)
    assert m["low"] > 0
    within = cell(table, "sex", "f", "yes")
    positives = (a["sex"] == "f") & (a["label"] == 1)
    assert within["kind"] == "group within class"
    assert within["value_a"] == pytest.approx((a["prediction"] == 1)[positives].mean())


def test_corrections_are_over_all_cells_tested() -> None:
    table = group_shifts(A[:1], B[:1], ["color", "shape", ("color", "shape")]).table
    known = table["p_value"].notna()
    assert set(table["kind"]) == {"group", "intersection", "group within class"}
    assert (known.sum(), len(table)) == ((table["n"] >= 30).sum(), 5 + 2 + 10 + 15 + 6)
    assert table["p_holm"].tolist() == pytest.approx(holm(table["p_value"]).tolist(), nan_ok=True)
    assert (table["p_family"][known] == table["p_holm"][known]).all()
    assert table["p_max"].isna().all()


def test_a_small_group_is_listed_and_not_measured() -> None:
    table = group_shifts(A[:1], B[:1], ["color"], min_group_size=120).table
    small = table[(table["kind"] == "group") & (table["n"] < 120)]
    assert 0 < len(small) < 5
    assert (small["status"] == "fewer than 120").all()
    assert small[["value_a", "difference", "p_value", "p_holm"]].isna().all(axis=None)
    assert small["detectable"].notna().all()


@pytest.mark.parametrize(("group", "label"), [("a", ""), ("c", "1")])
def test_over_seeds_p_is_the_paired_t_test_and_the_interval_counts_examples_too(
    group: str, label: str
) -> None:
    shifts = group_shifts(A, B, ["color"])
    chosen = A[0]["color"] == group
    if label:
        chosen &= A[0]["label"] == int(label)
    a, b = right_in(A, chosen), right_in(B, chosen)
    row = cell(shifts.table, "color", group, label)
    expected = stats.ttest_rel(a.mean(axis=1), b.mean(axis=1))
    assert shifts.test == "paired t"
    assert row["p_value"] == pytest.approx(expected.pvalue)
    assert [row["difference"], row["low"], row["high"]] == pytest.approx(
        mean_of_seeds_and_examples(b - a)
    )
    assert row["only_a"] == pytest.approx((a * (1 - b)).sum(axis=1).mean())
    assert row["chance"] == 0.05


def test_what_can_be_detected_over_seeds_is_pooled_over_the_groups() -> None:
    table = group_shifts(A, B, ["color"]).table
    groups = table[table["kind"] == "group"]
    pooled = []
    for name, n in zip(groups["group"], groups["n"], strict=True):
        chosen = A[0]["color"] == name
        pooled.append(n * stats.sem((right_in(B, chosen) - right_in(A, chosen)).mean(axis=1)) ** 2)
    expected = float(noncentrality(3)) * np.sqrt(np.mean(pooled) / groups["n"])
    assert groups["detectable"].tolist() == pytest.approx(expected.tolist())


def test_the_family_wise_p_is_the_largest_t_of_all_splits() -> None:
    shifts = group_shifts(A, B, ["color"], min_group_size=60)
    table = shifts.table[shifts.table["p_value"].notna()]
    cells = [
        (A[0]["color"] == row["group"]) & ((A[0]["label"] == row["class"]) | (row["class"] < 0))
        for row in table.to_dict("records")
    ]
    values = np.array([right_in([*A, *B], chosen).mean(axis=1) for chosen in cells]).T
    splits, _ = seed_splits(4, 4)
    t = np.array(
        [np.abs(stats.ttest_ind(values[s], values[~s], equal_var=False).statistic) for s in splits]
    )
    expected = (t.max(axis=1)[:, None] >= t[0] * (1 - 1e-9)).mean(axis=0)
    assert table["p_max"].to_numpy() == pytest.approx(expected)
    assert shifts.permutation is not None
    assert shifts.permutation.splits == 35
    # 35 splits give p below .05; ten of three and three seeds do not.
    assert (table["p_family"] == table["p_max"]).all()
    few = group_shifts(A[:3], B[:3], ["color"]).table.dropna(subset="p_value")
    assert (few["p_family"] == few["p_holm"]).all()


def test_other_numbers_of_seeds_are_no_pairs() -> None:
    shifts = group_shifts(A, B[:3], ["color"])
    chosen = A[0]["color"] == "b"
    a, b = right_in(A, chosen).mean(axis=1), right_in(B[:3], chosen).mean(axis=1)
    row = cell(shifts.table, "color", "b")
    assert shifts.test == "Welch"
    assert row["p_value"] == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert row["low"] < row["difference"] < row["high"]


def test_one_model_is_held_against_every_seed() -> None:
    shifts = group_shifts(A[:1], B, ["color"])
    chosen = A[0]["color"] == "b"
    difference = (right_in(B, chosen) - right_in(A[:1], chosen)).mean(axis=1)
    row = cell(shifts.table, "color", "b")
    assert row["p_value"] == pytest.approx(stats.ttest_1samp(difference, 0).pvalue)
    assert np.isnan(row["p_max"])
    assert shifts.permutation is None


def test_seeds_that_all_agree_are_no_certainty() -> None:
    worse = [t.assign(prediction=(t["label"] + (t["id"] % 4 == 0)) % 3) for t in A[:2]]
    perfect = [t.assign(prediction=t["label"]) for t in A[:2]]
    table = group_shifts(perfect, worse, ["color"]).table
    assert (table["status"][table["n"] >= 30] == "undefined: no variance").all()
    assert table["p_value"].isna().all()
    same = group_shifts(perfect, perfect, ["color"]).table
    assert (same["p_value"].dropna() == 1).all()


def test_an_example_of_several_groups_counts_in_each() -> None:
    def shared(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(color=table["color"].where(table["id"] % 5 > 0, "a + b"))

    table = group_shifts([shared(A[0])], [shared(B[0])], ["color"]).table
    several = A[0]["id"] % 5 == 0
    for name in "ab":
        assert cell(table, "color", name)["n"] == ((A[0]["color"] == name) | several).sum()


def test_rows_are_matched_by_id() -> None:
    shuffled = B[0].sample(frac=1, random_state=0)
    first, second = (group_shifts(A[:1], [b], ["color"]).table for b in (B[0], shuffled))
    pd.testing.assert_frame_equal(first, second)


def test_prepared_cells_give_the_same() -> None:
    cells = cells_of(Predictions.of(B[3]), ["color", "shape"])
    pd.testing.assert_frame_equal(
        group_shifts(A, B, cells).table, group_shifts(A, B, ["color", "shape"]).table
    )


def test_bad_input_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="attributes are empty; allowed: at least one"):
        group_shifts(A, B, [])
    with pytest.raises(ValueError, match="sides have 0 and 4 tables"):
        group_shifts([], B, ["color"])
    with pytest.raises(ValueError, match="attribute 'size' is not in the table"):
        group_shifts(A, B, ["size"])
    with pytest.raises(ValueError, match="min_group_size is 0"):
        group_shifts(A, B, ["color"], min_group_size=0)
