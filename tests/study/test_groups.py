"""How many groups changed between two sides, beside what chance gives."""

from collections.abc import Callable

import numpy as np
import pytest
from helpers.synthetic_studies import CLASSES, COLORS, Generator
from helpers.two_groups import two_groups

from kdplatform.analysis.group_shifts import group_shifts
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.study.groups import compare_groups
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import pair_metrics
from kdplatform.study.study import TEACHER, Study


def for_blue(role: Role, temperature: float) -> np.ndarray:
    """DS is worse for blue, by more at a higher temperature."""
    accuracy = np.full((len(CLASSES), len(COLORS)), 0.8)
    if role is Role.DISTILLED:
        accuracy[:, 2] -= 0.03 * temperature
    return accuracy


def test_verdicts_and_counts_of_one_pair() -> None:
    a, b = two_groups()
    found = compare_groups([a], [b], ["sex"])
    assert found.groups[["group", "verdict"]].values.tolist() == [["f", "worse"], ["m", "better"]]
    counts = found.counts
    assert (counts.significant, counts.tested, counts.significant_holm) == (2, 2, 2)
    # The exact test of 374 and 382 examples has a level a little below .05.
    assert counts.expected_by_chance == pytest.approx(0.0894, abs=1e-3)
    assert found.global_p == found.groups["p_holm"].min()
    assert found.worst_drop.estimate == pytest.approx(-0.102)
    assert np.isnan(found.permutation_p)


def test_counts_are_of_whole_groups_of_single_attributes(generator: Generator) -> None:
    a, b = (generator.table(for_blue(Role.STUDENT, 0), seed) for seed in (0, 1))
    found = compare_groups([a], [b], ["color", "texture", ("color", "texture")])
    assert found.counts.tested == 3 + 2
    assert len(found.table) == 3 + 2 + 6 + 4 * (3 + 2)


def test_chance_is_that_of_the_test_and_not_the_nominal_level() -> None:
    a, _ = two_groups()
    b = a.copy()
    b.loc[[0, 1, 2], "prediction"] = 1 - b.loc[[0, 1, 2], "prediction"]
    counts = compare_groups([a], [b], ["sex"]).counts
    assert (counts.significant, counts.tested, counts.expected_by_chance) == (0, 2, 0.0)
    metrics = pair_metrics(Role.STUDENT, Predictions.of(a), Predictions.of(b), 2, ["sex"])
    assert metrics["groupwise/n_sg"] == 0
    assert metrics["groupwise/n_sg_expected_by_chance"] == 0
    assert metrics["classwise/n_sc_expected_by_chance"] == 0


def test_a_study_is_compared_arm_by_arm(synthetic: Callable[..., Study]) -> None:
    study = synthetic(for_blue, temperatures=(1.0, 10.0))
    groups = GroupWise(study)
    low, high = study.distilled
    assert set(groups.tests) == {(arm, role) for arm in (low, high) for role in list(Role)[:2]}
    for role in (Role.TEACHER, Role.STUDENT):
        table = groups.tests[high, role].groups.set_index("group")
        assert table.loc["blue", "verdict"] == "worse"
        assert (table.loc[["red", "green"], "verdict"] == "undecided").all()
        assert groups.tests[high, role].global_p == pytest.approx(1 / 126)
    found = groups.table()
    assert found["arm"].unique().tolist() == ["DS T=1", "DS T=10"]
    own = [study.tables(arm) for arm in (TEACHER, high)]
    expected = group_shifts(*own, study.attributes, class_names=CLASSES).table
    chosen = found[(found["arm"] == "DS T=10") & (found["reference"] == "Teacher")]
    assert chosen["p_value"].tolist() == pytest.approx(expected["p_value"].tolist(), nan_ok=True)


def test_one_teacher_for_all_seeds_is_held_against_each(synthetic: Callable[..., Study]) -> None:
    study = synthetic(for_blue, temperatures=(10.0,), shared_teacher=2)
    groups = GroupWise(study)
    [arm] = study.distilled
    shared, own = groups.tests[arm, Role.TEACHER], groups.tests[arm, Role.STUDENT]
    assert (shared.shifts.seeds, own.shifts.seeds) == ((1, 5), (5, 5))
    assert shared.shifts.permutation is None
    assert shared.counts.tested == own.counts.tested


def test_a_study_without_attributes_compares_no_groups(synthetic: Callable[..., Study]) -> None:
    study = synthetic(temperatures=(1.0,), attributes=())
    assert GroupWise(study).tests == {}
    assert "groupwise/n_sg" not in study.metrics


def test_single_pairs_are_counted_in_the_metrics(synthetic: Callable[..., Study]) -> None:
    study = synthetic(for_blue, temperatures=(10.0,))
    frame = study.metrics.set_index("role").loc["distilled"]
    reference = study.reference(Role.STUDENT, 0)
    assert reference is not None
    [arm] = study.distilled
    pair = compare_groups([reference.test], [study.arms[arm][0].test], study.attributes)
    assert frame["groupwise/n_sg"].iloc[0] == pair.counts.significant
    assert frame["groupwise/n_tg"].notna().all()
