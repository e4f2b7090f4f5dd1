"""Methods compared with plain distillation, on studies whose differences are known."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from helpers.synthetic_studies import SEEDS, Generator

from kdplatform.analysis.intervals import paired_difference
from kdplatform.roles import Role
from kdplatform.study.claims import Claim
from kdplatform.study.fairness import Effort, GroupFairness
from kdplatform.study.methods import Compared, compare_methods
from kdplatform.study.metrics import ACCURACY, WORST_CLASS_ACCURACY, fairness_metric
from kdplatform.study.study import Arm, Model, Study, distilled_arm, scored_model
from kdplatform.study.verdicts import Verdict

BETTER, ALIKE, WITHOUT_T = distilled_arm(4.0, "rld"), distilled_arm(4.0, "dkd"), "cist"
PLAIN = distilled_arm(4.0)
FREE = Arm(Role.DISTILLED, WITHOUT_T)
ALONE = distilled_arm(7.0, "rld")
EOD = fairness_metric("color", "eod")


def models(generator: Generator, rates: np.ndarray, first: int) -> dict[int, Model]:
    return {
        seed: scored_model(f"run {first + seed}", generator.table(rates, first + seed), 1.5)
        for seed in SEEDS
    }


@pytest.fixture(scope="module")
def study(synthetic: Callable[..., Study]) -> Study:
    """Plain distillation at T = 1 and 4; rld is 10 points better, cist unfair, dkd as kd."""
    plain = synthetic(temperatures=(1.0, 4.0), examples=600)
    made = partial(models, Generator(600))
    usual = np.full((4, 3), 0.8)
    unfair = usual - 0.3 * np.array([0, 0, 1])
    arms = {
        **plain.arms,
        BETTER: made(usual + 0.1, 20_000),
        ALONE: made(usual, 21_000),
        ALIKE: made(usual, 22_000),
        FREE: made(unfair, 23_000),
    }
    return Study("methods", plain.class_names, arms, ("color",))


@pytest.fixture(scope="module")
def compared(study: Study) -> dict[Arm, Compared]:
    fairness = GroupFairness(study, "color", Effort(draws=200, permutations=50))
    return {each.arm: each for each in compare_methods(study, [fairness])}


def test_a_method_is_held_against_plain_distillation_at_its_own_temperature(compared):
    assert {arm: each.reference for arm, each in compared.items()} == {
        BETTER: PLAIN,
        ALIKE: PLAIN,
        # Without a temperature: against the one nearest to the usual 4.
        FREE: PLAIN,
        # There is no plain distillation at its temperature.
        ALONE: None,
    }
    assert compared[ALONE].claims == {}


def test_a_better_method_is_supported_and_an_equal_one_undecided(compared):
    better, alike = compared[BETTER].claims[ACCURACY], compared[ALIKE].claims[ACCURACY]
    assert better.claim == "rld is more accurate than kd at T=4"
    assert (better.verdict, alike.verdict) == (Verdict.SUPPORTED, Verdict.UNDECIDED)
    assert better.interval.estimate == pytest.approx(0.1, abs=0.03)
    assert better.interval.low < 0.1 < better.interval.high


def test_an_unfair_method_is_contradicted_where_less_is_better(compared):
    claim = compared[FREE].claims[EOD]
    assert claim.claim == "cist has a lower EOD than kd at T=4 (color)"
    assert claim.verdict is Verdict.CONTRADICTED
    assert claim.interval.estimate > 0.1


def test_differences_are_those_of_pairs_of_seeds(study, compared):
    pair = (study.values(BETTER, WORST_CLASS_ACCURACY), study.values(PLAIN, WORST_CLASS_ACCURACY))
    claim = compared[BETTER].claims[WORST_CLASS_ACCURACY]
    assert claim.interval == paired_difference(*pair).interval


def test_p_values_are_corrected_over_the_methods_held_against_the_same_students(study, compared):
    own = [
        paired_difference(study.values(arm, ACCURACY), study.values(PLAIN, ACCURACY)).p_value
        for arm in (BETTER, ALIKE, FREE)
    ]
    first, second, third = sorted(own)
    holm = [3 * first, max(3 * first, 2 * second), max(3 * first, 2 * second, third)]
    found = sorted(compared[arm].claims[ACCURACY].p_value for arm in (BETTER, ALIKE, FREE))
    assert found == pytest.approx(np.minimum(holm, 1.0))


def test_what_holm_does_not_keep_is_undecided(study: Study) -> None:
    few = {arm: {s: own[s] for s in SEEDS[:3]} for arm, own in study.arms.items()}

    def claim(number: int) -> Claim:
        copies = {distilled_arm(4.0, f"rld{i}"): few[BETTER] for i in range(number)}
        found = compare_methods(Study("few", study.class_names, {PLAIN: few[PLAIN], **copies}), [])
        return found[0].claims[ACCURACY]

    alone, among_many = claim(1), claim(12)
    assert alone.verdict is Verdict.SUPPORTED
    assert among_many.verdict is Verdict.UNDECIDED
    assert among_many.remark == "not after Holm's correction"
    assert among_many.interval == alone.interval
    assert among_many.p_value == pytest.approx(12 * alone.p_value)


def test_intervals_end_at_the_range_of_what_they_measure(study: Study) -> None:
    two = {arm: {seed: own[seed] for seed in SEEDS[:2]} for arm, own in study.arms.items()}
    found = compare_methods(Study("two", study.class_names, two, ()), [])
    ends = [
        (claim.interval.low, claim.interval.high, 1 if claim.scale == 100 else 4)
        for each in found
        for claim in each.claims.values()
        if np.isfinite(claim.interval.low)
    ]
    assert all(-most <= low <= high <= most for low, high, most in ends)
    assert any(most in (-low, high) for low, high, most in ends)


def test_without_plain_distillation_nothing_is_compared(study: Study) -> None:
    arms = {arm: own for arm, own in study.arms.items() if arm.method != "kd"}
    found = compare_methods(Study("bare", study.class_names, arms, ()), [])
    assert {each.reference for each in found} == {None}
