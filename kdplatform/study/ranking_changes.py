"""How rankings of distilled students differ from those of the NDS and of another method.

This file fixes the question before any study is seen: does a method give the most frequent classes
fewer of the top places than its reference method does? The reference is plain distillation if the
study has it, and otherwise the first method. A verdict has two conditions: the paired interval
excludes 0, and the paired t test over seeds gives p < .05 after Holm's correction over the methods.
"""

from kdplatform.analysis.intervals import LEVEL, Interval, paired_difference
from kdplatform.analysis.significance import holm
from kdplatform.study import verdicts
from kdplatform.study.claims import Claim, counted
from kdplatform.study.methods import PLAIN, paired_values, plain_reference
from kdplatform.study.ranking import K, stratum_metric
from kdplatform.study.study import Arm, Study
from kdplatform.study.verdicts import Verdict

POPULAR = stratum_metric(1, f"places_at_{K}")


def change(study: Study, metric: str, arm: Arm, reference: Arm) -> Interval:
    """A metric of one arm minus that of another, over the seeds that both have."""
    first, second = paired_values(study, metric, arm, reference)
    return paired_difference(first, second).interval


def reference_of(study: Study, arm: Arm) -> Arm | None:
    """The students of the reference method of an arm, at the same T if it has one.

    For plain distillation the rule is that of `study.methods`. None for the reference method
    itself, and if it has no such students.
    """
    methods = list(dict.fromkeys(own.method for own in study.distilled))
    against = PLAIN if PLAIN in methods else methods[0]
    if arm.method == against:
        return None
    if against == PLAIN:
        return plain_reference(study, arm)
    own = [other for other in study.distilled if other.method == against]
    same = [other for other in own if other.temperature == arm.temperature]
    if same or len(own) != 1:
        return same[0] if same else None
    return own[0]


def judge_exposure(study: Study) -> list[Claim]:
    """Judges for each arm whether frequent classes get fewer top places than with the reference.

    The list is empty if the study has one method, or no metric of exposure.
    """
    pairs = [(arm, other) for arm in study.distilled if (other := reference_of(study, arm))]
    if POPULAR not in study.metrics:
        return []
    found = [paired_difference(*paired_values(study, POPULAR, arm, other)) for arm, other in pairs]
    adjusted = holm([own.p_value for own in found])
    claims = []
    for (arm, other), own, p_value in zip(pairs, found, adjusted, strict=True):
        verdict, remark = verdicts.by_interval(-1, own.interval), ""
        if verdict is not Verdict.UNDECIDED and not p_value < LEVEL:
            verdict, remark = Verdict.UNDECIDED, "not after Holm's correction"
        names = study.names[arm], study.names[other]
        claims.append(
            Claim(
                f"{names[0].removeprefix('DS ')} recommends the most frequent classes less than "
                f"{names[1].removeprefix('DS ')}",
                verdict,
                f"share of the top {K} places, {names[0]} minus {names[1]}",
                own.interval,
                100,
                f"95% interval of the paired difference; paired t test, Holm over "
                f"{counted(len(pairs), 'arm')}",
                float(p_value),
                f"{counted(len(paired_values(study, POPULAR, arm, other)[0]), 'seed')}, "
                f"{len(study.any_table)} examples",
                remark,
            )
        )
    return claims
