"""The page of a comparison of side B with side A, in the same chapters as a study's page."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from kdplatform.analysis.comparison import ClassComparison
from kdplatform.analysis.disagreement import disagreement_by_class
from kdplatform.reporting.changed_examples import gallery_of
from kdplatform.reporting.chapters import examples_chapter, findings_chapter, methods_and_caveats
from kdplatform.reporting.classes_chapter import class_frame, classes_of_pair
from kdplatform.reporting.comparison_rows import A, B
from kdplatform.reporting.data_chapter import data_chapter
from kdplatform.reporting.gallery import Shown
from kdplatform.reporting.groups_chapter import groups_of_pair
from kdplatform.reporting.page import Page, Section
from kdplatform.reporting.pairs import SIDES, Pair
from kdplatform.reporting.report import Report, with_distinct_keys
from kdplatform.reporting.report_table import Table
from kdplatform.study.claims import counted
from kdplatform.study.findings import Finding
from kdplatform.study.groups import GroupComparison
from kdplatform.study.study import Study

_FILES = (
    "One CSV per table, in fractions instead of per cent, and one PNG per figure.",
    "classes.csv: every class with its tests.",
)


def comparison_report(
    study: Study,
    verdicts: Table,
    notes: Sequence[str],
    classes: ClassComparison | None,
    groups: GroupComparison | None,
    findings: Sequence[Finding],
    previews: Mapping[str, Shown],
    measures: Sequence[Table] = (),
    positive: int | None = None,
) -> Report:
    """Returns a comparison as a page with its files.

    Args:
        study: side A in the role of the NDS, side B in that of its students.
        verdicts: every row with its verdict.
        notes: how to read the rows.
        previews: logged previews of examples, by id.
        measures: the auditors' measures of every group.
        positive: number of the favourable class, if there is one.
    """
    pair = _pair(study, classes, groups)
    subtitle = "; ".join(
        f"{letter}: {title} ({counted(len(study.seeds(arm)), 'model')})"
        for arm, (letter, title) in zip((A, B), study.settings.items(), strict=True)
    )
    examples = study.any_table
    groups_section = Section("Groups", ["No attribute is compared, so no group is known."])
    if study.attributes:
        parts = list(groups_of_pair(pair, study.attributes, study.min_group_size, positive))
        groups_section = Section(
            "Groups", ["Which groups does B treat better or worse?"], parts=parts
        )
        if measures:
            asked = Section("What auditors ask for", tables=list(measures))
            groups_section = replace(groups_section, parts=[*parts, asked])
    sections = [
        findings_chapter(findings),
        data_chapter(examples, study.attributes, study.class_names, study.min_group_size, positive),
        groups_section,
        replace(classes_of_pair(pair, class_frame(pair)), title="Classes"),
        examples_chapter([(pair.title, gallery_of(pair, study.attributes, previews))]),
        Section("Every verdict and its test", tables=[verdicts], folded=True),
        methods_and_caveats([], list(notes), _FILES),
    ]
    page = Page(
        "Comparison of predictions",
        f"{subtitle}; {len(examples)} examples, digest {examples.digest}",
        with_distinct_keys(sections),
        "B compared with A, the reference",
    )
    frames = {each.key: each.frame for each in page.tables()}
    if groups is not None:
        frames["group_shifts"] = groups.table
    frames["classes"] = _class_rows(study, pair)
    return Report(page, frames, findings=findings)


def _pair(study: Study, classes: ClassComparison | None, groups: GroupComparison | None) -> Pair:
    a, b = study.tables(A), study.tables(B)
    titles = [f"{letter} ({title})" for letter, title in study.settings.items()]
    names = titles[0], titles[1]
    return Pair("", names, SIDES, a, b, study.class_names, classes, groups)


def _class_rows(study: Study, pair: Pair) -> pd.DataFrame:
    """Every class with its tests, or only its accuracies if there are none."""
    frame = class_frame(pair)
    if pair.test is not None:
        shares = [
            disagreement_by_class(x, y, len(frame))["disagreement"].to_numpy(dtype=float)
            for x in pair.a
            for y in pair.b
        ]
        frame = frame.assign(disagreement=np.mean(shares, axis=0))
    if study.class_names != tuple(map(str, range(len(study.class_names)))):
        frame = frame.copy()
        frame.insert(1, "name", [study.class_names[number] for number in frame["class"]])
    return frame
