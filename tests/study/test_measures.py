"""The measures of auditors by group, of both sides, beside each other."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import (
    MetricFrame,
    demographic_parity_ratio,
    equal_opportunity_difference,
    false_positive_rate,
    selection_rate,
    true_positive_rate,
)
from helpers.prediction_files import people, weights
from sklearn.metrics import precision_score

from kdplatform.analysis.decisions import (
    DEMOGRAPHIC_PARITY_RATIO,
    EQUAL_OPPORTUNITY,
    PREDICTIVE_PARITY,
)
from kdplatform.errors import UserError
from kdplatform.predictions import Predictions
from kdplatform.study.fairness import Effort
from kdplatform.study.measures import Auditor, GroupMeasures, favourable_class

HIRE = 0
FAIR, UNFAIR = people(1), people(2, skill=1.4, against=1.2)


def checked(table: pd.DataFrame, weighted: bool = False) -> Predictions:
    numbers = {"hire": HIRE, "reject": 1}
    columns = {name: table[name].map(numbers) for name in ("label", "prediction")}
    found = Predictions.of(table.assign(**columns))
    return replace(found, weights=weights() if weighted else None)


def measured(
    *, weighted: bool = False, positive: int | None = HIRE, seeds: int = 1, share: float = 0.0
) -> GroupMeasures:
    a, b = [checked(FAIR, weighted)], [checked(UNFAIR, weighted)]
    if seeds > 1:
        a = [checked(people(10 + i)) for i in range(seeds)]
        b = [checked(people(20 + i, against=2.0)) for i in range(seeds)]
    auditor = Auditor(
        a, b, positive, effort=Effort(20, 20), min_group_size=5, min_group_share=share
    )
    return auditor.measure("race")


@pytest.mark.parametrize("weighted", [False, True])
def test_metrics_and_rates_are_fairlearns(weighted: bool) -> None:
    found = measured(weighted=weighted)
    known = UNFAIR["race"].notna().to_numpy()
    y_true, y_pred = (UNFAIR.loc[known, c] == "hire" for c in ("label", "prediction"))
    features = {"sensitive_features": UNFAIR.loc[known, "race"]}
    sample = {"sample_weight": weights()[known]} if weighted else {}
    metrics = {
        "selection_rate": selection_rate,
        "tpr": true_positive_rate,
        "fpr": false_positive_rate,
        "precision": precision_score,
    }
    frame = MetricFrame(
        metrics=metrics,
        y_true=y_true,
        y_pred=y_pred,
        sample_params=dict.fromkeys(metrics, sample),
        **features,
    )
    groups = found.groups.set_index("group").loc[list("abc")]
    for name in metrics:
        np.testing.assert_allclose(groups[f"{name}_b"], frame.by_group[name], atol=1e-12)
    rates = frame.by_group["selection_rate"]
    np.testing.assert_allclose(groups["impact_ratio_b"], rates / rates.max())
    assert groups["below_four_fifths_b"].tolist() == (rates < 0.8 * rates.max()).tolist()
    expected = {
        DEMOGRAPHIC_PARITY_RATIO: demographic_parity_ratio(y_true, y_pred, **features, **sample),
        EQUAL_OPPORTUNITY: equal_opportunity_difference(y_true, y_pred, **features, **sample),
        PREDICTIVE_PARITY: frame.difference()["precision"],
    }
    assert found.decisions is not None
    for name, value in expected.items():
        estimate = found.decisions.bootstrap.interval("B", name).estimate
        assert estimate == pytest.approx(value, abs=1e-12)


def test_scores_have_rates_ratios_and_means_of_their_own() -> None:
    found = measured()
    log_odds = np.array(UNFAIR["logits"].tolist())[:, 0]
    score = 1 / (1 + np.exp(-log_odds))
    above = pd.Series(score > np.median(score)).groupby(UNFAIR["race"]).mean()
    groups = found.groups.set_index("group").loc[list("abc")]
    np.testing.assert_allclose(groups["scoring_rate_b"], above)
    np.testing.assert_allclose(groups["scoring_ratio_b"], above / above.max())
    mean = pd.Series(score).groupby(UNFAIR["race"]).mean()
    np.testing.assert_allclose(groups["mean_score_b"], mean, rtol=1e-4)
    hired = (UNFAIR["label"] == "hire").groupby(UNFAIR["race"]).mean()
    np.testing.assert_allclose(groups["base_rate"], hired)


def test_differences_of_rates_have_intervals_and_those_of_small_shares_no_ratio() -> None:
    groups = measured(share=0.15).groups.set_index("group")
    b = groups.loc["b"]
    assert b["tpr_difference"] == pytest.approx(b["tpr_b"] - b["tpr_a"])
    assert b["tpr_difference_high"] < 0  # B turns down many of group b
    assert np.isnan(groups.loc["c", "impact_ratio_b"])
    assert pd.isna(groups.loc["c", "below_four_fifths_b"])
    assert groups.loc["c", "selection_rate_b"] > 0
    assert groups["share"].sum() == pytest.approx(1)


def test_agreement_of_the_sides_stands_beside_that_of_their_seeds() -> None:
    groups = measured(seeds=3).groups.set_index("group")
    b = groups.loc["b"]
    assert b["agreement"] < b["agreement_within_a"]
    assert b["p_excess"] == pytest.approx(0.1)  # the least that three and three seeds can give
    assert b["excess_disagreement"] > groups.loc["a", "excess_disagreement"]


def test_without_a_favourable_class_nothing_is_measured_that_needs_one() -> None:
    found = measured(positive=None)
    assert (found.decisions, found.scores) == (None, None)
    assert {"accuracy_a", "ece_a", "agreement"} <= set(found.groups)
    assert not {"selection_rate_a", "mean_score_a", "tpr_a"} & set(found.groups)


def test_the_favourable_class_is_class_one_of_two_or_the_one_named() -> None:
    table, names = checked(FAIR), ("hire", "reject")
    assert favourable_class(None, names, table) == 1
    assert favourable_class("hire", names, table) == 0
    assert favourable_class(None, (*names, "wait"), table) is None
    with pytest.raises(UserError, match="positive='hired' does not exist; did you mean 'hire'"):
        favourable_class("hired", names, table)
    with pytest.raises(UserError, match="'wait': labels are hire, reject, so there is no rate"):
        favourable_class("wait", (*names, "wait"), table)
