"""A study's tables: their numbers are those of the predictions, and what is missing is said."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.comparison import compare_classes
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.predictions import Predictions
from kdplatform.reporting.study_tables import (
    class_counts_table,
    fairness_table,
    individual_table,
)
from kdplatform.reporting.support_tables import disagreement_table, group_accuracy_table
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import Effort, GroupFairness
from kdplatform.study.study import NDS, TEACHER, Arm, Model, Study, distilled_arm

FEW = Effort(draws=100, permutations=50)


@pytest.fixture(scope="module")
def study(synthetic: Callable[..., Study]) -> Study:
    return synthetic(temperatures=(1.0, 4.0, 20.0), seeds=(0, 1, 2))


def without(study: Study, arm: Arm, *seeds: int) -> Study:
    """The study without some seeds of an arm."""
    arms = {
        a: {s: m for s, m in ms.items() if a != arm or s not in seeds}
        for a, ms in study.arms.items()
    }
    return Study("part", study.class_names, {a: m for a, m in arms.items() if m}, study.attributes)


def test_table_1_counts_the_classes_of_the_papers_test(study: Study) -> None:
    row = class_counts_table(study, ClassWise(study)).frame.set_index("arm").loc["DS T=4"]
    compared = compare_classes(study.tables(NDS), study.tables(distilled_arm(4.0)))
    assert row["n_sc"] == compared.counts.significant
    assert row["sc_expected_by_chance"] == pytest.approx(0.05 * 4)
    assert row["sc_p_count"] == compared.permutation.p_count
    assert row["sc_detectable_shift"] == compared.detectable_shift
    accuracy = [t.accuracy for t in study.tables(distilled_arm(4.0))]
    assert row["accuracy"] == pytest.approx(np.mean(accuracy))
    assert row["accuracy_sd"] == pytest.approx(np.std(accuracy, ddof=1))


def test_one_seed_is_tested_by_mcnemar_and_says_so(synthetic: Callable[..., Study]) -> None:
    table = class_counts_table(one := synthetic(seeds=(3,)), ClassWise(one))
    assert set(table.frame["sc_test"].dropna()) == {"McNemar"}
    assert "sc_p_count" not in table.frame
    assert any("McNemar" in note for note in table.notes)
    assert list(table.shown["accuracy"].str.contains("±")) == [False] * len(table.shown)


def test_an_arm_without_a_test_says_why(study: Study) -> None:
    part = without(study, NDS, 0, 1, 2)
    table = class_counts_table(part, ClassWise(part))
    assert "n_sc" not in table.frame
    assert any("no NDS is there" in note for note in table.notes)
    alone = without(study, distilled_arm(4.0), 1, 2)
    table = class_counts_table(alone, ClassWise(alone))
    assert pd.isna(table.frame.set_index("arm").loc["DS T=4", "n_tc"])
    assert "No #TC for DS T=4: 1 seed of DS T=4, 3 of Teacher." in table.notes


def test_a_shared_teacher_has_no_spread(study: Study) -> None:
    arms = dict(study.arms)
    arms[TEACHER] = {1: arms[TEACHER][1]}
    shared = Study("shared", study.class_names, arms, ("color",), shared_teacher=1)
    table = class_counts_table(shared, ClassWise(shared))
    assert "n_tc" not in table.frame
    assert any("one teacher is shared" in note for note in table.notes)
    fair = fairness_table("t", "t", shared, GroupFairness(shared, "color", FEW))
    assert fair.frame["eod_difference_tc"].notna().sum() == 3
    distilled = shared.metrics[shared.metrics["role"] == "distilled"]
    assert distilled["classwise/shift_tc"].notna().all()
    teacher, third = shared.arms[TEACHER][1].test, shared.arms[distilled_arm(4.0)][2].test
    row = distilled[(distilled["temperature"] == 4) & (distilled["seed"] == 2)].iloc[0]
    assert row["disagreement/teacher"] == (teacher.predictions != third.predictions).mean()


def test_classes_that_are_never_predicted_or_absent_are_named(study: Study) -> None:
    arms = {arm: dict(models) for arm, models in study.arms.items()}
    test = arms[distilled_arm(4.0)][1].test
    never = np.where(test.predictions == 3, 0, test.predictions)
    arms[distilled_arm(4.0)][1] = Model("blind", replace(test, predictions=never))
    names = (*study.class_names, "heptagon")
    changed = Study("blind", names, arms)
    notes = ClassWise(changed).notes()
    assert notes == [
        "Not tested, because there are no test examples: heptagon.",
        "Never predicted: tee by DS T=4 seed 1.",
    ]
    assert class_counts_table(changed, ClassWise(changed)).frame["tc_tested"].max() == 4


def test_table_2_has_the_metrics_of_the_predictions(study: Study) -> None:
    fairness = GroupFairness(study, "color", FEW)
    frame = fairness_table("table2_color", "Table 2", study, fairness).frame.set_index("arm")
    each = [fairness_metrics(table, "color") for table in study.tables(distilled_arm(20.0))]
    row = frame.loc["DS T=20"]
    assert row["eod"] == pytest.approx(np.mean([m.eod for m in each]))
    assert row["dpd_sd"] == pytest.approx(np.std([m.dpd for m in each], ddof=1))
    assert row["eod_low"] < row["eod"] < row["eod_high"]
    assert row["eod_difference_sc"] == pytest.approx(row["eod"] - frame.loc["NDS", "eod"])
    assert row["worst_group_accuracy"] == pytest.approx(
        np.mean([m.worst_group_accuracy for m in each])
    )


def test_a_perfect_classifier_stands_beside_with_the_base_rates(study: Study) -> None:
    fairness = GroupFairness(study, "color", FEW)
    row = fairness_table("t", "t", study, fairness).frame.iloc[0]
    truth = replace(study.any_table, predictions=study.any_table.labels)
    assert row["arm"] == "always right"
    assert row["eod"] == 0
    assert row["dpd"] == pytest.approx(fairness_metrics(truth, "color").dpd)
    assert row["dpd"] > 0


def test_differences_use_the_seeds_both_have(study: Study) -> None:
    part = without(study, distilled_arm(4.0), 0)
    change = GroupFairness(part, "color", FEW).change([distilled_arm(4.0)], NDS, "dpd")
    assert change.seeds == (1, 2)
    expected = [
        fairness_metrics(part.arms[distilled_arm(4.0)][s].test, "color").dpd
        - fairness_metrics(part.arms[NDS][s].test, "color").dpd
        for s in (1, 2)
    ]
    assert change.interval.estimate == pytest.approx(np.mean(expected))


def with_one_purple(model: Model) -> Model:
    """The model with one example in a group of its own."""
    color = model.test.columns["color"].where(model.test.ids != 7, "purple")
    return Model(model.run_id, replace(model.test, columns=model.test.columns.assign(color=color)))


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (30, "purple (1) is smaller than 30 and left out; --min_group_size 1 counts them"),
        (1, "TPR leaves out purple in 3 of 4 classes (no positives)"),
    ],
)
def test_a_group_of_one_example_is_said(study: Study, size: int, said: str) -> None:
    arms = {
        arm: {seed: with_one_purple(model) for seed, model in models.items()}
        for arm, models in study.arms.items()
    }
    lonely = Study("lonely", study.class_names, arms, ("color",), min_group_size=size)
    table = fairness_table("t", "t", lonely, GroupFairness(lonely, "color", FEW))
    assert any(said in note for note in table.notes)
    groups = group_accuracy_table(lonely, GroupFairness(lonely, "color", FEW)).frame
    assert groups.set_index("group").loc["purple", "n"] == 1
    assert np.isnan(groups.set_index("group").loc["purple", "NDS"]) == (size == 30)


def test_a_tiny_group_does_not_decide_the_tables(study: Study) -> None:
    arms = {
        arm: {seed: with_one_purple(model) for seed, model in models.items()}
        for arm, models in study.arms.items()
    }
    lonely = Study("lonely", study.class_names, arms, ("color",))
    frame = fairness_table("t", "t", lonely, GroupFairness(lonely, "color", FEW)).frame
    own = lonely.tables(NDS)
    expected = [fairness_metrics(t, "color", min_group_size=2).dpd for t in own]
    assert frame.set_index("arm").loc["NDS", "dpd"] == pytest.approx(np.mean(expected))


def all_zero(test: Predictions) -> Predictions:
    return replace(test, predictions=np.zeros_like(test.predictions))


def test_predictions_that_are_all_equal_have_no_differences(study: Study) -> None:
    arms = {
        arm: {s: Model(m.run_id, all_zero(m.test)) for s, m in models.items()}
        for arm, models in study.arms.items()
    }
    equal = Study("equal", study.class_names, arms, ("color",))
    frame = fairness_table("t", "t", equal, GroupFairness(equal, "color", FEW)).frame
    assert (frame["dpd"].iloc[1:] == 0).all()
    counts = class_counts_table(equal, ClassWise(equal))
    assert set(counts.frame["n_sc"].dropna()) == {0}
    [note] = [note for note in counts.notes if note.startswith("Never predicted")]
    assert "square, star, tee by Teacher seed 0, Teacher seed 1" in note


def test_table_4_names_its_pairs_or_says_there_are_none(study: Study) -> None:
    assert any(
        "This dataset has no feature space" in note for note in individual_table(study).notes
    )
    named = Study("named", study.class_names, study.arms, (), space="the factors", pairs=10)
    assert "Pairs: 10" in individual_table(named).notes[0]
    assert "the factors" in individual_table(named).notes[0]


def test_disagreement_stands_beside_that_of_two_seeds(study: Study) -> None:
    frame = disagreement_table(study).frame.set_index("arm")
    same = [
        (t.predictions != n.predictions).mean()
        for t, n in zip(study.tables(distilled_arm(1.0)), study.tables(NDS), strict=True)
    ]
    assert frame.loc["DS T=1", "with_NDS"] == pytest.approx(np.mean(same))
    a, b, c = (table.predictions for table in study.tables(NDS))
    between = [(a != b).mean(), (a != c).mean(), (b != c).mean()]
    assert frame.loc["NDS", "between_two_seeds"] == pytest.approx(np.mean(between))


def test_group_accuracies_are_means_over_seeds(study: Study) -> None:
    frame = group_accuracy_table(study, GroupFairness(study, "color", FEW)).frame
    red = [t.correct[t.columns["color"] == "red"].mean() for t in study.tables(NDS)]
    assert frame.set_index("group").loc["red", "NDS"] == pytest.approx(np.mean(red))
