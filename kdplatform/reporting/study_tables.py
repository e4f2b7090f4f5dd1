"""Tables 1 to 4 of the paper with a study's numbers, and with further columns of ours."""

from kdplatform.analysis.comparison import ClassComparison
from kdplatform.reporting.report_table import (
    Row,
    Table,
    change_words,
    first_columns,
    interval_words,
    number_words,
    p_words,
    table_of,
)
from kdplatform.reporting.tables import percent
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.metrics import (
    CALIBRATING_TEMPERATURE,
    CONSISTENCY,
    ECE,
    ECE_CALIBRATED,
    INDIVIDUAL,
    INDIVIDUAL_CALIBRATED,
    INDIVIDUAL_LABELS,
    REFERENCES,
    WORST_CLASS_ACCURACY,
    fairness_metric,
)
from kdplatform.study.study import Arm, Study
from kdplatform.study.verdicts import Verdict, by_interval
from kdplatform.text import as_typed

_VERDICT_WORDS = {
    Verdict.SUPPORTED: " fairer",
    Verdict.CONTRADICTED: " less fair",
    Verdict.UNDECIDED: "",
}
_COUNTED = {"sc": ("#SC", Role.STUDENT), "tc": ("#TC", Role.TEACHER)}


def class_counts_table(study: Study, classes: ClassWise) -> Table:
    """Table 1: accuracy, #SC and #TC of every arm, numbers by chance and after corrections."""
    rows = []
    for arm in study.arms:
        row = first_columns(study, arm)
        row.add_seeds("worst_class_accuracy", study.values(arm, WORST_CLASS_ACCURACY))
        for name, (_, role) in _COUNTED.items():
            if (arm, role) in classes.tests:
                add_counts(row, name, classes.tests[arm, role])
        rows.append(row)
    ours = [
        (
            f"{title} beside chance ({role.label})",
            {
                f"{name}_expected": "by chance",
                f"{name}_bh": "after BH",
                f"{name}_holm": "after Holm",
                f"{name}_max_t": "max-|t|",
                f"{name}_p": "global p",
                f"{name}_detectable": "detectable",
            },
        )
        for name, (title, role) in _COUNTED.items()
    ]
    paper = {"arm": "", "accuracy": "accuracy", "n_sc": "#SC", "n_tc": "#TC"}
    groups = [
        ("the paper's columns", paper),
        ("ours", {"seeds": "seeds", "worst_class_accuracy": "worst class"}),
    ]
    return table_of(
        "table1_classes",
        "Table 1. Classes whose accuracy differs: #SC from the NDS, #TC from the teacher",
        rows,
        [*groups, *ours],
        [
            *_count_notes(classes),
            "After BH, after Holm: significant classes after correction for the number of tests. "
            "Max-|t|: classes with family-wise p < .05 by permutation of seeds. Global p: share of "
            "the splits of the seeds with at least as many significant classes. Detectable: shift "
            "of one class, in points, that is found with power .8.",
        ],
    )


def add_counts(row: Row, name: str, test: ClassComparison) -> None:
    """Adds how many classes differ, by chance, and after corrections."""
    counts = test.counts
    row.numbers |= {
        f"n_{name}": counts.significant,
        f"{name}_test": test.test,
        f"{name}_tested": counts.tested,
        f"{name}_undefined": counts.undefined,
        f"{name}_expected_by_chance": counts.expected_by_chance,
        f"{name}_bh": counts.significant_bh,
        f"{name}_holm": counts.significant_holm,
    }
    row.words |= {
        f"n_{name}": f"{counts.significant} of {counts.tested}",
        f"{name}_expected": f"{counts.expected_by_chance:.2g}",
        f"{name}_bh": str(counts.significant_bh),
        f"{name}_holm": str(counts.significant_holm),
    }
    if test.permutation is None:
        return
    max_t = int(test.table["significant_max_t"].sum())
    row.numbers |= {
        f"{name}_max_t": max_t,
        f"{name}_p_count": test.permutation.p_count,
        f"{name}_p_max_t": test.permutation.p_max_t,
        f"{name}_detectable_shift": test.detectable_shift,
    }
    row.words |= {
        f"{name}_max_t": str(max_t),
        f"{name}_p": p_words(test.permutation.p_count),
        f"{name}_detectable": "none"
        if test.detectable_shift > 1
        else number_words(test.detectable_shift, 1, 100),
    }


