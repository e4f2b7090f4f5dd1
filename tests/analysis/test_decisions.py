"""Selection rates, impact ratios, equal opportunity, predictive parity, as auditors have them."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_ratio,
    equal_opportunity_difference,
    selection_rate,
)
from sklearn.metrics import precision_score

from kdplatform.analysis.decisions import (
    DEMOGRAPHIC_PARITY_RATIO,
    EQUAL_OPPORTUNITY,
    PREDICTIVE_PARITY,
    Decisions,
    decided,
    decisions,
    scored,
)
from kdplatform.predictions import Predictions

NAMES = np.array(list("abcdef"))


def people(
    groups: int = 3, size: int = 120, seed: int = 0, model: int = 1, rate: float = 0.5
) -> Predictions:
    """Three classes, of which 2 is the favourable one, in groups of one size."""
    shared, own = np.random.default_rng(seed), np.random.default_rng(model)
    n = groups * size
    labels = np.where(shared.random(n) < rate, 2, shared.integers(0, 2, n))
    logits = own.normal(size=(n, 3)) + 1.2 * np.eye(3)[labels]
    return Predictions.of(
        pd.DataFrame(
            {
                "id": range(n),
                "label": labels,
                "prediction": logits.argmax(axis=1),
                "race": NAMES[np.arange(n) % groups],
                "logits": list(logits.astype(np.float32)),
            }
        )
    )


def found(*tables: Predictions, **options: float) -> Decisions:
    return decisions(
        {"A": [decided(t, 2) for t in tables]},
        "race",
        **{"draws": 50, "permutations": 20, "min_group_size": 1, **options},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_metrics_equal_fairlearns(seed: int, weighted: bool) -> None:
    table = people(seed=seed)
    weights = np.random.default_rng(seed).uniform(0.1, 4, len(table)) if weighted else None
    one = found(replace(table, weights=weights)).bootstrap
    y_true, y_pred = table.labels == 2, table.predictions == 2
    features = {"sensitive_features": table.columns["race"]}
    sample = {"sample_weight": weights}
    values = {
        DEMOGRAPHIC_PARITY_RATIO: demographic_parity_ratio(y_true, y_pred, **features, **sample),
        EQUAL_OPPORTUNITY: equal_opportunity_difference(y_true, y_pred, **features, **sample),
        PREDICTIVE_PARITY: MetricFrame(
            metrics=precision_score,
            y_true=y_true,
            y_pred=y_pred,
            sample_params=sample if weighted else None,
            **features,
        ).difference(),
    }
    for name, value in values.items():
        assert one.interval("A", name).estimate == pytest.approx(value, abs=1e-12)


def test_rates_of_groups_equal_fairlearns_and_aequitas_ratio_to_the_largest() -> None:
    table = people()
    groups = found(table).groups.set_index("group")
    rates = MetricFrame(
        metrics=selection_rate,
        y_true=table.labels == 2,
        y_pred=table.predictions == 2,
        sensitive_features=table.columns["race"],
    ).by_group
    np.testing.assert_allclose(groups["selection_rate"], rates)
    np.testing.assert_allclose(groups["impact_ratio"], rates / rates.max())


def selected(*counts: int, size: int = 200) -> Predictions:
    """Groups of one size, of which so many are selected."""
    chosen = np.concatenate([np.arange(size) < count for count in counts]).astype(int)
    return Predictions.of(
        pd.DataFrame(
            {
                "id": range(len(chosen)),
                "label": np.arange(len(chosen)) % 2,
                "prediction": chosen,
                "race": np.repeat(NAMES[: len(counts)], size),
            }
        )
    )


@pytest.mark.parametrize(("groups", "expected"), [(2, 0.27), (6, 0.88)])
def test_equal_groups_fall_below_four_fifths_as_often_as_chance_has_it(
    groups: int, expected: float
) -> None:
    """Two groups of 200 at a rate of .2: 27% of audits; six of them: 88%."""
    table = selected(*[40] * groups)
    rule = decisions({"A": [table]}, "race", draws=2, permutations=4000).rule.iloc[0]
    assert (rule["impact_ratio"], rule["below"], rule["p_value"]) == (1.0, "", 1.0)
    assert rule["chance_of_below"] == pytest.approx(expected, abs=0.02)


def test_a_low_ratio_is_flagged_with_its_group_and_p() -> None:
    table = selected(100, 98, 60)
    one = decisions({"A": [table]}, "race", draws=2, permutations=999)
    rule = one.rule.iloc[0]
    assert (rule["impact_ratio"], rule["group"], rule["below"]) == (0.6, "c", "c")
    assert rule["p_value"] < 0.01
    assert rule["chance_of_below"] < 0.25
    assert one.groups["below_four_fifths"].tolist() == [False, False, True]


def test_p_is_uniform_when_groups_do_not_matter() -> None:
    rng, low = np.random.default_rng(0), 0
    for _ in range(60):
        table = selected(*rng.binomial(80, 0.4, 3), size=80)
        rule = decisions({"A": [table]}, "race", draws=2, permutations=99).rule
        low += rule["p_value"].iloc[0] <= 0.1
    assert 1 <= low <= 14  # 6 are expected


def test_a_small_share_is_measured_and_has_no_impact_ratio() -> None:
    small = selected(100, 90)
    extra = pd.DataFrame(
        {"id": range(900, 935), "label": [0, 1] * 17 + [1], "prediction": 0, "race": "z"}
    )
    frames = [pd.concat([small._frame(), extra], ignore_index=True) for _ in range(1)]
    one = decisions({"A": [Predictions.of(frames[0])]}, "race", draws=2, min_group_share=0.1)
    assert one.left_out == ("z",)
    groups = one.groups.set_index("group")
    assert groups.loc["z", "selection_rate"] == 0
    assert np.isnan(groups.loc["z", "impact_ratio"])
    assert one.rule.loc[0, "impact_ratio"] == pytest.approx(0.9)
    every = decisions({"A": [Predictions.of(frames[0])]}, "race", draws=2, min_group_share=0)
    assert every.left_out == ()
    assert every.rule.loc[0, ["impact_ratio", "below"]].tolist() == [0.0, "z"]


def test_precision_of_a_group_that_is_hardly_selected_is_not_measured() -> None:
    one = decisions({"A": [selected(100, 20, 90)]}, "race", draws=2)
    precision = one.groups.set_index("group")["precision"]
    assert np.isnan(precision["b"])
    assert precision[["a", "c"]].tolist() == [0.5, 0.5]
    assert one.bootstrap.interval("A", PREDICTIVE_PARITY).estimate == 0


def test_scoring_rates_are_shares_above_the_median_score() -> None:
    table = people()
    assert table.logits is not None
    odds = np.exp(table.logits.astype(float))
    score = odds[:, 2] / odds.sum(axis=1)
    above = scored(table, 2).predictions
    assert above.tolist() == (score > np.median(score)).astype(int).tolist()
    weights = np.where(score > 0.7, 5.0, 1.0)
    heavy = scored(replace(table, weights=weights), 2).predictions
    assert np.average(heavy, weights=weights) == pytest.approx(0.5, abs=0.01)
    assert heavy.sum() < above.sum()


def test_groups_that_do_not_matter_given_the_decision_have_predictive_parity() -> None:
    """Base rates differ, and so do selection rates; what a decision means does not."""
    rng = np.random.default_rng(0)
    group = np.repeat([0, 1], 600)
    prediction = (rng.random(1200) < np.where(group, 0.6, 0.3)).astype(int)
    label = (rng.random(1200) < np.where(prediction, 0.7, 0.2)).astype(int)
    table = Predictions.of(
        pd.DataFrame(
            {"id": range(1200), "label": label, "prediction": prediction, "race": NAMES[group]}
        )
    )
    null = decisions({"A": [table]}, "race", draws=2, permutations=400).bootstrap.null
    p = null.set_index("metric")["p_value"]
    assert p[PREDICTIVE_PARITY] > 0.05
    assert p[DEMOGRAPHIC_PARITY_RATIO] < 0.01
    assert p[EQUAL_OPPORTUNITY] < 0.01


def test_a_comparison_needs_more_than_the_difference_that_chance_gives() -> None:
    fair, unfair = selected(100, 100), selected(100, 40)
    arms = {"A": [fair], "B": [unfair]}
    compared = decisions(arms, "race", permutations=100)
    assert compared.compare("B", "A", DEMOGRAPHIC_PARITY_RATIO).verdict == "less fair"
    assert compared.compare("A", "B", DEMOGRAPHIC_PARITY_RATIO).verdict == "fairer"
    assert compared.compare("A", "A", DEMOGRAPHIC_PARITY_RATIO).verdict == "undecided"


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="min_group_share"):
        found(people(), min_group_share=1.5)
