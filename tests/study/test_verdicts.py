"""The rules of the verdicts, on intervals and on studies whose truth is known."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from kdplatform.analysis.effects import trend_over_temperature
from kdplatform.analysis.intervals import Interval, change_over_temperature, mean_over_seeds
from kdplatform.roles import Role
from kdplatform.study import verdicts
from kdplatform.study.claims import Claim, judge
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import Effort, GroupFairness
from kdplatform.study.study import Study, distilled_arm
from kdplatform.study.verdicts import Verdict

SUPPORTED, CONTRADICTED, UNDECIDED = Verdict
FEW = Effort(draws=300, permutations=100)
NAN = float("nan")


@pytest.mark.parametrize(
    ("sign", "interval", "chance", "verdict"),
    [
        (1, (2, 1, 3), 0, SUPPORTED),
        (-1, (2, 1, 3), 0, CONTRADICTED),
        (-1, (-2, -3, -1), 0, SUPPORTED),
        (1, (-2, -3, -1), 0, CONTRADICTED),
        (1, (1, -1, 3), 0, UNDECIDED),
        (1, (1, 0, 2), 0, UNDECIDED),
        (1, (2, NAN, NAN), 0, UNDECIDED),
        (1, (2, 1, 3), 1.5, UNDECIDED),
        (1, (2, 1, 3), -1.5, SUPPORTED),
        (-1, (-2, -3, -1), -1.5, UNDECIDED),
        (1, (1, -1, 3), -2, UNDECIDED),
        (1, (2, 1, 3), NAN, UNDECIDED),
    ],
)
def test_a_difference_is_judged_by_its_interval(
    sign: int, interval: tuple[float, float, float], chance: float, verdict: Verdict
) -> None:
    assert verdicts.by_interval(sign, Interval(*interval), chance) is verdict


def trend_of(grid: np.ndarray) -> Verdict:
    """The verdict on "it rises" for values [seeds, temperatures]."""
    temperatures = np.arange(1.0, grid.shape[1] + 1)
    runs = pd.DataFrame(grid, columns=temperatures).rename_axis("seed").reset_index()
    runs = runs.melt("seed", var_name="temperature", value_name="value")
    trend = trend_over_temperature(runs, "value")
    change = change_over_temperature(grid, temperatures)
    return verdicts.by_trend(1, trend, change)


def test_a_trend_needs_order_and_size() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.1, (5, 6))
    rising = np.arange(6) + noise
    assert trend_of(rising) is SUPPORTED
    assert trend_of(-rising) is CONTRADICTED
    assert trend_of(noise) is UNDECIDED
    assert trend_of(rising[:1]) is UNDECIDED


def test_order_and_size_must_agree() -> None:
    """Every seed rises at each step but the last, where it falls far below its start."""
    noise = np.random.default_rng(0).normal(0, 1e-3, (5, 8))
    grid = np.tile([1, 2, 3, 4, 5, 6, 7, -40.0], (5, 1)) + noise
    change = change_over_temperature(grid, np.arange(1.0, 9))
    assert change.high < 0
    assert trend_of(grid[:, :7]) is SUPPORTED
    assert trend_of(grid) is UNDECIDED


def test_no_spread_over_seeds_is_no_certainty() -> None:
    interval = mean_over_seeds(np.array([0.1, 0.1, 0.1]))
    assert interval.estimate == pytest.approx(0.1)
    assert verdicts.by_interval(1, interval) is UNDECIDED


def classes(shift: float, half: float, n: int = 4) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "n": 50,
            "p_value": 0.5,
            "df": 8.0,
            "normalised_difference": [shift] + [0.0] * (n - 1),
            "normalised_low": [shift - half] + [-half] * (n - 1),
            "normalised_high": [shift + half] + [half] * (n - 1),
        }
    )


@pytest.mark.parametrize(
    ("p_count", "shift", "half", "verdict"),
    [
        (0.01, 0.10, 0.05, SUPPORTED),
        (0.30, 0.00, 0.001, CONTRADICTED),
        (0.30, 0.00, 0.015, UNDECIDED),  # Bonferroni's interval is wider than the limit
        (0.30, 0.03, 0.001, UNDECIDED),
    ],
)
def test_classes_beyond_chance(p_count: float, shift: float, half: float, verdict: Verdict) -> None:
    judged, largest = verdicts.beyond_chance(p_count, classes(shift, half))
    assert judged is verdict
    assert largest.estimate == pytest.approx(shift)
    assert largest.low < shift - half


def test_a_class_without_a_test_prevents_the_claim_that_none_differs() -> None:
    table = classes(0.0, 0.001)
    table.loc[2, ["p_value", "normalised_low", "normalised_high"]] = np.nan
    assert verdicts.beyond_chance(0.5, table)[0] is UNDECIDED


# ---- whole studies


def judged(study: Study) -> dict[str, Claim]:
    fairness = {str(name): GroupFairness(study, name, FEW) for name in study.attributes}
    return {claim.claim: claim for claim in judge(study, ClassWise(study), fairness)}


def as_the_paper_says(role: Role, temperature: float) -> np.ndarray:
    """The student is bad at red; the higher T up to 10, the less so, and then again."""
    rates = np.full((4, 3), 0.9 if role is Role.TEACHER else 0.85)
    if role is Role.STUDENT:
        rates -= 0.06
        rates[:, 0] -= 0.34
    elif role is Role.DISTILLED:
        rates[:, 0] -= 0.34 - 0.03 * temperature if temperature <= 10 else 0.34
    return rates


def against_the_paper(role: Role, temperature: float) -> np.ndarray:
    """Distillation hurts, the more the higher T, and red most."""
    rates = np.full((4, 3), 0.9)
    if role is Role.DISTILLED:
        rates -= 0.05
        rates[:, 0] -= 0.03 * temperature if temperature <= 10 else 0.0
    return rates


ACCURACY = "DS is more accurate than the NDS"
NDS_EOD = "DS is fairer than the NDS: EOD (color)"
TREND_EOD = "Fairness improves with T up to 10: EOD (color) falls"
TEACHER_EOD = "DS at high T is fairer than its teacher: EOD (color)"
TURN_EOD = "Very high T turns back: EOD (color) rises again"


def test_a_study_as_the_paper_says_supports_it(synthetic: Callable[..., Study]) -> None:
    claims = judged(synthetic(as_the_paper_says, attributes=("color",)))
    for name in (ACCURACY, NDS_EOD, TREND_EOD, TURN_EOD):
        assert claims[name].verdict is SUPPORTED, name
    assert claims[TREND_EOD].sample.startswith("5 seeds × 5 temperatures (T = 1 to 10)")
    assert claims[TURN_EOD].quantity == "mean EOD of DS over T = 20, minus DS T=10"


def test_a_study_of_the_opposite_contradicts_it(synthetic: Callable[..., Study]) -> None:
    claims = judged(synthetic(against_the_paper, attributes=("color",)))
    for name in (ACCURACY, NDS_EOD, TREND_EOD, TEACHER_EOD, TURN_EOD):
        assert claims[name].verdict is CONTRADICTED, name


def test_a_study_without_effects_decides_nothing(synthetic: Callable[..., Study]) -> None:
    claims = judged(synthetic(attributes=("color",)))
    decided = [claim for claim in claims.values() if claim.verdict is not UNDECIDED]
    assert len(decided) <= 1
    assert all(np.isfinite(claims[name].interval).all() for name in (ACCURACY, NDS_EOD))


def test_one_seed_decides_nothing_whatever_the_effect(synthetic: Callable[..., Study]) -> None:
    claims = judged(synthetic(as_the_paper_says, seeds=(0,), attributes=("color",)))
    assert {claim.verdict for claim in claims.values()} == {UNDECIDED}
    assert "one seed" in claims[NDS_EOD].remark


def test_an_eod_that_falls_with_errors_alone_is_not_called_fairer(
    synthetic: Callable[..., Study],
) -> None:
    def more_accurate(role: Role, temperature: float) -> np.ndarray:
        """No group is worse off than another; DS has far fewer errors, so chance adds less."""
        return np.full((4, 3), 0.99 if role is Role.DISTILLED else 0.6)

    claims = judged(synthetic(more_accurate, attributes=("color",), spread=0.002))
    claim = claims[NDS_EOD]
    assert claim.interval.high < 0
    assert claim.verdict is UNDECIDED
    assert "not beyond its chance level" in claim.remark


def test_a_trend_of_the_chance_level_is_none_of_fairness(
    synthetic: Callable[..., Study],
) -> None:
    def ever_more_accurate(role: Role, temperature: float) -> np.ndarray:
        return np.full((4, 3), min(0.99, 0.5 + 0.05 * temperature))

    claim = judged(synthetic(ever_more_accurate, attributes=("color",), spread=0.0))[TREND_EOD]
    assert claim.interval.high < 0
    assert claim.p_value < 0.05
    assert claim.verdict is UNDECIDED
    assert "not beyond the trend of its chance level" in claim.remark


def test_levelling_down_is_said(synthetic: Callable[..., Study]) -> None:
    def all_worse(role: Role, temperature: float) -> np.ndarray:
        rates = np.full((4, 3), 0.9)
        if role is Role.DISTILLED:
            rates[:] = 0.5
        else:
            rates[:, 0] -= 0.35
        return rates

    claim = judged(synthetic(all_worse, attributes=("color",)))[NDS_EOD]
    assert claim.verdict is SUPPORTED
    assert "levelling down" in claim.remark


def test_trends_use_the_largest_part_without_gaps(synthetic: Callable[..., Study]) -> None:
    study = synthetic(as_the_paper_says, attributes=("color",))
    arms = {arm: dict(models) for arm, models in study.arms.items()}
    for arm in arms:
        if arm.temperature == 2.0:
            del arms[arm][3], arms[arm][4]
    claims = judged(Study("gaps", study.class_names, arms, study.attributes))
    assert claims[TREND_EOD].sample.startswith("5 seeds × 4 temperatures (T = 1 to 10)")
    assert claims[TREND_EOD].verdict is SUPPORTED


def test_every_method_is_judged_by_itself(synthetic: Callable[..., Study]) -> None:
    kd = synthetic(as_the_paper_says, attributes=("color",))
    worse = synthetic(against_the_paper, attributes=("color",))
    other = {distilled_arm(a.temperature or 0, "rld"): worse.arms[a] for a in worse.distilled}
    claims = judged(Study("two", kd.class_names, {**kd.arms, **other}, kd.attributes))
    assert claims[f"kd: {ACCURACY}"].verdict is SUPPORTED
    assert claims[f"kd: {TREND_EOD}"].verdict is SUPPORTED
    assert claims[f"rld: {TREND_EOD}"].verdict is CONTRADICTED
