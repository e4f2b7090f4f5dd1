"""The sentences of what was found: made by rule, strongest first, at most seven."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from helpers.synthetic_studies import CLASSES, COLORS
from helpers.two_groups import two_groups

from kdplatform.analysis.comparison import compare_pair
from kdplatform.analysis.intervals import UNKNOWN, Interval
from kdplatform.analysis.verdict import Change
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.evidence import Evidence, MetricChange, accuracy_change, fairness_change
from kdplatform.study.findings import Finding, make_findings, study_findings
from kdplatform.study.groups import compare_groups
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.planning import size_words
from kdplatform.study.study import Study


def evidence(a: Predictions, b: Predictions, metrics: tuple[MetricChange, ...] = ()) -> Evidence:
    return Evidence(
        "",
        ("A", "B"),
        (1, 1),
        [accuracy_change([a], [b]), *metrics],
        compare_groups([a], [b], ["sex"]),
        compare_pair(a, b),
        ("no", "yes"),
    )


def pair() -> tuple[Predictions, Predictions]:
    a, b = map(Predictions.of, two_groups())
    return a, b


def sentences(findings: list[Finding]) -> list[str]:
    return [f"{finding.kind}: {finding.sentence}" for finding in findings]


def test_who_got_worse_leads_then_who_got_better_then_what_cannot_be_told() -> None:
    found = make_findings([evidence(*pair())])
    assert sentences(found)[:2] == [
        "worse: sex f got worse: 95.1 to 84.9% (-10.2, -12.0 to -8.3; Holm p < .001; 289 examples "
        "only A gets right, 85 only B).",
        "better: sex m got better: 83.7 to 95.2% (+11.5, 9.6 to 13.3; Holm p < .001; 76 examples "
        "only A gets right, 306 only B).",
    ]
    [last] = sentences(found)[2:]
    assert last == (
        "undecided: Undecided: 2 of 2 classes, accuracy. A change of a class by 2.8 points "
        "could have hidden (power .8); 2 times as many examples would show 2 points in half of "
        "these classes. Each side is one model: the findings hold for these models, not for other "
        "seeds."
    )
    assert found[0].numbers["difference"] == pytest.approx(-0.102)
    assert found[0].strength > found[0].numbers["difference"] / -0.0186 > 5


def test_the_plan_is_one_that_would_work() -> None:
    a, _ = pair()
    noisy = np.where(a.ids % 40 == 0, 1 - a.labels, a.predictions)
    table = replace(a, predictions=noisy)
    [last] = [f for f in make_findings([evidence(a, a)]) if f.kind == "undecided"]
    # Models that never differ: eight of 2,000 examples on one side would have been seen.
    assert "A change of a group by 0.4 points could have hidden (power .8)." in last.sentence
    told = make_findings([evidence(a, table)])
    assert not any("times as many" in finding.sentence for finding in told)


def test_what_could_have_hidden_from_few_examples_is_not_small() -> None:
    a, b = pair()
    few = np.isin(a.ids, np.r_[0:40, 2000:2040])

    def cut(table: Predictions) -> Predictions:
        columns = table.columns[few].reset_index(drop=True)
        own = (values[few] for values in (table.ids, table.labels, table.labels))
        return Predictions(*own, None, columns)

    [last] = make_findings([evidence(cut(a), cut(b))])
    assert "2 of 2 groups" in last.sentence
    assert "A change of a group by 19.8 points could have hidden (power .8); 10 times as" in (
        last.sentence
    )


def test_at_most_seven_sentences_of_which_each_topic_has_one() -> None:
    a, b = pair()
    changes = tuple(
        MetricChange(
            f"metric {i}", 0.1, 0.2, Interval(0.1, 0.1 - 1e-4 * (i + 1), 0.1 + 1e-4), "worse"
        )
        for i in range(20)
    )
    found = make_findings([evidence(a, b, changes)], ["One.", "Two.", "Three."])
    assert len(found) == 7
    kinds = [finding.kind for finding in found]
    assert kinds == ["warning", "warning", "worse", "worse", "worse", "better", "undecided"]
    assert found[1].sentence == "2 further warnings: Two. Three."
    worse = [finding for finding in found if finding.kind == "worse"]
    assert [finding.subject for finding in worse] == ["metric 0", "metric 1", "sex f"]
    assert worse[-1].sentence.endswith("85 only B). 18 more got worse.")
    both = make_findings([evidence(a, b, changes), replace(evidence(a, b, changes), between="C")])
    assert "In all comparisons, " in [f for f in both if f.kind == "worse"][-1].sentence


def test_a_metric_without_a_value_is_not_measured_rather_than_undecided() -> None:
    a, b = pair()
    absent = fairness_change("EOD by age", "eod", np.nan, np.nan, Change(UNKNOWN, np.nan, False))
    [*_, last] = make_findings([evidence(a, b, (absent,))])
    assert "Not measured: EOD by age." in last.sentence
    undecided = last.sentence.partition("Not measured")[0]
    assert "EOD by age" not in undecided


def test_a_part_is_told_only_where_its_group_is_not() -> None:
    a, b = pair()
    # Among the positives of f errors move from one half to the other: f as a whole is as before.
    moved = b.predictions.copy()
    moved[:] = a.predictions
    positives = np.flatnonzero((a.columns["sex"] == "f") & (a.labels == 1))
    negatives = np.flatnonzero((a.columns["sex"] == "f") & (a.labels == 0))
    wrong = negatives[a.predictions[negatives] == 1]
    moved[wrong] = 0
    right = positives[a.predictions[positives] == 1][: len(wrong)]
    moved[right] = 0
    found = make_findings([evidence(a, replace(a, predictions=moved))])
    subjects = [finding.subject for finding in found if finding.topic == "group"]
    assert subjects == ["sex f within class 1", "sex f within class 0"]
    whole = make_findings([evidence(a, b)])
    assert not any("within" in finding.subject for finding in whole)


def for_blue(role: Role, temperature: float) -> np.ndarray:
    accuracy = np.full((len(CLASSES), len(COLORS)), 0.8)
    if role is Role.DISTILLED and temperature > 1:
        accuracy[:, 2] -= 0.3
    return accuracy


def test_a_study_says_once_what_several_arms_show(synthetic: Callable[..., Study]) -> None:
    study = synthetic(for_blue, temperatures=(1.0, 4.0, 10.0))
    found = study_findings(ClassWise(study), GroupWise(study))
    blue = [finding for finding in found if finding.subject == "color blue"]
    assert len(blue) == 2
    for finding in blue:
        assert finding.kind == "worse"
        assert "The same holds in 2 arms: DS T=4, DS T=10." in finding.sentence
        assert "family-wise p = .008" in finding.sentence
    assert {finding.between.partition(" against ")[2] for finding in blue} == {"Teacher", "NDS"}
    assert "seeds in place of 5 would show 2 points" in found[-1].sentence


def test_nothing_is_found_where_nothing_differs(synthetic: Callable[..., Study]) -> None:
    study = synthetic(temperatures=(1.0, 10.0))
    found = study_findings(ClassWise(study), GroupWise(study))
    assert [finding.kind for finding in found] == ["undecided"]
    assert "20 of 20 groups" in found[0].sentence


def test_models_that_learnt_nothing_are_warned_of_first(synthetic: Callable[..., Study]) -> None:
    study = synthetic(temperatures=(1.0, 10.0), seeds=(0, 1))
    arm = study.distilled[1]
    models = dict(study.arms[arm])
    zeros = np.zeros_like(models[0].test.labels)
    models[0] = replace(models[0], test=replace(models[0].test, predictions=zeros, logits=None))
    rng = np.random.default_rng(0)
    guesses = rng.permutation(models[1].test.labels)
    models[1] = replace(models[1], test=replace(models[1].test, predictions=guesses))
    study = replace(study, arms={**study.arms, arm: models})
    found = study_findings(ClassWise(study), GroupWise(study))
    assert [finding.kind for finding in found[:2]] == ["warning", "warning"]
    assert found[0].sentence == (
        "DS T=10 seed 0 predicts class circle for every example; that looks fair (EOD and DPD are "
        "0) because it treats all examples alike."
    )
    assert found[1].sentence.startswith("Not better than chance: DS T=10 seed 1 (accuracy 2")


def test_a_change_beyond_a_hundred_points_is_one_of_any_size() -> None:
    assert size_words("class", np.array([1.346, 2.329])) == "a change of a class by any size"
    words = size_words("class", np.array([0.05, 1.2]))
    assert words == "changes of a class by 5.0 points, and of some by any size"
