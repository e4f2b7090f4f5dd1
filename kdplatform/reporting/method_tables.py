"""The table of methods side by side, each compared with plain distillation at the same T."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kdplatform.predictions import FloatArray
from kdplatform.reporting.report_table import (
    Row,
    Table,
    change_words,
    first_columns,
    table_of,
)
from kdplatform.reporting.study_tables import add_counts, add_metric
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.methods import USUAL_TEMPERATURE, Compared
from kdplatform.study.metrics import ACCURACY, ECE, SPEED, WORST_CLASS_ACCURACY, fairness_metric
from kdplatform.study.study import Arm, Study
from kdplatform.study.verdicts import Verdict

# Names of the metrics of one attribute in the columns.
_GROUPS = {"eod": "EOD", "dpd": "DPD", "worst_group_accuracy": "worst group"}
_MARKS = {Verdict.SUPPORTED: " better", Verdict.CONTRADICTED: " worse", Verdict.UNDECIDED: ""}


def methods_table(
    study: Study,
    classes: ClassWise,
    fairness: Sequence[GroupFairness],
    compared: Sequence[Compared],
) -> Table:
    """The numbers of every arm of students, and their differences from plain distillation."""
    by_arm = {each.arm: each for each in compared}
    rows = []
    for arm in study.arms:
        row = first_columns(study, arm)
        row.add_seeds("worst_class", study.values(arm, WORST_CLASS_ACCURACY))
        for name, role in (("sc", Role.STUDENT), ("tc", Role.TEACHER)):
            if (arm, role) in classes.tests:
                add_counts(row, name, classes.tests[arm, role])
        row.add_seeds("ece", study.values(arm, ECE))
        row.add_seeds("seconds", _seconds(study, arm), scale=1)
        for each in fairness:
            _add_groups(row, study, arm, each)
        if arm in by_arm:
            _add_differences(row, study, by_arm[arm])
        rows.append(row)
    return table_of(
        "methods",
        "Methods side by side, each against plain distillation (kd)",
        rows,
        list(_columns(fairness)),
        [
            "Against kd: the reference arm of a row, at the same T. A method without a "
            f"temperature is compared with kd at the T nearest to {USUAL_TEMPERATURE:g}.",
            "Differences: this arm minus kd, over the common seeds, with the 95% interval of the "
            "paired difference. Classes are numbers, all others points. Better, worse: the "
            "interval excludes 0 (for EOD and DPD also after the difference of their chance levels "
            "is taken away), and the paired t test gives p < .05 after Holm's correction over the "
            "methods that are compared with the same students. The p-values are in "
            "methods_verdicts.csv.",
            "#SC, #TC: over the seeds, as in Table 1. Their differences use the counts of single "
            "pairs of models (McNemar), which have one value per seed.",
            "Training time: that of an epoch relative to the NDS of the same seed, from the median "
            "speed of the epochs. It means little if models were trained at the same time, or on "
            "different machines.",
        ],
    )


def _columns(fairness: Sequence[GroupFairness]) -> Iterator[tuple[str, Mapping[str, str]]]:
    yield "students", {"arm": "", "seeds": "seeds", "against": "against kd"}
    yield (
        "accuracy, %",
        {
            "accuracy": "accuracy",
            f"{ACCURACY}_change": "minus kd",
            "worst_class": "worst class",
            f"{WORST_CLASS_ACCURACY}_change": "minus kd",
        },
    )
    for name in ("sc", "tc"):
        yield (
            f"#{name.upper()}",
            {
                f"n_{name}": "classes",
                f"{name}_expected": "by chance",
                f"{name}_p": "global p",
                f"classwise/n_{name}_change": "minus kd",
            },
        )
    for each in fairness:
        columns: dict[str, str] = {}
        for metric, label in _GROUPS.items():
            column = fairness_metric(each.attribute, metric)
            columns[column] = label
            if metric != "worst_group_accuracy":
                columns[f"{column}_null"] = "by parity"
            columns[f"{column}_change"] = "minus kd"
        yield f"groups by {each.name}, %", columns
    yield "calibration, %", {"ece": "ECE", f"{ECE}_change": "minus kd"}
    yield "time", {"seconds": "training, NDS = 1"}


def _add_groups(row: Row, study: Study, arm: Arm, fairness: GroupFairness) -> None:
    """Adds an attribute's metrics under the names that `Study.metrics` has."""
    own = Row({}, {})
    for metric in ("eod", "dpd"):
        add_metric(own, study, arm, fairness, metric)
    worst = "worst_group_accuracy"
    own.add_seeds(worst, study.values(arm, fairness_metric(fairness.attribute, worst)))
    row.numbers |= {fairness_metric(fairness.attribute, k): v for k, v in own.numbers.items()}
    row.words |= {fairness_metric(fairness.attribute, k): v for k, v in own.words.items()}


def _add_differences(row: Row, study: Study, compared: Compared) -> None:
    reference = compared.reference
    row.numbers["against"] = None if reference is None else study.names[reference]
    row.words["against"] = (
        "none at this T" if reference is None else study.names[reference].removeprefix("DS ")
    )
    for column, claim in compared.claims.items():
        row.numbers |= claim.interval.columns(f"{column}_change")
        row.numbers |= {f"{column}_change_p_holm": claim.p_value}
        words = change_words(claim.interval, claim.scale)
        row.words[f"{column}_change"] = words + _MARKS[claim.verdict]


def _seconds(study: Study, arm: Arm) -> FloatArray:
    """Time for an epoch, relative to the NDS of the same seed; one value per seed."""
    if arm.role is Role.TEACHER or SPEED not in study.metrics:
        return np.empty(0)
    speeds = study.metrics.set_index(["arm", "seed"])[SPEED]
    ratios = [
        speeds.get((study.names[Arm(Role.STUDENT)], seed), np.nan) / speeds[study.names[arm], seed]
        for seed in study.seeds(arm)
        if Arm(Role.STUDENT) in study.arms
    ]
    return np.array([ratio for ratio in ratios if np.isfinite(ratio)])
