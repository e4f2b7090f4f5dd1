"""The rows of a comparison: accuracy, scores, disagreement, classes, group fairness."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from kdplatform.analysis.bootstrap import FairnessBootstrap
from kdplatform.analysis.calibration import example_scores
from kdplatform.analysis.comparison import ClassComparison, compare_classes, compare_pair
from kdplatform.analysis.disagreement import disagreement, disagreement_within
from kdplatform.analysis.group_fairness import FairnessMetrics
from kdplatform.analysis.intervals import (
    LEVEL,
    Interval,
    mean_of_examples,
    mean_of_seeds_and_examples,
    mean_over_seeds,
)
from kdplatform.analysis.ranking import label_ranks, places_gain
from kdplatform.analysis.significance import Counts
from kdplatform.analysis.verdict import Change, fairness_word
from kdplatform.predictions import FloatArray
from kdplatform.reporting.report_table import (
    Row,
    change_words,
    number_words,
    p_words,
)
from kdplatform.roles import Role
from kdplatform.study.evidence import FAIRNESS, MetricChange, fairness_change
from kdplatform.study.groups import GroupComparison
from kdplatform.study.metrics import CONSISTENCY, ECE, INDIVIDUAL, INDIVIDUAL_LABELS
from kdplatform.study.ranking import GINI, MANY_CLASSES, K
from kdplatform.study.study import NDS, Arm, Study
from kdplatform.study.verdicts import Verdict, by_interval

# The study gives A, the reference, the role of the NDS, and B that of its students.
A, B = NDS, Arm(Role.DISTILLED)
_INDIVIDUAL = {
    INDIVIDUAL: ("I(f) on probabilities", -1, np.inf),
    INDIVIDUAL_LABELS: ("I(f) on labels", -1, np.inf),
    CONSISTENCY: ("consistency", 1, 1.0),
}
_METRICS = {
    "eod": "EOD",
    "dpd": "DPD",
    "accuracy_gap": "accuracy gap",
    "worst_group_accuracy": "worst-group accuracy",
}


def _row(what: str, a: float, b: float, change: Interval, verdict: str, scale: float) -> Row:
    digits = 2 if scale == 100 else 4
    return Row(
        {
            "what": what,
            "a": a,
            "b": b,
            "difference": change.estimate,
            "low": change.low,
            "high": change.high,
            "p_value": np.nan,
            "verdict": verdict,
        },
        {
            "what": what,
            "a": number_words(a, digits, scale),
            "b": number_words(b, digits, scale),
            "difference": change_words(change, scale, digits),
            "verdict": verdict,
        },
    )


def overall_rows(study: Study) -> Iterator[Row]:
    """Accuracy, disagreement, and the scores of probabilities if both sides have logits."""
    a, b = study.tables(A), study.tables(B)
    weights = study.any_table.weights
    correct = [[table.correct for table in tables] for tables in (a, b)]
    yield _example_row("accuracy", correct, weights, better=1, scale=100, width=1)
    if all(table.logits is not None for table in (*a, *b)):
        yield from _model_rows(study, {ECE: ("ECE", 0, 1.0)})
        # These are means over examples, because the values of `Study.metrics` have no interval for
        # single models.
        scores = [[example_scores(table) for table in tables] for tables in (a, b)]
        for name, label, width in (("brier", "Brier score", 2.0), ("nll", "NLL", np.inf)):
            values = ([each[name] for each in side] for side in scores)
            yield _example_row(label, values, weights, better=-1, scale=1, width=width)
    shares = {
        "a": disagreement_within(a),
        "b": disagreement_within(b),
        "difference": float(np.mean([disagreement(x, y) for x in a for y in b])),
    }
    words = {name: number_words(share, 2, 100) for name, share in shares.items()}
    yield Row({"what": "disagreement", **shares}, {"what": "disagreement", **words})


def ranking_rows(study: Study) -> Iterator[Row]:
    """The rank of labels among many classes, if both sides have logits."""
    sides = study.tables(A), study.tables(B)
    every = [table for side in sides for table in side]
    if any(table.logits is None or table.n_classes <= MANY_CLASSES for table in every):
        return
    ranks = [[label_ranks(table) for table in side] for side in sides]
    recall = [[own <= K for own in side] for side in ranks]
    gains = [[places_gain(own, K) for own in side] for side in ranks]
    yield _example_row(f"recall@{K}", recall, study.any_table.weights, better=1, scale=100, width=1)
    yield _example_row(f"NDCG@{K}", gains, study.any_table.weights, better=1, scale=100, width=1)
    yield from _model_rows(study, {GINI: (f"Gini of the top {K} places", 0, 1.0)})


def individual_rows(study: Study) -> Iterator[Row]:
    """Individual unfairness and consistency, if they were measured on both sides."""
    return _model_rows(study, _INDIVIDUAL)


def _model_rows(study: Study, metrics: Mapping[str, tuple[str, int, float]]) -> Iterator[Row]:
    """Numbers of whole models, which have an interval over seeds but not over examples.

    Args:
        metrics: by name in `Study.metrics`: its words, its direction (1: higher is better, -1:
            lower is better, 0: neither) and its largest possible difference.
    """
    for metric, (what, better, width) in metrics.items():
        a, b = study.values(A, metric), study.values(B, metric)
        if (len(a), len(b)) != (len(study.seeds(A)), len(study.seeds(B))):
            continue
        change = Interval(float(np.mean(b) - np.mean(a)), np.nan, np.nan)
        if better and len(a) == len(b) > 1:
            change = mean_over_seeds(np.subtract(b, a)).within(-width, width)
        verdict = _judged(change, better) if better else ""
        yield _row(what, float(np.mean(a)), float(np.mean(b)), change, verdict, 1)


def _example_row(
    what: str,
    sides: Iterable[Sequence[npt.ArrayLike]],
    weights: FloatArray | None,
    *,
    better: int,
    scale: float,
    width: float,
) -> Row:
    """A mean over examples, with an interval over them and, if several, over seeds.

    Model i of one side is paired with model i of the other if both have equally many. If the pairs
    are unrelated, the variance of their differences is still right.

    Args:
        sides: for A and B, the value of every example under every model. [models, examples]
        weights: how much each example counts; None: all alike. [examples]
        width: largest minus smallest possible value, at which the interval is cut off.
    """
    first, second = (np.asarray(values, dtype=float) for values in sides)
    a, b = (float(np.average(side, axis=1, weights=weights).mean()) for side in (first, second))
    if len(first) == len(second) == 1:
        change = mean_of_examples((second - first)[0], weights)
    elif len(first) == len(second):
        change = mean_of_seeds_and_examples(second - first, weights)
    else:
        # With different numbers of seeds there are no pairs, and one model alone has no spread.
        change = Interval(b - a, np.nan, np.nan)
    change = change.within(-width, width)
    return _row(what, a, b, change, _judged(change, better), scale)


def _judged(change: Interval, better: int) -> str:
    verdict = by_interval(better, change)
    if not np.isfinite(change.low):
        return "no interval"
    words = {Verdict.SUPPORTED: "B better", Verdict.CONTRADICTED: "B worse"}
    return words.get(verdict, "undecided")


def class_test(study: Study) -> ClassComparison | None:
    """Class tests: over seeds, of one pair of models, or none for one model against several."""
    a, b = study.tables(A), study.tables(B)
    if min(len(a), len(b)) > 1:
        return compare_classes(a, b)
    return compare_pair(a[0], b[0]) if len(a) == len(b) else None


def class_count_row(test: ClassComparison) -> Row:
    """How many classes differ, by chance, and after corrections."""
    p, verdict = np.nan, "McNemar, these two models"
    if test.permutation is not None:
        p = test.permutation.p_count
        verdict = "classes differ" if p < LEVEL else "undecided"
    return _count_row("classes that differ", test.counts, p, verdict)


def group_count_row(test: GroupComparison) -> Row:
    """How many groups of single attributes changed, by chance, and after corrections."""
    p = test.global_p
    verdict = "groups differ" if p < LEVEL else "undecided"
    if max(test.shifts.seeds) == 1:
        verdict += ", these two models"
    return _count_row("groups that changed", test.counts, p, verdict)


def _count_row(what: str, counts: Counts, p: float, verdict: str) -> Row:
    corrected = f"{counts.significant_bh} after BH, {counts.significant_holm} after Holm"
    chance = f"{counts.expected_by_chance:.2g} by chance, {corrected}"
    return Row(
        {
            "what": what,
            "difference": counts.significant,
            "tested": counts.tested,
            "undefined": counts.undefined,
            "expected_by_chance": counts.expected_by_chance,
            "after_bh": counts.significant_bh,
            "after_holm": counts.significant_holm,
            "p_value": p,
            "verdict": verdict,
        },
        {
            "what": what,
            "difference": f"{counts.significant} of {counts.tested} ({chance})",
            "p": p_words(p),
            "verdict": verdict,
        },
    )


def fairness_rows(
    bootstrap: FairnessBootstrap, null: pd.DataFrame, groups: FairnessMetrics
) -> Iterator[Row]:
    """The fairness metrics of one attribute, arms "A" and "B", each with its verdict.

    Args:
        groups: numbers of examples in groups and in none, in words.
    """
    for metric, label in _METRICS.items():
        change = bootstrap.change(["B"], "A", metric, null)
        a, b = (bootstrap.interval(arm, metric).estimate for arm in ("A", "B"))
        row = verdict_row(f"{label}, {bootstrap.attribute}", metric, a, b, change, 100)
        row.numbers |= {"n": groups.n, "in_no_group": groups.excluded}
        yield row


def verdict_row(what: str, metric: str, a: float, b: float, change: Change, scale: float) -> Row:
    """A fairness metric of both sides with its verdict.

    Args:
        a: its value under side A.
        scale: 100 if it is shown in per cent.
    """
    row = _row(what, a, b, change.interval, _fairness_verdict(metric, change), scale)
    row.numbers |= {"chance_difference": change.chance, "levelling_down": change.levelling_down}
    return row


def fairness_changes(
    bootstrap: FairnessBootstrap, null: pd.DataFrame, *, b_at_chance: bool
) -> Iterator[MetricChange]:
    """The same changes as evidence, from which findings are made."""
    for metric, name in FAIRNESS.items():
        change = bootstrap.change(["B"], "A", metric, null)
        a, b = (bootstrap.interval(arm, metric).estimate for arm in ("A", "B"))
        what = f"{name} by {bootstrap.attribute}"
        yield fairness_change(what, metric, a, b, change, b_at_chance=b_at_chance)


def _fairness_verdict(metric: str, change: Change) -> str:
    word = fairness_word(metric, change)
    verdict = word if word in ("undecided", "undefined") else f"B {word}"
    down = change.levelling_down and word != "undefined"
    return f"{verdict} (levelling down)" if down else verdict
