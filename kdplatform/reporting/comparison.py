"""Two sides, each of one or more models of the same examples: what differs between them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kdplatform.analysis.bootstrap import (
    HIGHER_IS_FAIRER,
    FairnessBootstrap,
    Interval,
    bootstrap_fairness,
)
from kdplatform.analysis.calibration import calibration
from kdplatform.analysis.classwise import class_table, overall_accuracy
from kdplatform.analysis.comparison import ClassComparison, compare_classes
from kdplatform.analysis.disagreement import disagreement, disagreement_by_class
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.significance import mcnemar_by_class, significance_counts
from kdplatform.analysis.tables import align_table, examples_digest, stack_tables
from kdplatform.reporting.page import Page, Section
from kdplatform.reporting.report_table import (
    Row,
    Table,
    change_words,
    number_words,
    p_words,
    table_of,
)
from kdplatform.reporting.study_fairness import Effort
from kdplatform.reporting.study_page import DEFAULT_EFFORT, Report
from kdplatform.reporting.tables import percent, text_table
from kdplatform.reporting.verdicts import (
    LEVEL,
    Verdict,
    by_interval,
    mean_of_examples,
    mean_of_seeds_and_examples,
)

_METRICS = {
    "eod": "EOD",
    "dpd": "DPD",
    "accuracy_gap": "accuracy gap",
    "worst_group_accuracy": "worst-group accuracy",
}
_SCORES = {"ece": "ECE", "brier": "Brier score", "nll": "NLL"}
_SHOWN_CLASSES = 20


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        tables: prediction tables, one per seed.
        attributes: columns whose groups may be compared.
    """

    title: str
    tables: Sequence[pd.DataFrame]
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What differs between side A, the reference, and side B."""

    report: Report
    verdicts: Table
    notes: Sequence[str]


@dataclass(frozen=True)
class _Sides:
    """Both sides on the same examples, in the same order of rows."""

    a: Side
    b: Side

    @property
    def over_seeds(self) -> bool:
        """Whether there are enough models for tests over seeds."""
        return min(len(self.a.tables), len(self.b.tables)) > 1

    @property
    def single(self) -> bool:
        """Whether each side is one model."""
        return max(len(self.a.tables), len(self.b.tables)) == 1


def build_comparison(
    a: Side, b: Side, attributes: Sequence[str], effort: Effort = DEFAULT_EFFORT
) -> Comparison:
    """Compares side B with side A, the reference.

    Raises:
        ValueError: the sides hold different examples or groups, or a table is invalid.
    """
    _check_examples(a, b)
    a, b = _with_ids_of_one_kind(a, b)
    reference = a.tables[0]
    sides = _Sides(
        *(
            Side(side.title, [align_table(table, reference) for table in side.tables])
            for side in (a, b)
        )
    )
    tables = {"A": list(sides.a.tables), "B": list(sides.b.tables)}
    classes, compared = _class_tests(sides)
    fairness: list[Row] = []
    notes = list(_notes(sides, classes))
    for attribute in attributes:
        metrics = fairness_metrics(reference, attribute)
        if metrics.groups < 2:
            notes.append(f"{attribute}: one group only, so no differences.")
            continue
        smallest = f"{attribute}: {metrics.groups} groups, the smallest of"
        notes.append(f"{smallest} {metrics.smallest_group} examples.")
        if metrics.note:
            notes.append(f"{attribute}: {metrics.note}.")
        bootstrap = bootstrap_fairness(tables, attribute, draws=effort.draws)
        null = parity_null(tables, attribute, permutations=effort.permutations)
        fairness.extend(_fairness_rows(bootstrap, null))
    verdicts = table_of(
        "verdicts",
        "What differs: side B minus side A",
        [
            *_overall_rows(sides),
            *([] if classes is None else [_count_row(classes, compared)]),
            *fairness,
        ],
        [
            (
                "",
                {
                    "what": "",
                    "a": "A",
                    "b": "B",
                    "difference": "B minus A (95% interval)",
                    "p": "p",
                    "verdict": "verdict",
                },
            )
        ],
    )
    return Comparison(_report(sides, verdicts, classes, notes), verdicts, notes)


def comparison_text(comparison: Comparison) -> str:
    """Returns the verdict table as it is printed."""
    shown = comparison.verdicts.shown
    rows = [[str(cell) for cell in row] for row in shown.itertuples(index=False)]
    return "\n".join(
        [
            comparison.report.page.subtitle,
            "",
            text_table([str(name) for name in shown.columns], rows),
            "",
            *comparison.notes,
        ]
    )


def _check_examples(a: Side, b: Side) -> None:
    first = examples_digest(a.tables[0])
    for side in (a, b):
        for table in side.tables:
            own = examples_digest(table)
            if own != first:
                raise ValueError(
                    f"different examples: {a.title} has digest {first} "
                    f"({len(a.tables[0])} rows), {side.title} has {own} ({len(table)} rows); "
                    "allowed: the same ids and labels on both sides"
                )


def _with_ids_of_one_kind(a: Side, b: Side) -> tuple[Side, Side]:
    """Turns ids into text where one file holds them as numbers and another as text."""
    kinds = {table["id"].dtype for side in (a, b) for table in side.tables}
    if len(kinds) == 1:
        return a, b

    def as_text(side: Side) -> Side:
        tables = [table.assign(id=table["id"].astype(str)) for table in side.tables]
        return replace(side, tables=tables)

    return as_text(a), as_text(b)


# ---- the rows


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


def _overall_rows(sides: _Sides) -> Iterator[Row]:
    a, b = (np.mean([overall_accuracy(t) for t in s.tables]) for s in (sides.a, sides.b))
    change = _accuracy_change(sides)
    yield _row("accuracy", float(a), float(b), change, np.nan, _judged(change), 100)
    for name in _SCORES:
        known = [_calibration(side, name) for side in (sides.a, sides.b)]
        if all(known):
            before, after = (float(np.mean(values)) for values in known)
            change = Interval(after - before, np.nan, np.nan)
            yield _row(_SCORES[name], before, after, change, np.nan, "", 1)
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


def _calibration(side: Side, name: str) -> list[float]:
    if not all("logits" in table.columns for table in side.tables):
        return []
    return [float(getattr(calibration(table), name)) for table in side.tables]


def _within(side: Side) -> float:
    pairs = [disagreement(x, y) for i, x in enumerate(side.tables) for y in side.tables[i + 1 :]]
    return float(np.mean(pairs)) if pairs else float("nan")


def _accuracy_change(sides: _Sides) -> Interval:
    """Difference in accuracy, with an interval over examples and, where there are several, seeds.

    Model i of one side is paired with model i of the other when there are as many; where they have
    nothing to do with each other the variance of their differences is right all the same.
    """
    a, b = (stack_tables(side.tables).correct.astype(float) for side in (sides.a, sides.b))
    if sides.single:
        return mean_of_examples((b - a)[0])
    if len(a) == len(b):
        return mean_of_seeds_and_examples(b - a)
    # One side has more seeds: no pairs, and a side of one model has no spread to go by.
    return Interval(float(b.mean() - a.mean()), np.nan, np.nan)


def _judged(change: Interval) -> str:
    verdict = by_interval(1, change)
    if not np.isfinite(change.low):
        return "no interval"
    words = {Verdict.SUPPORTED: "B better", Verdict.CONTRADICTED: "B worse"}
    return words.get(verdict, "undecided")


def _class_tests(sides: _Sides) -> tuple[pd.DataFrame | None, ClassComparison | None]:
    """Class tests: over seeds, of one pair of models, or none for one model against several."""
    if sides.over_seeds:
        compared = compare_classes(sides.a.tables, sides.b.tables)
        return compared.table, compared
    if sides.single:
        return mcnemar_by_class(sides.a.tables[0], sides.b.tables[0]), None
    return None, None


def _count_row(table: pd.DataFrame, compared: ClassComparison | None) -> Row:
    counts = significance_counts(table)
    p = compared.permutation.p_count if compared else np.nan
    if compared:
        verdict = "classes differ" if p < LEVEL else "undecided"
    else:
        verdict = "McNemar, these two models"
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


def _fairness_rows(bootstrap: FairnessBootstrap, null: pd.DataFrame) -> Iterator[Row]:
    compared = bootstrap.compare("B", "A", null).to_dict("records")
    by_metric = {found["metric"]: found for found in compared}
    for metric, label in _METRICS.items():
        found = by_metric[metric]
        change = Interval(found["difference"], found["low"], found["high"])
        verdict = str(found["verdict"])
        if metric in HIGHER_IS_FAIRER:
            verdict = verdict.replace("less fair", "worse").replace("fairer", "better")
        if verdict not in ("undecided", "undefined"):
            verdict = f"B {verdict}"
        if found["levelling_down"]:
            verdict += " (levelling down)"
        row = _row(
            f"{label}, {bootstrap.attribute}",
            found["reference_value"],
            found["value"],
            change,
            np.nan,
            verdict,
            100,
        )
        row.numbers |= {name: found[name] for name in ("chance_difference", "levelling_down")}
        yield row


# ---- what is written


def _notes(sides: _Sides, table: pd.DataFrame | None) -> Iterator[str]:
    a, b = len(sides.a.tables), len(sides.b.tables)
    if sides.single:
        yield (
            "One model on each side: intervals and tests are conditional on these two models, and "
            "say nothing of other seeds."
        )
    elif not sides.over_seeds:
        yield (
            f"{a} and {b} models: one side has no spread over seeds, so classes are not tested, and"
            " intervals are conditional on its one model."
        )
    if table is not None and (undefined := int((table["status"] != "tested").sum())):
        yield f"{undefined} classes are not tested: absent, or without any variance over seeds."
    for side in (sides.a, sides.b):
        never = sorted(_never_predicted(side))
        if never:
            yield f"{side.title}: no model predicts class {', '.join(map(str, never[:10]))}."
        if any(t["prediction"].nunique() == 1 for t in side.tables):
            yield f"{side.title}: a model predicts the same class for every example."
    yield "In %, the scores of probabilities as they are."
    if not sides.single:
        yield "Disagreement: under A and B that of two models of the side, then that of A with B."
    yield (
        "EOD, DPD, gap: B fairer or less fair only where the interval excludes 0, also without the "
        "difference of what chance alone gives."
    )


def _never_predicted(side: Side) -> set[int]:
    predicted = set().union(*(set(table["prediction"].unique()) for table in side.tables))
    return {int(label) for label in set(side.tables[0]["label"].unique()) - predicted}


def _class_frame(sides: _Sides, table: pd.DataFrame | None) -> pd.DataFrame:
    """Every class with its tests, or its accuracies alone where there are none."""
    if table is None:
        first, second = (
            np.mean([class_table(t, _classes(sides))["accuracy"] for t in side.tables], axis=0)
            for side in (sides.a, sides.b)
        )
        n = class_table(sides.a.tables[0], _classes(sides))["n"]
        frame = pd.DataFrame({"class": range(len(n)), "n": n})
        return frame.assign(accuracy_a=first, accuracy_b=second, difference=second - first)
    shares = [
        disagreement_by_class(x, y, len(table))["disagreement"].to_numpy(dtype=float)
        for x in sides.a.tables
        for y in sides.b.tables
    ]
    return table.assign(disagreement=np.mean(shares, axis=0))


def _classes(sides: _Sides) -> int:
    stack = stack_tables([*sides.a.tables, *sides.b.tables])
    return 1 + int(max(stack.labels.max(), stack.predictions.max()))


def _class_words(frame: pd.DataFrame) -> pd.DataFrame:
    """The classes that differ most, in words; the file has all of them."""
    order = frame["p_value" if "p_value" in frame else "n"].argsort(kind="stable")
    rows = []
    for row in frame.iloc[order].head(_SHOWN_CLASSES).to_dict("records"):
        change = Interval(
            row["difference"], row.get("difference_low", np.nan), row.get("difference_high", np.nan)
        )
        rows.append(
            {
                "class": str(int(row["class"])),
                "n": str(int(row["n"])),
                "A, %": number_words(row["accuracy_a"], 2, 100),
                "B, %": number_words(row["accuracy_b"], 2, 100),
                "B minus A": change_words(change),
                "p": p_words(row.get("p_value", np.nan)),
                "p, BH": p_words(row.get("p_bh", np.nan)),
                "p, Holm": p_words(row.get("p_holm", np.nan)),
            }
        )
    return pd.DataFrame(rows)


def _report(
    sides: _Sides, verdicts: Table, table: pd.DataFrame | None, notes: Sequence[str]
) -> Report:
    frame = _class_frame(sides, table)
    shown = Table("classes", "Classes, those that differ most first", frame, _class_words(frame))
    subtitle = (
        f"A: {sides.a.title} ({_models(sides.a)}); B: {sides.b.title} ({_models(sides.b)}); "
        f"{len(sides.a.tables[0])} examples, digest {examples_digest(sides.a.tables[0])}"
    )
    sections = [
        Section("What differs", tables=[replace(verdicts, notes=list(notes))]),
        Section("Class by class", tables=[shown]),
    ]
    page = Page("Comparison of predictions", subtitle, sections)
    return Report(page, {each.key: each.frame for each in page.tables()})


def _models(side: Side) -> str:
    return "1 model" if len(side.tables) == 1 else f"{len(side.tables)} models"
