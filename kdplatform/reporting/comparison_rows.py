"""The rows of a comparison: accuracy, scores, disagreement, classes, group fairness."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from kdplatform.analysis.bootstrap import FairnessBootstrap
from kdplatform.analysis.calibration import calibration, example_scores
from kdplatform.analysis.comparison import ClassComparison, compare_classes, compare_pair
from kdplatform.analysis.disagreement import disagreement
from kdplatform.analysis.individual_fairness import (
    OUTPUTS,
    FeatureSpace,
    Output,
    consistency,
    individual_unfairness,
    nearest_neighbours,
    sample_pairs,
)
from kdplatform.analysis.intervals import (
    LEVEL,
    Interval,
    mean_of_examples,
    mean_of_seeds_and_examples,
    mean_over_seeds,
)
from kdplatform.predictions import FloatArray, Predictions
from kdplatform.reporting.report_table import (
    Row,
    change_words,
    number_words,
    p_words,
)
from kdplatform.reporting.sides import Side, Sides
from kdplatform.reporting.tables import percent
from kdplatform.study.fairness import HIGHER_IS_FAIRER, Change, change_between
from kdplatform.study.verdicts import Verdict, by_interval

_METRICS = {
    "eod": "EOD",
    "dpd": "DPD",
    "accuracy_gap": "accuracy gap",
    "worst_group_accuracy": "worst-group accuracy",
}


def _row(
    what: str, a: float, b: float, change: Interval, p: float, verdict: str, scale: float
) -> Row:
    digits = 2 if scale == 100 else 4
    return Row(
        {
            "what": what,
            "a": a,
            "b": b,
            "difference": change.estimate,
            "low": change.low,
            "high": change.high,
            "p_value": p,
            "verdict": verdict,
        },
        {
            "what": what,
            "a": number_words(a, digits, scale),
            "b": number_words(b, digits, scale),
            "difference": change_words(change, scale, digits),
            "p": p_words(p),
            "verdict": verdict,
        },
    )


def overall_rows(sides: Sides) -> Iterator[Row]:
    """Accuracy, the scores of probabilities where both sides have logits, disagreement."""
    a, b = (np.mean([t.accuracy for t in s.tables]) for s in (sides.a, sides.b))
    correct = [np.stack([t.correct for t in s.tables]).astype(float) for s in (sides.a, sides.b)]
    change = _change(sides, *correct)
    yield _row("accuracy", float(a), float(b), change, np.nan, _judged(change), 100)
    if sides.logits:
        yield from _score_rows(sides)
    across = [disagreement(x, y) for x in sides.a.tables for y in sides.b.tables]
    within = [_within(side) for side in (sides.a, sides.b)]
    share = Interval(float(np.mean(across)), np.nan, np.nan)
    yield Row(
        {"what": "disagreement", "a": within[0], "b": within[1], "difference": share.estimate},
        {
            "what": "disagreement",
            "a": number_words(within[0], 2, 100),
            "b": number_words(within[1], 2, 100),
            "difference": percent(across) if len(across) == 1 else number_words(share[0], 2, 100),
        },
    )


def _score_rows(sides: Sides) -> Iterator[Row]:
    """ECE without an interval, since it is no mean of examples; Brier score and NLL with theirs."""
    yield _model_row("ECE", sides, lambda table: calibration(table).ece)
    scores = [[example_scores(t) for t in side.tables] for side in (sides.a, sides.b)]
    for name, label in (("brier", "Brier score"), ("nll", "NLL")):
        a, b = (np.stack([each[name] for each in side]) for side in scores)
        change = _change(sides, a, b)
        yield _row(label, float(a.mean()), float(b.mean()), change, np.nan, _judged(change, -1), 1)


def individual_rows(sides: Sides, space: FeatureSpace) -> Iterator[Row]:
    """Individual unfairness and consistency, with an interval over seeds where there are some."""
    pairs, neighbours = sample_pairs(space), nearest_neighbours(space)

    def of_output(output: Output) -> Callable[[Predictions], float]:
        return lambda table: individual_unfairness(table, pairs, output=output).unfairness

    for output in OUTPUTS if sides.logits else OUTPUTS[1:]:
        yield _model_row(f"I(f) on {output}", sides, of_output(output), better=-1)
    yield _model_row("consistency", sides, lambda t: consistency(t, neighbours), better=1)


def _model_row(
    what: str, sides: Sides, measure: Callable[[Predictions], float], better: int = 0
) -> Row:
    """A number of whole models: examples give it no interval, seeds do.

    Args:
        measure: gives the number of a prediction table.
        better: 1 where more is better, -1 where less is, 0 where nothing is concluded.
    """
    a, b = ([measure(table) for table in side.tables] for side in (sides.a, sides.b))
    difference = float(np.mean(b) - np.mean(a))
    change = Interval(difference, np.nan, np.nan)
    if better and sides.over_seeds and len(a) == len(b):
        change = mean_over_seeds(np.subtract(b, a))
    verdict = _judged(change, better) if better else ""
    return _row(what, float(np.mean(a)), float(np.mean(b)), change, np.nan, verdict, 1)


def _within(side: Side) -> float:
    pairs = [disagreement(x, y) for i, x in enumerate(side.tables) for y in side.tables[i + 1 :]]
    return float(np.mean(pairs)) if pairs else float("nan")


def _change(sides: Sides, a: FloatArray, b: FloatArray) -> Interval:
    """Difference of a mean over examples, with an interval over them and, if several, over seeds.

    Model i of one side is paired with model i of the other when there are as many; where they have
    nothing to do with each other the variance of their differences is right all the same.

    Args:
        a: value of every example under every model of a side. [models, examples]
        b: the same of the other side.
    """
    if sides.single:
        return mean_of_examples((b - a)[0])
    if len(a) == len(b):
        return mean_of_seeds_and_examples(b - a)
    # One side has more seeds: no pairs, and a side of one model has no spread to go by.
    return Interval(float(b.mean() - a.mean()), np.nan, np.nan)


def _judged(change: Interval, better: int = 1) -> str:
    verdict = by_interval(better, change)
    if not np.isfinite(change.low):
        return "no interval"
    words = {Verdict.SUPPORTED: "B better", Verdict.CONTRADICTED: "B worse"}
    return words.get(verdict, "undecided")


def class_test(sides: Sides) -> ClassComparison | None:
    """Class tests: over seeds, of one pair of models, or none for one model against several."""
    if sides.over_seeds:
        return compare_classes(sides.a.tables, sides.b.tables)
    return compare_pair(sides.a.tables[0], sides.b.tables[0]) if sides.single else None


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


def fairness_rows(bootstrap: FairnessBootstrap, null: pd.DataFrame) -> Iterator[Row]:
    """The fairness metrics of one attribute, arms "A" and "B", each with its verdict."""
    for metric, label in _METRICS.items():
        change = change_between(bootstrap, null, ["B"], "A", metric)
        a, b = (bootstrap.interval(arm, metric).estimate for arm in ("A", "B"))
        what, verdict = f"{label}, {bootstrap.attribute}", _fairness_verdict(metric, change)
        row = _row(what, a, b, change.interval, np.nan, verdict, 100)
        row.numbers |= {"chance_difference": change.chance, "levelling_down": change.levelling_down}
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
