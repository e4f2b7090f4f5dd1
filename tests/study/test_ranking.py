"""Ranking metrics of models and studies of many classes."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from mlflow.utils.validation import _validate_metric_name

from kdplatform.analysis.intervals import paired_difference
from kdplatform.predictions import Predictions
from kdplatform.reporting.comparison import build_comparison
from kdplatform.reporting.ranking_tables import ranking_tables
from kdplatform.reporting.study_page import build_report
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import Effort
from kdplatform.study.ranking import (
    GINI,
    MRR,
    Ranked,
    class_strata,
    group_metric,
    ndcg_metric,
    ranking_metrics,
    recall_metric,
    stratum_metric,
)
from kdplatform.study.ranking_changes import POPULAR, change, judge_exposure
from kdplatform.study.sides import Side
from kdplatform.study.study import (
    NDS,
    TEACHER,
    Arm,
    Model,
    Study,
    distilled_arm,
    scored_model,
)
from kdplatform.study.verdicts import Verdict

CLASSES, EXAMPLES = 60, 300
COUNTS = tuple(np.r_[np.full(10, 50), np.full(50, 10)])
UNKD, PLAIN_RANKS = (Arm(Role.DISTILLED, name) for name in ("unkd", "rank_distillation"))


def table(seed: int, lift: float = 0.0) -> Predictions:
    """Returns a model whose first ten classes, the frequent ones, are lifted."""
    labels = np.random.default_rng(99).integers(0, CLASSES, EXAMPLES)
    random = np.random.default_rng(seed)
    logits = random.normal(size=(EXAMPLES, CLASSES)).astype(np.float32)
    logits[np.arange(EXAMPLES), labels] += 2
    logits[:, :10] += lift
    groups = np.where(np.arange(EXAMPLES) % 3, "a", "b").astype(object)
    columns = pd.DataFrame({"group": groups})
    return Predictions(np.arange(EXAMPLES), labels, logits.argmax(1), logits, columns)


def study(lifts: dict[Arm, float], seeds: int = 4) -> Study:
    ranked = Ranked(COUNTS, ("group",), 30)
    arms: dict[Arm, dict[int, Model]] = {
        arm: {
            seed: scored_model(str(seed), table(seed + 10 * place, lift), ranked=ranked)
            for seed in range(seeds)
        }
        for place, (arm, lift) in enumerate(lifts.items())
    }
    return Study("many", tuple(map(str, range(CLASSES))), arms, ("group",))


LIFTS = {TEACHER: 0.0, NDS: 1.0, PLAIN_RANKS: 1.0, UNKD: 0.2}


def test_metrics_of_strata_and_groups_are_those_of_their_examples() -> None:
    own = table(0)
    metrics = ranking_metrics(own, Ranked(COUNTS, ("group",), 30))
    for chosen, name in (
        (own.labels < 10, stratum_metric(1, "recall_at_10")),
        (own.labels >= 10, stratum_metric(2, "recall_at_10")),
        (own.columns["group"].to_numpy() == "b", group_metric("group", "b", "recall_at_10")),
    ):
        part = Predictions(
            own.ids[chosen],
            own.labels[chosen],
            own.predictions[chosen],
            own.logits[chosen] if own.logits is not None else None,
            own.columns[chosen].reset_index(drop=True),
        )
        assert metrics[name] == ranking_metrics(part, Ranked())[recall_metric()]
    assert metrics[stratum_metric(1, "training")] == 0.5
    shares = [metrics[stratum_metric(number, "places_at_10")] for number in (1, 2)]
    assert sum(shares) == pytest.approx(1)
    for name in metrics:
        _validate_metric_name(name)


def test_few_classes_have_no_ranking_and_neither_have_predictions_without_logits() -> None:
    own = table(0)
    assert own.logits is not None
    inside = own.labels < 50
    few = Predictions(
        own.ids[inside], own.labels[inside], own.logits[inside, :50].argmax(1),
        own.logits[inside, :50], own.columns[inside].reset_index(drop=True),
    )  # fmt: skip
    assert ranking_metrics(few, Ranked(COUNTS[:50])) == {}
    bare = Predictions(own.ids, own.labels, own.predictions, None, own.columns)
    assert ranking_metrics(bare, Ranked(COUNTS)) == {}


def test_equally_frequent_classes_form_no_strata() -> None:
    assert class_strata([20] * CLASSES) == []
    assert class_strata(()) == []
    found = ranking_metrics(table(0), Ranked([20] * CLASSES))
    assert {MRR, GINI} < set(found)
    assert not any("stratum" in name for name in found)


def test_small_groups_are_not_measured() -> None:
    found = ranking_metrics(table(0), Ranked(COUNTS, ("group",), 150))
    assert group_metric("group", "a", "recall_at_10") in found
    assert group_metric("group", "b", "recall_at_10") not in found


def test_exposure_is_judged_by_the_paired_difference_of_seeds() -> None:
    own = study(LIFTS)
    [claim] = judge_exposure(own)
    assert claim.claim == ("unkd recommends the most frequent classes less than rank_distillation")
    assert claim.verdict is Verdict.SUPPORTED
    values = [own.values(arm, POPULAR) for arm in (UNKD, PLAIN_RANKS)]
    assert claim.interval == paired_difference(*values).interval
    assert claim.interval.high < 0
    assert change(own, POPULAR, UNKD, NDS).estimate < 0
    [undecided] = judge_exposure(study({**LIFTS, UNKD: 1.0}))
    assert undecided.verdict is Verdict.UNDECIDED
    assert judge_exposure(study({TEACHER: 0.0, NDS: 1.0, UNKD: 1.0})) == []


def test_a_method_without_a_temperature_is_held_against_plain_distillation_near_its_usual() -> None:
    plain = {distilled_arm(temperature): 1.0 for temperature in (1, 4, 20)}
    claims = judge_exposure(study({TEACHER: 0.0, **plain, UNKD: 0.2, PLAIN_RANKS: 1.0}))
    assert [claim.claim.rpartition("than ")[2] for claim in claims] == ["kd T=4", "kd T=4"]
    assert claims[0].verdict is Verdict.SUPPORTED


def test_a_model_that_is_never_right_leaves_its_comparison_out_with_the_reason() -> None:
    own = study({NDS: 1.0, UNKD: 0.2}, seeds=2)
    right = own.arms[NDS][1].test
    wrong = replace(right, predictions=(right.labels + 1) % CLASSES, logits=None)
    blind = Study(
        "", own.class_names, {**own.arms, NDS: {0: own.arms[NDS][0], 1: Model("", wrong)}}
    )
    classes = ClassWise(blind)
    assert (UNKD, Role.STUDENT) not in classes.tests
    assert classes.reasons[UNKD, Role.STUDENT].startswith("NDS seed 1 predicts no example")


def test_the_report_has_the_tables_of_ranking() -> None:
    own = study(LIFTS)
    keys = [each.key for each in ranking_tables(own)]
    assert keys == ["ranking", "exposure", "ranking_groups"]
    report = build_report(own, Effort(20, 5))
    assert {*keys, "ranking_verdicts"} <= set(report.frames)
    frame = report.frames["exposure"].set_index("arm")
    expected = own.values(UNKD, POPULAR).mean()
    assert frame.loc["DS unkd", POPULAR] == pytest.approx(expected)
    difference = change(own, POPULAR, UNKD, PLAIN_RANKS)
    assert frame.loc["DS unkd", f"{POPULAR}_change_method"] == pytest.approx(difference.estimate)
    assert np.isnan(frame.loc["DS rank_distillation", f"{POPULAR}_change_method"])
    groups = report.frames["ranking_groups"]
    assert len(groups) == 2 * len(LIFTS)
    assert any("recommends" in claim.claim for claim in report.of_methods)


def test_a_study_of_few_classes_has_no_such_section() -> None:
    own = study(LIFTS)
    arms = {
        arm: {seed: Model(model.run_id, model.test) for seed, model in models.items()}
        for arm, models in own.arms.items()
    }
    assert ranking_tables(Study("few", own.class_names, arms)) == []
    assert judge_exposure(Study("few", own.class_names, arms)) == []


def test_a_comparison_of_many_classes_holds_rankings_against_each_other() -> None:
    sides = [Side(name, [table(seed, lift)]) for name, seed, lift in (("a", 0, 0.0), ("b", 1, 3.0))]
    comparison = build_comparison(*sides, (), effort=Effort(20, 5))
    rows = comparison.verdicts.frame.set_index("what")
    metrics = [ranking_metrics(side.tables[0], Ranked()) for side in sides]
    for what, name in (
        ("recall@10", recall_metric()),
        ("NDCG@10", ndcg_metric()),
        ("Gini of the top 10 places", GINI),
    ):
        assert rows.loc[what, ["a", "b"]].tolist() == pytest.approx([own[name] for own in metrics])
    assert rows.loc["recall@10", "verdict"] == "B worse"
