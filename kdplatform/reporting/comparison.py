"""Two sides, each of one or more models of the same examples: what differs between them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.classwise import class_table_over_seeds
from kdplatform.analysis.comparison import ClassComparison
from kdplatform.analysis.disagreement import disagreement_by_class
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.individual_fairness import (
    factor_space,
    nearest_neighbours,
    sample_pairs,
)
from kdplatform.analysis.intervals import Interval
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.tables import Attribute, listed
from kdplatform.reporting.comparison_rows import (
    A,
    B,
    class_test,
    count_row,
    fairness_rows,
    individual_rows,
    overall_rows,
    ranking_rows,
)
from kdplatform.reporting.page import Page, Section
from kdplatform.reporting.report_table import (
    Row,
    Table,
    change_words,
    number_words,
    p_words,
    table_of,
)
from kdplatform.reporting.study_page import DEFAULT_EFFORT, Report
from kdplatform.reporting.tables import text_table
from kdplatform.study.claims import counted
from kdplatform.study.fairness import Effort
from kdplatform.study.metrics import Similarity, individual_metrics, score_metrics
from kdplatform.study.ranking import Ranked, ranking_metrics
from kdplatform.study.sides import Side
from kdplatform.study.study import Arm, Model, Study

_SHOWN_CLASSES = 20


@dataclass(frozen=True)
class Comparison:
    """What differs between side A, the reference, and side B."""

    report: Report
    verdicts: Table
    notes: Sequence[str]


def build_comparison(
    a: Side,
    b: Side,
    attributes: Sequence[Attribute],
    similar_by: Sequence[str] = (),
    min_group_size: int = MIN_GROUP_SIZE,
    effort: Effort = DEFAULT_EFFORT,
    remarks: Sequence[str] = (),
) -> Comparison:
    """Compares side B with side A, the reference.

    Args:
        attributes: whose groups are compared: columns, or several of them for their intersections.
        similar_by: columns that say how alike two examples are, for individual fairness; none:
            not measured.
        min_group_size: examples a group needs to be measured.
        effort: draws and permutations.
        remarks: what is not compared and why, where the caller knows.

    Raises:
        ValueError: the sides hold different examples or groups.
    """
    a, b = _with_ids_of_one_kind(a, b)
    _check_examples(a, b)
    reference, similar = a.tables[0], None
    if similar_by:
        space = factor_space(reference, similar_by)
        similar = Similarity(sample_pairs(space), nearest_neighbours(space))
    study = _study(a, b, similar)
    tables = {"A": study.tables(A), "B": study.tables(B)}
    classes = class_test(study)
    fairness: list[Row] = []
    notes = [*_notes(study, classes), *remarks]
    for attribute in attributes:
        metrics = fairness_metrics(reference, attribute, min_group_size=min_group_size)
        name = metrics.attribute
        if metrics.groups > 1:
            smallest = f"{name}: {metrics.groups} groups, the smallest of"
            notes.append(f"{smallest} {metrics.smallest_group} examples.")
        if metrics.note:
            notes.append(f"{name}: {metrics.note}.")
        if metrics.groups < 2:
            continue
        bootstrap = bootstrap_fairness(
            tables, attribute, draws=effort.draws, min_group_size=min_group_size
        )
        null = parity_null(
            tables,
            attribute,
            permutations=effort.permutations,
            min_group_size=min_group_size,
        )
        fairness.extend(fairness_rows(bootstrap, null, metrics))
    if similar is None:
        notes.append("I(f): not measured; --similar_by names columns that say how alike two are.")
    else:
        notes.append(f"I(f): distances in {similar.pairs.space.name}; lower is fairer.")
    verdicts = table_of(
        "verdicts",
        "What differs: side B minus side A",
        [
            *overall_rows(study),
            *ranking_rows(study),
            *([] if classes is None else [count_row(classes)]),
            *fairness,
            *individual_rows(study),
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
    return Comparison(_report(study, verdicts, classes, notes), verdicts, notes)


def _study(a: Side, b: Side, similar: Similarity | None) -> Study:
    """Returns the sides as a study: A stands where the NDS does, B where its students do."""
    arms: dict[Arm, dict[int, Model]] = {A: {}, B: {}}
    for arm, side in ((A, a), (B, b)):
        for seed, table in enumerate(table.aligned(a.tables[0]) for table in side.tables):
            scores = score_metrics(table) | individual_metrics(table, similar)
            scores |= ranking_metrics(table, Ranked())
            arms[arm][seed] = Model("", table, scores)
    numbers = range(max(table.n_classes for side in (a, b) for table in side.tables))
    classes = a.class_names or tuple(map(str, numbers))
    return Study("", classes, arms, settings={"A": a.title, "B": b.title})


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
    first, every = a.tables[0], [*a.tables, *b.tables]
    classes = next((table.n_classes for table in every if table.logits is not None), None)
    for side in (a, b):
        for table in side.tables:
            if table.logits is not None and table.n_classes != classes:
                raise ValueError(
                    f"{side.title} has logits of {table.n_classes} classes, another table of "
                    f"{classes}; allowed: the same classes in all tables"
                )
            if table.digest != first.digest:
                raise ValueError(
                    f"different examples: {a.title} has digest {first.digest} ({len(first)} rows), "
                    f"{side.title} has {table.digest} ({len(table)} rows); "
                    "allowed: the same ids and labels on both sides"
                )


def _with_ids_of_one_kind(a: Side, b: Side) -> tuple[Side, Side]:
    """Turns ids into text where one file holds them as numbers and another as text."""
    kinds = {table.ids.dtype for side in (a, b) for table in side.tables}
    if len(kinds) == 1:
        return a, b

    def as_text(side: Side) -> Side:
        return replace(side, tables=[replace(t, ids=t.ids.astype(str)) for t in side.tables])

    return as_text(a), as_text(b)


def _notes(study: Study, classes: ClassComparison | None) -> Iterator[str]:
    a, b = len(study.seeds(A)), len(study.seeds(B))
    if a == b == 1:
        yield (
            "One model on each side: intervals and tests are conditional on these two models, and "
            "say nothing of other seeds."
        )
    elif min(a, b) == 1:
        yield (
            f"{a} and {b} models: one side has no spread over seeds, so classes are not tested, and"
            " intervals are conditional on its one model."
        )
    if classes is not None and (undefined := int((classes.table["status"] != "tested").sum())):
        yield f"{undefined} classes are not tested: absent, or without any variance over seeds."
    labels = set(study.any_table.labels.tolist())

    def named(numbers: Sequence[int]) -> str:
        return listed([study.class_names[number] for number in numbers])

    for arm, title in zip((A, B), study.settings.values(), strict=True):
        predicted = [np.unique(table.predictions) for table in study.tables(arm)]
        never = sorted(labels.difference(*predicted))
        if never:
            yield f"{title}: no model predicts class {named(never)}."
        if wrong := sorted(set(np.concatenate(predicted).tolist()) - labels):
            yield f"{title}: class {named(wrong)} is predicted and is no label: always wrong."
        if any(len(own) == 1 for own in predicted):
            yield f"{title}: a model predicts the same class for every example."
        if any(table.logits is None for table in study.tables(arm)):
            yield f"{title}: without logits, so scores of probabilities are not measured."
    yield "In %; scores of probabilities, I(f) and consistency as they are."
    if not a == b == 1:
        yield "Disagreement: under A and B that of two models of the side, then that of A with B."
    yield (
        "EOD, DPD, gap: B fairer or less fair only where the interval excludes 0, also without the "
        "difference of what chance alone gives."
    )


def _class_frame(study: Study, table: pd.DataFrame | None) -> pd.DataFrame:
    """Every class with its tests, or its accuracies alone where there are none."""
    frame = _class_rows(study, table)
    if study.class_names != tuple(map(str, range(len(study.class_names)))):
        frame.insert(1, "name", [study.class_names[number] for number in frame["class"]])
    return frame


def _class_rows(study: Study, table: pd.DataFrame | None) -> pd.DataFrame:
    a, b, n_classes = study.tables(A), study.tables(B), len(study.class_names)
    if table is None:
        first, second = (class_table_over_seeds(tables, n_classes) for tables in (a, b))
        frame = first[["class", "n"]]
        accuracies = first["accuracy"], second["accuracy"]
        frame = frame.assign(accuracy_a=accuracies[0], accuracy_b=accuracies[1])
        return frame.assign(difference=accuracies[1] - accuracies[0])
    shares = [
        disagreement_by_class(x, y, len(table))["disagreement"].to_numpy(dtype=float)
        for x in a
        for y in b
    ]
    return table.assign(disagreement=np.mean(shares, axis=0))


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
                "class": str(row.get("name", int(row["class"]))),
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
    study: Study, verdicts: Table, classes: ClassComparison | None, notes: Sequence[str]
) -> Report:
    frame = _class_frame(study, None if classes is None else classes.table)
    words = _class_words(frame)
    hidden = len(frame) - len(words)
    more = [f"{hidden} further classes are in classes.csv."] if hidden else []
    shown = Table("classes", "Classes, those that differ most first", frame, words, notes=more)
    sides = [
        f"{letter}: {title} ({counted(len(study.seeds(arm)), 'model')})"
        for arm, (letter, title) in zip((A, B), study.settings.items(), strict=True)
    ]
    examples = study.any_table
    subtitle = f"{'; '.join(sides)}; {len(examples)} examples, digest {examples.digest}"
    sections = [
        Section("What differs", tables=[replace(verdicts, notes=list(notes))]),
        Section("Class by class", tables=[shown]),
    ]
    page = Page("Comparison of predictions", subtitle, sections)
    return Report(page, {each.key: each.frame for each in page.tables()})
