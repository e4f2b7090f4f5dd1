"""What may be said of the fairness of two arms, beside what chance alone gives."""

import numpy as np
import pandas as pd

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.group_fairness import METRICS
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.verdict import HIGHER_IS_FAIRER, Change
from kdplatform.study.verdicts import Verdict, by_interval

FAIRER, LESS_FAIR, UNDECIDED = Verdict


def tables(seeds: int, n: int, accuracy: float = 0.8, model_seed: int = 1) -> list[pd.DataFrame]:
    """Models on the same examples, whose errors are partly shared and more in group a."""
    examples = np.random.default_rng(0)
    labels, group = examples.integers(0, 2, n), examples.integers(0, 3, n)
    hard = examples.random(n)
    rng = np.random.default_rng(model_seed)
    found = []
    for _ in range(seeds):
        wrong = 0.5 * (hard + rng.random(n)) > accuracy - 0.1 * (group == 0)
        columns = {
            "prediction": np.where(wrong, 1 - labels, labels),
            "color": np.array(list("abc"))[group],
        }
        found.append(pd.DataFrame({"id": np.arange(n), "label": labels} | columns))
    return found


def changes(
    ds: list[pd.DataFrame], nds: list[pd.DataFrame], permutations: int = 50
) -> dict[str, Change]:
    arms = {"nds": nds, "ds": ds}
    bootstrap = bootstrap_fairness(arms, "color", draws=500)
    null = parity_null(arms, "color", permutations=permutations)
    return {m: bootstrap.change(["ds"], "nds", m, null) for m in METRICS}


def verdict(metric: str, change: Change, chance: float | None = None) -> Verdict:
    sign = 1 if metric in HIGHER_IS_FAIRER else -1
    return by_interval(sign, change.interval, change.chance if chance is None else chance)


def test_a_model_compared_with_itself_differs_by_exactly_zero() -> None:
    models = tables(3, 300)
    for metric, change in changes(models, models).items():
        assert (*change.interval, change.chance) == (0, 0, 0, 0)
        assert verdict(metric, change) is UNDECIDED
        assert not change.levelling_down


def test_levelling_down_is_flagged_when_the_gap_shrinks_because_every_group_falls() -> None:
    reference = tables(1, 2000)[0]
    worse = reference.copy()
    best = worse["color"] != "a"
    rng = np.random.default_rng(0)
    spoiled = (best & (rng.random(2000) < 0.3)) | (~best & (rng.random(2000) < 0.05))
    worse.loc[spoiled, "prediction"] = 1 - worse.loc[spoiled, "label"]
    change = changes([worse], [reference])["accuracy_gap"]
    assert change.interval.estimate < 0
    assert change.levelling_down
    assert not any(back.levelling_down for back in changes([reference], [worse]).values())


def test_clear_improvement_is_called_fairer_and_its_reverse_less_fair() -> None:
    fair, unfair = tables(1, 4000, accuracy=0.99), tables(1, 4000)
    for arms, expected in (((fair, unfair), FAIRER), ((unfair, fair), LESS_FAIR)):
        found = changes(*arms)
        for metric in ("accuracy_gap", "worst_group_accuracy"):
            assert verdict(metric, found[metric]) is expected


def test_more_accurate_is_not_fairer_when_groups_never_mattered() -> None:
    # errors that ignore the groups: EOD over small groups falls with the error rate alone
    rng = np.random.default_rng(8)
    labels, group = rng.integers(0, 5, 1500), rng.integers(0, 6, 1500)
    arms = {}
    for arm, error in (("nds", 0.3), ("ds", 0.05)):
        wrong = rng.random((3, 1500)) < error
        predictions = np.where(wrong, (labels + rng.integers(1, 5, (3, 1500))) % 5, labels)
        content = {"id": range(1500), "label": labels, "color": group}
        arms[arm] = [pd.DataFrame(content | {"prediction": p}) for p in predictions]
    found = changes(arms["ds"], arms["nds"], permutations=200)
    assert verdict("eod", found["eod"], chance=0.0) is FAIRER
    assert found["eod"].chance < -0.05
    assert verdict("eod", found["eod"]) is UNDECIDED
    assert verdict("worst_group_accuracy", found["worst_group_accuracy"]) is FAIRER


def test_unfairness_that_is_real_is_decided_with_its_chance_level() -> None:
    found = changes(tables(3, 4000, accuracy=0.99), tables(3, 4000), permutations=100)
    assert verdict("accuracy_gap", found["accuracy_gap"]) is FAIRER


def test_one_group_leaves_differences_undefined() -> None:
    models = [table.assign(color="a") for table in tables(2, 300)]
    change = changes(models, models)["dpd"]
    assert np.isnan(change.interval).all()
    assert verdict("dpd", change) is UNDECIDED
