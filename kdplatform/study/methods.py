"""Methods side by side: each compared with plain distillation, the method `kd`, at the same T.

This file fixes what is measured and how it is judged before any study is seen. The difference of
every metric has a paired interval. A verdict has two conditions: this interval excludes 0, and the
paired t test over seeds gives p < .05 after Holm's correction over the methods that are compared
with the same students.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from kdplatform.analysis.intervals import (
    LEVEL,
    UNKNOWN,
    mean_of_seeds_and_examples,
    paired_difference,
)
from kdplatform.analysis.significance import holm
from kdplatform.analysis.tables import stack_tables
from kdplatform.predictions import FloatArray
from kdplatform.study import verdicts
from kdplatform.study.claims import Claim, counted
from kdplatform.study.fairness import HIGHER_IS_FAIRER, Change, GroupFairness
from kdplatform.study.metrics import ACCURACY, ECE, WORST_CLASS_ACCURACY, fairness_metric
from kdplatform.study.study import Arm, Study
from kdplatform.study.verdicts import Verdict

PLAIN = "kd"
# The reference of a method without a temperature: plain distillation at, or nearest to, this T.
USUAL_TEMPERATURE = 4.0


class Measure(NamedTuple):
    """A metric that methods are compared by: its column in `Study.metrics`, and the claim.

    Attributes:
        sign: 1 if the claim is about a higher value, -1 for a lower one.
        scale: 100 for what is shown in percentage points, 1 for counts.
        by: the attribute that a claim on groups names at its end.
    """

    column: str
    claim: str
    quantity: str
    sign: int
    scale: float = 100
    by: str = ""


_MEASURES = (
    Measure(ACCURACY, "is more accurate than", "accuracy", 1),
    Measure(WORST_CLASS_ACCURACY, "has a better worst class than", "worst-class accuracy", 1),
    Measure("classwise/n_sc", "moves fewer classes than", "#SC of single pairs", -1, 1),
    Measure(
        "classwise/n_tc",
        "differs from the teacher in fewer classes than",
        "#TC of single pairs",
        -1,
        1,
    ),
    Measure(ECE, "is better calibrated than", "ECE", -1),
)
_GROUP_CLAIMS = {
    "eod": ("has a lower EOD than", "EOD"),
    "dpd": ("has a lower DPD than", "DPD"),
    "worst_group_accuracy": ("has a better worst group than", "worst-group accuracy"),
}


@dataclass(frozen=True)
class Compared:
    """An arm compared with plain distillation.

    Attributes:
        reference: the arm of plain distillation; None if there is none at this temperature.
        claims: by the column in `Study.metrics`; their p-values are after Holm's correction.
    """

    arm: Arm
    reference: Arm | None
    claims: Mapping[str, Claim]


def compare_methods(study: Study, fairness: Sequence[GroupFairness]) -> list[Compared]:
    """Compares every arm of every other method with plain distillation."""
    others = [arm for arm in study.distilled if arm.method != PLAIN]
    references = {arm: plain_reference(study, arm) for arm in others}
    found: dict[Arm, dict[str, Claim]] = {arm: {} for arm in others}
    for reference in dict.fromkeys(references.values()):
        if reference is None:
            continue
        family = [arm for arm in others if references[arm] == reference]
        for measure in _MEASURES:
            changes = {arm: _change(study, measure, arm, reference) for arm in family}
            _judge(study, measure, reference, changes, found)
        for each in fairness:
            for metric, (claim, name) in _GROUP_CLAIMS.items():
                measure = Measure(
                    fairness_metric(each.attribute, metric),
                    claim,
                    f"{name} by {each.name}",
                    1 if metric in HIGHER_IS_FAIRER else -1,
                    by=f" ({each.name})",
                )
                changes = {arm: each.change([arm], reference, metric) for arm in family}
                _judge(study, measure, reference, changes, found)
    return [Compared(arm, references[arm], found[arm]) for arm in others]


def plain_reference(study: Study, arm: Arm) -> Arm | None:
    """Plain distillation at the arm's T, or at the T nearest to 4 if the arm has none."""
    plain = {own.temperature: own for own in study.distilled if own.method == PLAIN}
    if arm.temperature is not None:
        return plain.get(arm.temperature)
    near = sorted(
        (abs(math.log(temperature / USUAL_TEMPERATURE)), temperature)
        for temperature in plain
        if temperature is not None
    )
    return plain[near[0][1]] if near else None


def paired_values(
    study: Study, column: str, arm: Arm, reference: Arm
) -> tuple[FloatArray, FloatArray]:
    """The values of both arms for the seeds that both have, by rising seed."""
    frame = study.metrics
    if column not in frame:
        return np.empty(0), np.empty(0)
    by_seed = [
        frame[frame["arm"] == study.names[own]].set_index("seed")[column].dropna()
        for own in (arm, reference)
    ]
    seeds = sorted(set(by_seed[0].index) & set(by_seed[1].index))
    first, second = (own.loc[seeds].to_numpy(dtype=float) for own in by_seed)
    return first, second


def _change(study: Study, measure: Measure, arm: Arm, reference: Arm) -> Change:
    """The difference of a metric without groups; for accuracy the examples are a sample too."""
    seeds = tuple(sorted(set(study.seeds(arm)) & set(study.seeds(reference))))
    interval = UNKNOWN
    if measure.column == ACCURACY and seeds:
        right = [
            stack_tables([study.any_table, *study.tables(own, seeds)]).correct[1:].astype(float)
            for own in (arm, reference)
        ]
        interval = mean_of_seeds_and_examples(right[0] - right[1]).within(-1, 1)
    elif len(seeds):
        pair = paired_values(study, measure.column, arm, reference)
        most = 1 if measure.scale == 100 else len(study.class_names)
        interval = paired_difference(*pair).interval.within(-most, most)
    return Change(interval, 0.0, False, seeds)


def _judge(
    study: Study,
    measure: Measure,
    reference: Arm,
    changes: Mapping[Arm, Change],
    found: Mapping[Arm, dict[str, Claim]],
) -> None:
    """Adds the claims about one metric for all methods that are compared with the same students."""
    p_values = [
        paired_difference(*paired_values(study, measure.column, arm, reference)).p_value
        for arm in changes
    ]
    adjusted = holm(p_values)
    methods = counted(len(changes), "method")
    for (arm, change), p_value in zip(changes.items(), adjusted, strict=True):
        verdict = verdicts.by_interval(measure.sign, change.interval, change.chance)
        remarks = []
        if verdict is not verdicts.by_interval(measure.sign, change.interval):
            remarks.append("not beyond its chance level")
        if verdict is not Verdict.UNDECIDED and not p_value < LEVEL:
            verdict = Verdict.UNDECIDED
            remarks.append("not after Holm's correction")
        if change.levelling_down:
            remarks.append("levelling down: every group's accuracy falls")
        found[arm][measure.column] = Claim(
            _sentence(measure, arm, reference),
            verdict,
            f"{measure.quantity}, {study.names[arm]} minus {study.names[reference]}",
            change.interval,
            measure.scale,
            f"95% interval of the paired difference; paired t test, Holm over {methods}",
            float(p_value),
            f"{counted(len(change.seeds), 'seed')}, {len(study.any_table)} examples",
            "; ".join(remarks),
        )


def _sentence(measure: Measure, arm: Arm, reference: Arm) -> str:
    at = "" if reference.temperature is None else f" at T={reference.temperature:g}"
    return f"{arm.method} {measure.claim} {PLAIN}{at}{measure.by}"
