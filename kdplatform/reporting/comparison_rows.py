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
from kdplatform.reporting.report_table import (
    Row,
    change_words,
    number_words,
    p_words,
)
from kdplatform.roles import Role
from kdplatform.study.fairness import HIGHER_IS_FAIRER, Change, change_between
from kdplatform.study.metrics import CONSISTENCY, ECE, INDIVIDUAL, INDIVIDUAL_LABELS
from kdplatform.study.ranking import GINI, MANY_CLASSES, K
from kdplatform.study.study import NDS, Arm, Study
from kdplatform.study.verdicts import Verdict, by_interval

# A, the reference, stands where the NDS does in a study; B where its students do.
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
    """Accuracy, the scores of probabilities where both sides have logits, disagreement."""
    a, b = study.tables(A), study.tables(B)
    correct = [[table.correct for table in tables] for tables in (a, b)]
    yield _example_row("accuracy", correct, better=1, scale=100, width=1)
    if all(table.logits is not None for table in (*a, *b)):
        yield from _model_rows(study, {ECE: ("ECE", 0, 1.0)})
        # As means of examples, where those of `Study.metrics` have no interval for single models.
        scores = [[example_scores(table) for table in tables] for tables in (a, b)]
        for name, label, width in (("brier", "Brier score", 2.0), ("nll", "NLL", np.inf)):
            values = ([each[name] for each in side] for side in scores)
            yield _example_row(label, values, better=-1, scale=1, width=width)
    shares = {
        "a": disagreement_within(a),
        "b": disagreement_within(b),
        "difference": float(np.mean([disagreement(x, y) for x in a for y in b])),
    }
    words = {name: number_words(share, 2, 100) for name, share in shares.items()}
    yield Row({"what": "disagreement", **shares}, {"what": "disagreement", **words})


def ranking_rows(study: Study) -> Iterator[Row]:
    """How high labels stand among many classes, where both sides have logits."""
    sides = study.tables(A), study.tables(B)
    every = [table for side in sides for table in side]
    if any(table.logits is None or table.n_classes <= MANY_CLASSES for table in every):
        return
    ranks = [[label_ranks(table) for table in side] for side in sides]
    recall = [[own <= K for own in side] for side in ranks]
    gains = [[places_gain(own, K) for own in side] for side in ranks]
    yield _example_row(f"recall@{K}", recall, better=1, scale=100, width=1)
    yield _example_row(f"NDCG@{K}", gains, better=1, scale=100, width=1)
    yield from _model_rows(study, {GINI: (f"Gini of the top {K} places", 0, 1.0)})


def individual_rows(study: Study) -> Iterator[Row]:
    """Individual unfairness and consistency where they were measured on both sides."""
    return _model_rows(study, _INDIVIDUAL)


def _model_rows(study: Study, metrics: Mapping[str, tuple[str, int, float]]) -> Iterator[Row]:
    """Numbers of whole models: examples give them no interval, seeds do.

    Args:
        metrics: by name in `Study.metrics`, what it is and how it is better: 1 where more is, -1
            where less is, 0 where nothing is concluded; and the largest difference there can be.
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
    *,
    better: int,
    scale: float,
    width: float,
) -> Row:
    """A mean over examples, with an interval over them and, if several, over seeds.

    Model i of one side is paired with model i of the other when there are as many; where they have
    nothing to do with each other the variance of their differences is right all the same.

    Args:
        sides: of A and B, the value of every example under every model. [models, examples]
        width: largest minus smallest value there can be, where the interval is cut off.
    """
    first, second = (np.asarray(values, dtype=float) for values in sides)
    if len(first) == len(second) == 1:
        change = mean_of_examples((second - first)[0])
    elif len(first) == len(second):
        change = mean_of_seeds_and_examples(second - first)
    else:
        # One side has more seeds: no pairs, and a side of one model has no spread to go by.
        change = Interval(float(second.mean() - first.mean()), np.nan, np.nan)
    change = change.within(-width, width)
    verdict = _judged(change, better)
    return _row(what, float(first.mean()), float(second.mean()), change, verdict, scale)


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


def count_row(test: ClassComparison) -> Row:
    """How many classes differ, beside chance and corrections."""
    counts, p, verdict = test.counts, np.nan, "McNemar, these two models"
    if test.permutation is not None:
        p = test.permutation.p_count
        verdict = "classes differ" if p < LEVEL else "undecided"
    corrected = f"{counts.significant_bh} after BH, {counts.significant_holm} after Holm"
    chance = f"{counts.expected_by_chance:.1f} by chance, {corrected}"
    return Row(
        {
            "what": "classes that differ",
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
            "what": "classes that differ",
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
        groups: how many examples are in groups, and how many in none.
    """
    for metric, label in _METRICS.items():
        change = change_between(bootstrap, null, ["B"], "A", metric)
        a, b = (bootstrap.interval(arm, metric).estimate for arm in ("A", "B"))
        what, verdict = f"{label}, {bootstrap.attribute}", _fairness_verdict(metric, change)
        row = _row(what, a, b, change.interval, verdict, 100)
        row.numbers |= {
            "chance_difference": change.chance,
            "levelling_down": change.levelling_down,
            "n": groups.n,
            "in_no_group": groups.excluded,
        }
        yield row


def _fairness_verdict(metric: str, change: Change) -> str:
    if not np.isfinite([*change.interval, change.chance]).all():
        return "undefined"
    higher = metric in HIGHER_IS_FAIRER
    words = {
        Verdict.SUPPORTED: "B better" if higher else "B fairer",
        Verdict.CONTRADICTED: "B worse" if higher else "B less fair",
        Verdict.UNDECIDABLE: "undecided",
    }
    verdict = words[by_interval(1 if higher else -1, change.interval, change.chance)]
    return f"{verdict} (levelling down)" if change.levelling_down else verdict