def _count_notes(classes: ClassWise) -> list[str]:
    tests = {test.test for test in classes.tests.values()}
    notes = []
    if "Welch" in tests:
        notes.append(
            "#SC, #TC: classes with p < .05, uncorrected, in Welch's test over seeds of class "
            "accuracy divided by overall accuracy (the paper's test)."
        )
    if "McNemar" in tests:
        notes.append(
            "There is one seed. #SC and #TC come from McNemar's exact test of this one pair of "
            "models, and say nothing about other seeds."
        )
    absent: dict[tuple[Role, str], list[str]] = {}
    for (arm, role), reason in classes.reasons.items():
        absent.setdefault((role, reason), []).append(classes.study.names[arm])
    for (role, reason), arms in absent.items():
        names = {role: title for title, role in _COUNTED.values()}
        notes.append(f"No {names[role]} for {', '.join(arms)}: {reason}.")
    return [*notes, *classes.notes()]


def fairness_table(key: str, title: str, study: Study, fairness: GroupFairness) -> Table:
    """Tables 2 and 3: EOD and DPD of every arm, with parity levels and worst groups."""
    rows = [_label_row(fairness)]
    for arm in study.arms:
        row = first_columns(study, arm)
        for metric in ("eod", "dpd"):
            add_metric(row, study, arm, fairness, metric)
        for metric in ("worst_group_accuracy", "accuracy_gap"):
            row.add_seeds(metric, study.values(arm, fairness_metric(fairness.attribute, metric)))
        if arm.role is Role.DISTILLED:
            for role in REFERENCES:
                _add_changes(row, fairness, arm, role)
        rows.append(row)
    parity = {"interval": "95% interval", "null": "by parity", "p": "p"}
    groups = [
        ("the paper's columns, %", {"arm": "", "accuracy": "accuracy", "eod": "EOD", "dpd": "DPD"}),
        ("EOD", {f"eod_{name}": label for name, label in parity.items()}),
        ("DPD", {f"dpd_{name}": label for name, label in parity.items()}),
        ("groups", {"worst_group_accuracy": "worst group", "accuracy_gap": "gap"}),
        *(
            (f"DS minus {role.label}, points", {f"eod_{role}": "EOD", f"dpd_{role}": "DPD"})
            for role in (Role.STUDENT, Role.TEACHER)
        ),
        ("", {"flag": "levelling down"}),
    ]
    return table_of(key, title, rows, groups, _fairness_notes(study, fairness))


def _label_row(fairness: GroupFairness) -> Row:
    """The row of a classifier that is always right; its DPD is the difference of base rates."""
    name, labels = "always right", fairness.labels
    values = {"accuracy": 1.0, "eod": labels.eod, "dpd": labels.dpd}
    return Row(
        {"arm": name, **values},
        {"arm": name, **{key: percent([value]) for key, value in values.items()}},
    )


def add_metric(row: Row, study: Study, arm: Arm, fairness: GroupFairness, metric: str) -> None:
    """Adds EOD or DPD of an arm, with its interval and parity level."""
    row.add_seeds(metric, study.values(arm, fairness_metric(fairness.attribute, metric)))
    interval, parity = fairness.interval(arm, metric), fairness.parity(arm, metric)
    row.numbers |= {
        f"{metric}_low": interval.low,
        f"{metric}_high": interval.high,
        f"{metric}_by_parity": parity.mean,
        f"{metric}_parity_p": parity.p_value,
    }
    row.words |= {
        f"{metric}_interval": interval_words(interval),
        f"{metric}_null": percent([parity.mean]),
        f"{metric}_p": p_words(parity.p_value),
    }


