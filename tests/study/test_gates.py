"""A gate judged on studies whose numbers are known."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.refusals import refusal_of

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.settings.gates import GateFile, Gates
from kdplatform.study.classes import ClassWise
from kdplatform.study.gate_metrics import check_names, gate_metrics
from kdplatform.study.gates import JudgedGate, JudgedRule, Outcome, judge_gate
from kdplatform.study.study import NDS, TEACHER, Model, Study, distilled_arm

EXAMPLES = 4000
SEX = np.array(["f", "m"])[np.arange(EXAMPLES) % 2]
DS = distilled_arm(4)
ROLES = (Role.TEACHER, Role.STUDENT)


def table(f: float, m: float, seed: int = 0, shift: int = 0) -> Predictions:
    """A model whose accuracies of both groups are these to the example."""
    labels = np.arange(EXAMPLES) // 2 % 2
    right = np.zeros(EXAMPLES, dtype=bool)
    for group, accuracy in (("f", f), ("m", m)):
        members = np.random.default_rng(seed).permutation(np.flatnonzero(group == SEX))
        right[members[shift : shift + round(accuracy * len(members))]] = True
    frame = pd.DataFrame(
        {
            "id": np.arange(EXAMPLES),
            "label": labels,
            "prediction": np.where(right, labels, 1 - labels),
            "sex": SEX,
        }
    )
    return Predictions.of(frame)


def study(seeds: int = 1, scores: Mapping[str, float] | None = None) -> Study:
    """f falls from 95.1 to 84.9% and m rises from 83.7 to 95.2; NDS is as the teacher."""
    arms = {
        TEACHER: {s: Model("", table(0.951, 0.837, s)) for s in range(seeds)},
        NDS: {s: Model("", table(0.951, 0.837, s)) for s in range(seeds)},
        DS: {s: Model("", table(0.849, 0.952, s + 50), scores or {}) for s in range(seeds)},
    }
    return Study("two groups", ("no", "yes"), arms, ("sex",))


def judged(rules: str | dict[str, dict[str, object]], own: Study, **fields: object) -> JudgedGate:
    gates = Gates.model_validate({"rules": rules, "cannot_tell": "failed", **fields})
    file = GateFile(Path("gates.yaml"), "ab" * 32, gates)
    return judge_gate(file, own, ClassWise(own), gate_metrics(own.attributes, ROLES))


def only(rules: dict[str, dict[str, object]], own: Study, **fields: object) -> JudgedRule:
    [rule] = judged(rules, own, **fields).rules
    return rule


def test_the_group_that_lost_fails_where_accuracy_passes() -> None:
    gate = judged(
        {"accuracy": {"max_drop": 0.02}, "worst_group_drop": {"max": 0.02, "by": "interval"}},
        study(),
    )
    accuracy, group = gate.rules
    assert accuracy.outcome is Outcome.PASSED
    assert accuracy.measured.estimate == pytest.approx(-0.0065)
    low, high = (-accuracy.measured.high, -accuracy.measured.low)
    assert accuracy.sentence.endswith(f"it rose by 0.0065 (95% interval {low:.4g} to {high:.4g})")
    assert group.outcome is Outcome.FAILED
    assert group.measured.estimate == pytest.approx(0.102)
    assert 0.02 < group.measured.low < 0.102 < group.measured.high
    assert gate.outcome is Outcome.FAILED
    assert gate.broken == [group]
    assert gate.lines()[0] == (
        "gate failed: 1 of 2 rules broken (gates.yaml, thresholds without a date)"
    )


def test_fairness_is_that_of_the_table_and_its_interval_that_of_the_bootstrap() -> None:
    own = study()
    found = only({"fairness/sex/eod": {"max": 0.2, "by": "interval"}}, own)
    model = own.arms[DS][0].test
    assert found.measured.estimate == pytest.approx(fairness_metrics(model, "sex").eod)
    bootstrap = bootstrap_fairness({"arm": [model]}, "sex", draws=2000)
    limits = bootstrap.interval("arm", "eod")
    assert found.measured.low == pytest.approx(limits.low, abs=0.005)
    assert found.measured.high == pytest.approx(limits.high, abs=0.005)
    assert found.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    ("bound", "outcome"),
    [(0.85, Outcome.PASSED), (0.9005, Outcome.CANNOT_TELL), (0.95, Outcome.FAILED)],
)
def test_an_interval_gives_three_outcomes(bound: float, outcome: Outcome) -> None:
    found = only({"accuracy": {"min": bound, "by": "interval"}}, study())
    assert found.measured.estimate == pytest.approx(0.9005)
    assert found.outcome is outcome


@pytest.mark.parametrize("way", ["passed", "failed"])
def test_the_file_says_how_it_counts_what_cannot_be_told(way: str) -> None:
    rules: dict[str, dict[str, object]] = {"accuracy": {"min": 0.9005, "by": "interval"}}
    gate = judged(rules, study(), cannot_tell=way)
    assert gate.outcome.value == way
    assert f"cannot tell (counts as {way})" in gate.lines()[1]


def test_what_is_not_measured_counts_as_failed_and_says_so() -> None:
    found = only({"ece": {"max": 1.0}}, study())
    assert found.outcome is Outcome.FAILED
    assert "not measured here (NaN), which counts as failed" in found.sentence


def test_scores_of_the_runs_are_judged() -> None:
    assert only({"ece": {"max": 0.1}}, study(scores={"test/ece": 0.05})).outcome is Outcome.PASSED


def test_counts_of_classes_and_groups_are_those_of_the_tests() -> None:
    own = study()
    rules: dict[str, dict[str, object]] = {"n_sg_holm": {"max": 1}, "n_sc": {"max": 2}}
    groups, classes = judged(rules, own).rules
    assert groups.measured.estimate == 2
    assert groups.outcome is Outcome.FAILED
    counts = ClassWise(own).tests[DS, Role.STUDENT].counts
    assert classes.measured.estimate == counts.significant


def test_the_worst_class_falls_by_what_it_lost() -> None:
    own = study()
    found = only({"worst_class_accuracy": {"max_drop": 0.0, "by": "interval"}}, own)
    assert found.measured.low < found.measured.estimate < found.measured.high
    worst = [
        min(t.correct[t.labels == c].mean() for c in (0, 1))
        for t in (own.arms[TEACHER][0].test, own.arms[DS][0].test)
    ]
    assert found.measured.estimate == pytest.approx(worst[0] - worst[1], abs=0.01)


def test_a_change_is_measured_from_the_role_that_the_file_names() -> None:
    own = study()
    weak = {0: Model("", table(0.5, 0.5, 9))}
    own = Study("x", own.class_names, {**own.arms, NDS: weak}, ("sex",))
    rules: dict[str, dict[str, object]] = {"accuracy": {"max_rise": 0.1}}
    assert only(rules, own, against="teacher").outcome is Outcome.PASSED
    assert only(rules, own, against="student").outcome is Outcome.FAILED


@pytest.mark.parametrize(("arms", "outcome"), [("every", "failed"), ("any", "passed")])
def test_every_arm_must_pass_or_any(arms: str, outcome: str) -> None:
    own = study()
    good = {0: Model("", table(0.99, 0.99, 3))}
    own = Study("x", own.class_names, {**own.arms, distilled_arm(8): good}, ("sex",))
    gate = judged({"accuracy": {"min": 0.95}}, own, arms=arms)
    assert dict(gate.arms) == {"DS T=4": Outcome.FAILED, "DS T=8": Outcome.PASSED}
    assert gate.outcome.value == outcome
    assert f"1 of 2 arms passed, {arms} must" in gate.sentence


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"worst_clas_accuracy": {"max": 1}}, "did you mean 'worst_class_accuracy'"),
        ({"eod": {"max": 0.1}}, "'eod' does not say which; allowed: fairness/sex/eod"),
        ({"fairness/race/eod": {"max": 0.1}}, "did you mean 'fairness/sex/eod'"),
        ({"accuracy": {"max_drop": 2}}, "the metric is a fraction"),
        ({"n_sc": {"max": 1, "by": "interval"}}, "it has no interval"),
        ({"n_sc": {"max_drop": 1}}, "a pair of models already; allowed: min, max"),
        ({"accuracy": {"min": 0.1}, "test/accuracy": {"min": 0.2}}, "are of one metric"),
    ],
)
def test_a_rule_that_does_not_fit_its_metric_is_refused(
    rules: dict[str, dict[str, object]], said: str
) -> None:
    assert said in refusal_of(judged, rules, study())


def test_a_column_called_as_an_intersection_is_refused() -> None:
    check_names(["race", "sex", ("race", "sex")])
    line = refusal_of(check_names, ["race", "sex", "race & sex", ("race", "sex")])
    assert line.startswith("attributes: a column is called 'race & sex'")


def test_an_intersection_is_named_as_its_attributes_are() -> None:
    known = gate_metrics([("race", "sex")], ROLES)
    assert "fairness/race :26: sex/eod" in known
    own = study()
    races = np.array(["a", "b"])[np.arange(EXAMPLES) // 4 % 2]

    def with_race(model: Model) -> Model:
        return Model("", replace(model.test, columns=model.test.columns.assign(race=races)))

    arms = {arm: {0: with_race(models[0])} for arm, models in own.arms.items()}
    own = Study("x", own.class_names, arms, (("race", "sex"),))
    found = only({"fairness/race & sex/worst_group_accuracy": {"min": 0.8}}, own)
    assert found.outcome is Outcome.PASSED
    assert found.metric == "fairness/race :26: sex/worst_group_accuracy"
    assert ": fairness/race & sex/worst_group_accuracy min 0.8: it is" in found.sentence
    line = refusal_of(only, {"fairness/race & sex/eodd": {"max": 0.1}}, own)
    assert "did you mean 'fairness/race & sex/eod'" in line
    assert ":26:" not in line
