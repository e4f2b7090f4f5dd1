"""Comparison of two sides, each with one or more models on the same examples."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from kdplatform.analysis.bootstrap import bootstrap_fairness
from kdplatform.analysis.comparison import ClassComparison
from kdplatform.analysis.decisions import MIN_GROUP_SHARE
from kdplatform.analysis.group_fairness import fairness_metrics
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.individual_fairness import (
    factor_space,
    nearest_neighbours,
    sample_pairs,
)
from kdplatform.analysis.parity import parity_null
from kdplatform.analysis.tables import Attribute, listed
from kdplatform.reporting.comparison_measures import FOUR_FIFTHS_TABLE, Measures, measures_of
from kdplatform.reporting.comparison_page import comparison_report
from kdplatform.reporting.comparison_rows import (
    A,
    B,
    class_count_row,
    class_test,
    fairness_changes,
    fairness_rows,
    group_count_row,
    individual_rows,
    overall_rows,
    ranking_rows,
)
from kdplatform.reporting.count_lines import unseen_lines
from kdplatform.reporting.findings_text import led_by_findings
from kdplatform.reporting.gallery import Shown
from kdplatform.reporting.page import Section
from kdplatform.reporting.report import Report
from kdplatform.reporting.report_table import Row, Table, table_of
from kdplatform.reporting.study_page import DEFAULT_EFFORT
from kdplatform.reporting.tables import text_table
from kdplatform.study.evidence import Evidence, accuracy_change
from kdplatform.study.fairness import Effort
from kdplatform.study.findings import WARNING, Finding, make_findings
from kdplatform.study.groups import BETTER, WORSE, GroupComparison, compare_groups
from kdplatform.study.measures import favourable_class
from kdplatform.study.metrics import Similarity, individual_metrics, score_metrics
from kdplatform.study.ranking import Ranked, ranking_metrics
from kdplatform.study.same_examples import check_examples, with_ids_of_one_kind
from kdplatform.study.sides import Side
from kdplatform.study.study import Arm, Model, Study
from kdplatform.study.warnings import arms_at_chance, collapse_warnings, unmeasured_attributes
from kdplatform.text import as_in_python, as_typed

_NO_PREVIEWS: Mapping[str, Shown] = MappingProxyType({})


@dataclass(frozen=True)
class Comparison:
    """What differs between side A, the reference, and side B.

    Attributes:
        verdicts: every row with its verdict.
        notes: how to read the verdicts.
        study: the sides, A in the role of the NDS and B in that of its students.
        classes: the comparison of classes; None if they cannot be tested.
        groups: the comparison of groups; None without attributes.
        findings: the first sentences of the page and the printed text.
        measures: the auditors' measures of every group.
    """

    report: Report
    verdicts: Table
    notes: Sequence[str]
    study: Study
    classes: ClassComparison | None
    groups: GroupComparison | None
    findings: Sequence[Finding]
    measures: Measures


def build_comparison(
    a: Side,
    b: Side,
    attributes: Sequence[Attribute],
    similar_by: Sequence[str] = (),
    min_group_size: int = MIN_GROUP_SIZE,
    effort: Effort = DEFAULT_EFFORT,
    remarks: Sequence[str] = (),
    previews: Mapping[str, Shown] = _NO_PREVIEWS,
    positive: str | None = None,
    min_group_share: float = MIN_GROUP_SHARE,
    from_python: bool = False,
) -> Comparison:
    """Compares side B with side A, the reference.

    Args:
        attributes: attributes whose groups are compared: columns, or tuples for intersections.
        similar_by: columns for the similarity of examples; without them individual fairness is not
            measured.
        min_group_size: examples a group needs to be measured.
        effort: numbers of draws and permutations.
        remarks: what is not compared, with the reason, if the caller knows.
        previews: logged previews of examples, by id.
        positive: the favourable class by name, or by number if classes have no names; None: class 1
            of two.
        min_group_share: share of the examples that a group needs for an impact ratio.
        from_python: whether notes name parameters as in Python, not as on the command line.

    Raises:
        ValueError: the sides hold different examples or groups.
        UserError: there is no such class, or no rate of it.
    """
    a, b = with_ids_of_one_kind(a, b)
    check_examples(a, b)
    reference, similar = a.tables[0], None
    if similar_by:
        space = factor_space(reference, similar_by)
        similar = Similarity(sample_pairs(space), nearest_neighbours(space))
    study = replace(
        _study(a, b, similar), attributes=tuple(attributes), min_group_size=min_group_size
    )
    favourable = favourable_class(positive, study.class_names, study.any_table)
    tables = {"A": study.tables(A), "B": study.tables(B)}
    classes, measured = class_test(study), list[Attribute]()
    fairness: list[Row] = []
    metrics = [accuracy_change(tables["A"], tables["B"])]
    groups, at_chance = None, arms_at_chance(study)
    if attributes:
        groups = compare_groups(
            tables["A"],
            tables["B"],
            attributes,
            min_group_size=min_group_size,
            class_names=study.class_names,
        )
    notes = [*_notes(study, classes), *_unseen_notes(classes, groups), *remarks]
    for attribute in attributes:
        sizes = fairness_metrics(reference, attribute, min_group_size=min_group_size)
        name = sizes.attribute
        if sizes.groups > 1:
            smallest = f"{name}: {sizes.groups} groups, the smallest of"
            notes.append(f"{smallest} {sizes.smallest_group} examples.")
        if sizes.note:
            notes.append(f"{name}: {as_typed(sizes.note)}.")
        if sizes.groups < 2:
            continue
        measured.append(attribute)
        bootstrap = bootstrap_fairness(
            tables, attribute, draws=effort.draws, min_group_size=min_group_size
        )
        null = parity_null(
            tables,
            attribute,
            permutations=effort.permutations,
            min_group_size=min_group_size,
        )
        fairness.extend(fairness_rows(bootstrap, null, sizes))
        metrics.extend(fairness_changes(bootstrap, null, b_at_chance=B in at_chance))
    measures = measures_of(
        *(study, measured, favourable, effort, min_group_share), chosen=positive is not None
    )
    notes += measures.notes
    if similar is None:
        notes.append("I(f): not measured; --similar_by names columns that say how alike two are.")
    else:
        notes.append(f"I(f): distances in {similar.pairs.space.name}; lower is fairer.")
    notes = [as_in_python(note) for note in notes] if from_python else notes
    verdicts = table_of(
        "verdicts",
        "What differs: side B minus side A",
        [
            *overall_rows(study),
            *ranking_rows(study),
            *([] if groups is None else [group_count_row(groups)]),
            *([] if classes is None else [class_count_row(classes)]),
            *fairness,
            *measures.rows,
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
    evidence = Evidence(
        "",
        ("A", "B"),
        (len(a.tables), len(b.tables)),
        metrics,
        groups,
        classes,
        study.class_names,
    )
    findings = make_findings([evidence], _warnings(study))
    report = comparison_report(
        *(study, verdicts, notes, classes, groups, findings, previews),
        measures=measures.tables,
        positive=favourable,
    )
    report = replace(report, frames={**report.frames, "groups": measures.groups})
    return Comparison(report, verdicts, notes, study, classes, groups, findings, measures)


def _warnings(study: Study) -> list[str]:
    names = zip((A, B), study.settings.items(), strict=True)
    titles = {arm: f"{side} ({name})" for arm, (side, name) in names}
    # A table has a place on its side; which seed it was trained with is not known of a file.
    collapsed = collapse_warnings(study, titles, lambda place: f"model {place + 1}")
    return [*unmeasured_attributes(study), *collapsed, *_same_predictions(study)]


def _same_predictions(study: Study) -> Iterator[str]:
    """Names models that cannot differ, because they predict the same for every example."""
    first = study.any_table
    found = {
        side: {table.aligned(first).predictions.tobytes() for table in study.tables(arm)}
        for side, arm in (("A", A), ("B", B))
    }
    if found["A"] == found["B"] and len(found["A"]) == 1:
        yield "A and B predict the same class for every example, so no prediction changed."
    for side, arm in (("A", A), ("B", B)):
        given = len(study.tables(arm))
        if len(found[side]) < given:
            yield (
                f"{side} has {given} models and {len(found[side])} different predictions; equal "
                "ones say nothing of how seeds differ."
            )


def _unseen_notes(classes: ClassComparison | None, groups: GroupComparison | None) -> Iterator[str]:
    """What a count of 0 does not exclude."""
    for noun, tests in (("group", [groups]), ("class", [classes])):
        for line in unseen_lines([test for test in tests if test is not None], noun):
            yield f"{line[0].upper()}{line[1:]}."


def with_provenance(comparison: Comparison, lines: Sequence[str]) -> Comparison:
    """Returns a comparison whose page ends with its provenance, one fact a line."""
    page = comparison.report.page
    section = Section("What this comparison rests on", points=list(lines))
    page = replace(page, sections=[*page.sections, section])
    return replace(comparison, report=replace(comparison.report, page=page))


def verdict_line(comparison: Comparison) -> str:
    """Returns the findings in one line: who got worse, who better, and that the rest is open."""
    found = []
    for kind in (WARNING, WORSE, BETTER):
        told = [f for f in comparison.findings if f.kind == kind]
        if told:
            subjects = listed(list(dict.fromkeys(f.subject or f.sentence for f in told)))
            found.append(f"{kind}: {subjects}")
    return (
        "; ".join(found)
        if found
        else "no difference is shown; that does not mean that there is none"
    )


def _study(a: Side, b: Side, similar: Similarity | None) -> Study:
    """Returns the sides as a study: A in the role of the NDS, B in that of its students."""
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
    """Returns the findings and the verdict table, as they are printed."""
    shown = comparison.verdicts.shown
    rows = [[str(cell) for cell in row] for row in shown.itertuples(index=False)]
    text = "\n".join(
        [
            comparison.report.page.subtitle,
            "",
            text_table([str(name) for name in shown.columns], rows),
            "",
            *_rule_lines(comparison.measures),
            *comparison.notes,
        ]
    )
    return led_by_findings(comparison.findings, text)


def _rule_lines(measures: Measures) -> Iterator[str]:
    """The four-fifths rule as it is printed."""
    for table in measures.tables[:1]:
        if table.key == FOUR_FIFTHS_TABLE:
            rows = [[str(cell) for cell in row] for row in table.shown.itertuples(index=False)]
            yield text_table([str(name) for name in table.shown.columns], rows)
            yield from ["", *table.notes, ""]


def _notes(study: Study, classes: ClassComparison | None) -> Iterator[str]:
    a, b = len(study.seeds(A)), len(study.seeds(B))
    if a == b == 1:
        yield (
            "One model on each side: intervals and tests are conditional on these two models, and "
            "say nothing about other seeds."
        )
    elif min(a, b) == 1:
        yield (
            f"{a} and {b} models: one side has no spread over seeds, so classes are not tested, and"
            " intervals are conditional on its one model."
        )
    elif a == b:
        yield (
            "Intervals pair the models of A and B in the given order, the first with the first. "
            "Name the same seeds in the same order."
        )
    if classes is not None and (undefined := int((classes.table["status"] != "tested").sum())):
        yield (
            f"{undefined} classes are not tested, because they are absent or do not vary over "
            "seeds."
        )
    labels = set(study.any_table.labels.tolist())

    def named(numbers: Sequence[int]) -> str:
        return listed([study.class_names[number] for number in numbers])

    for arm, title in zip((A, B), study.settings.values(), strict=True):
        predicted = [np.unique(table.predictions) for table in study.tables(arm)]
        if wrong := sorted(set(np.concatenate(predicted).tolist()) - labels):
            yield (
                f"{title}: class {named(wrong)} is predicted but is never a label, so these "
                "predictions are always wrong."
            )
        if any(table.logits is None for table in study.tables(arm)):
            yield (
                f"{title} has no column 'logits', so ECE, Brier score and NLL are not measured; "
                "other columns with scores are not read."
            )
    yield "Values are in %, except ratios, ECE, Brier score, NLL, I(f) and consistency."
    if not a == b == 1:
        yield (
            "Disagreement: the columns A and B have that of two models of the side, then follows "
            "that of A with B."
        )
    if study.attributes:
        yield (
            "EOD, DPD, gap, ratios and similar metrics: B is called fairer or less fair only if "
            "the interval excludes 0, also after the difference of the chance levels is taken away."
        )