def _add_changes(row: Row, fairness: GroupFairness, arm: Arm, role: Role) -> None:
    if Arm(role) not in fairness.study.arms:
        return
    for metric in ("eod", "dpd"):
        change = fairness.change([arm], Arm(role), metric)
        suffix = REFERENCES[role]
        row.numbers |= {
            **change.interval.columns(f"{metric}_difference_{suffix}"),
            f"{metric}_chance_difference_{suffix}": change.chance,
            f"{metric}_levelling_down_{suffix}": change.levelling_down,
        }
        verdict = by_interval(-1, change.interval, change.chance)
        row.words[f"{metric}_{role}"] = change_words(change.interval) + _VERDICT_WORDS[verdict]
        if change.levelling_down:
            flags = [row.words.get("flag", ""), f"{metric.upper()} against {role.label}"]
            row.words["flag"] = "; ".join(filter(None, flags))


def _fairness_notes(study: Study, fairness: GroupFairness) -> list[str]:
    measured, effort = fairness.labels, fairness.effort
    size = f"{measured.groups} groups, the smallest of {measured.smallest_group} examples"
    more = "mean over classes, one against the rest" if measured.classes > 2 else "of class 1"
    notes = [
        f"{fairness.name}: {size}. EOD and DPD: {more}.",
        "By parity: the mean of the metric if the group did not matter (from "
        f"{effort.permutations} permutations of the groups), with the p-value of the observed "
        "value. EOD and DPD are largest differences, so they are above 0 by chance alone.",
        f"Always right: a classifier that predicts the labels. Its DPD of {100 * measured.dpd:.2f} "
        "is the difference of base rates, and not the unfairness of a model.",
        f"Intervals: {effort.draws} bootstrap draws of seeds and examples. Fairer, less fair: only "
        "if the interval of the paired difference excludes 0, also after the difference of the two "
        "parity levels is taken away (these fall with fewer errors). Levelling down: the metric "
        "improves while the accuracy of every group falls.",
    ]
    if measured.note:
        notes.append(f"{fairness.name}: {as_typed(measured.note)}.")
    seeds = {len(study.seeds(arm)) for arm in study.arms}
    if seeds == {1}:
        notes.append("One seed: intervals are conditional on these models.")
    return notes


def individual_table(study: Study) -> Table:
    """Table 4: I(f) on probabilities, labels and calibrated probabilities, with calibration."""
    columns = {
        INDIVIDUAL: "I(f)",
        INDIVIDUAL_LABELS: "on labels",
        INDIVIDUAL_CALIBRATED: "calibrated",
        CONSISTENCY: "consistency",
        ECE: "ECE",
        ECE_CALIBRATED: "ECE calibrated",
        "test/brier": "Brier",
        "test/nll": "NLL",
        CALIBRATING_TEMPERATURE: "calibrating T",
    }
    rows = []
    for arm in study.arms:
        row = first_columns(study, arm)
        for column in columns:
            row.add_seeds(column, study.values(arm, column), digits=4, scale=1)
        rows.append(row)
    named = list(columns.items())
    groups = [
        ("the paper's column", {"arm": "", **dict(named[:1])}),
        ("I(f) that softening does not change", dict(named[1:4])),
        ("calibration", dict(named[4:])),
    ]
    if study.space:
        where = f"Pairs: {study.pairs}, the same for all models; distance: cosine in {study.space}."
    else:
        where = (
            "This dataset has no feature space, so I(f) and consistency are not measured. Their "
            "distances need a fixed encoder, or the factors of generated data."
        )
    return table_of(
        "table4_individual",
        "Table 4. Individual unfairness I(f), lower is better",
        rows,
        groups,
        [
            where,
            "A higher T makes outputs softer, and I(f) on probabilities falls with softer outputs. "
            "A fall of this number alone is therefore no gain in fairness. Calibrated: at the "
            "temperature that fits each model's validation split. Consistency: share of the 5 "
            "nearest neighbours with the same predicted label, higher is better. ECE: 15 bins of "
            "equal mass.",
        ],
    )
