"""The report of a study: every table, figure and verdict, as one page and as files."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from kdplatform.files import written_atomically
from kdplatform.reporting.condition_tables import conditions_table
from kdplatform.reporting.drawing import names_by_number
from kdplatform.reporting.figures import disagreement_figure
from kdplatform.reporting.method_tables import methods_table
from kdplatform.reporting.page import Page, Picture, Section, render, render_markdown
from kdplatform.reporting.ranking_tables import ranking_tables
from kdplatform.reporting.report_table import Table, file_stem, interval_words
from kdplatform.reporting.study_figures import (
    class_figure,
    count_figure,
    disagreement_matrices,
    eod_points,
    fairness_figure,
    methods_figure,
    shown_disagreement,
    worst_class_points,
)
from kdplatform.reporting.study_tables import (
    class_counts_table,
    fairness_table,
    individual_table,
)
from kdplatform.reporting.support_tables import (
    claims_table,
    class_detail,
    disagreement_table,
    group_accuracy_table,
)
from kdplatform.reporting.tables import EMPTY, csv_text
from kdplatform.study.claims import Claim, counted, judge
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import Effort, GroupFairness
from kdplatform.study.methods import PLAIN, Compared, compare_methods
from kdplatform.study.ranking_changes import judge_exposure
from kdplatform.study.study import Study
from kdplatform.study.verdicts import NEGLIGIBLE_SHIFT, Verdict

PAGE = "report.html"
_CROSSES = (
    "Crosses are 95% intervals. Numbers are temperatures. Arms are paired by seed, so that crosses "
    "that overlap may still differ: the table has the differences."
)
DEFAULT_EFFORT = Effort()


@dataclass(frozen=True)
class Report:
    """A report, ready to be written.

    Attributes:
        frames: what is written as CSV, by file stem.
        claims: the verdicts.
        of_methods: those on methods against plain distillation.
        gaps: models that are missing or were left out, with the reason.
    """

    page: Page
    frames: Mapping[str, pd.DataFrame]
    claims: Sequence[Claim] = ()
    of_methods: Sequence[Claim] = ()
    gaps: Sequence[str] = ()


def build_report(study: Study, effort: Effort = DEFAULT_EFFORT) -> Report:
    """Derives the whole report from a study's predictions."""
    classes = ClassWise(study)
    fairness = [GroupFairness(study, attribute, effort) for attribute in study.attributes]
    claims = judge(study, classes, {each.name: each for each in fairness})
    compared: list[Compared] = []
    methods = []
    if study.has_several_methods:
        # Intersections of attributes are in their own tables.
        single = [each for each in fairness if isinstance(each.attribute, str)]
        compared = compare_methods(study, single)
        methods = [_methods_section(study, classes, single, compared)]
    of_exposure = judge_exposure(study)
    sections = [
        _verdicts(study, claims),
        _this_study(study, classes),
        *methods,
        _class_section(study, classes),
        *_ranking_sections(study, of_exposure),
        _disagreement_section(study),
        *_fairness_sections(study, fairness),
        *_condition_sections(study),
        Section(
            "Individual fairness",
            ["Do similar examples get similar predictions?"],
            tables=[individual_table(study)],
        ),
        _files(),
    ]
    sections = _with_distinct_keys(sections)
    tally = Counter(claim.verdict for claim in claims)
    page = Page(
        f"Study {study.name}",
        _subtitle(study),
        sections,
        [(verdict.value, tally[verdict]) for verdict in Verdict] if claims else [],
    )
    frames = {table.key: table.frame for table in page.tables()}
    frames |= {"runs": study.metrics, "classes": class_detail(study, classes)}
    of_methods = [claim for each in compared for claim in each.claims.values()]
    return Report(page, frames, claims, [*of_methods, *of_exposure], _gaps(study))


def _condition_sections(study: Study) -> list[Section]:
    table = conditions_table(study)
    if table is None:
        return []
    return [Section("Under conditions", ["Who stays right when images change?"], tables=[table])]


def _with_distinct_keys(sections: Sequence[Section]) -> list[Section]:
    """Numbers tables of the same key: two attributes may differ in what no file name has."""
    seen: Counter[str] = Counter()

    def distinct(table: Table) -> Table:
        # Some file systems take names that differ in capitals for one.
        name = table.key.casefold()
        seen[name] += 1
        number = seen[name]
        return table if number == 1 else replace(table, key=f"{table.key}_{number}")

    return [replace(s, tables=[distinct(table) for table in s.tables]) for s in sections]


def write_report(report: Report, folder: Path, page_name: str = PAGE) -> list[Path]:
    """Writes tables as CSV, figures as PNG and the page as HTML and Markdown.

    Returns:
        What was written.
    """
    images = {picture.key: picture.png() for picture in report.page.pictures()}
    content = {f"{name}.csv": csv_text(frame).encode() for name, frame in report.frames.items()}
    content |= {f"{key}.png": png for key, png in images.items()}
    content[page_name] = render(report.page, images).encode()
    markdown = Path(page_name).with_suffix(".md").name
    content[markdown] = render_markdown(report.page).encode()
    for name, data in content.items():
        with written_atomically(folder / name) as temporary:
            temporary.write_bytes(data)
            temporary.chmod(0o644)  # a report is made to be passed on
    return [folder / name for name in content]


def _subtitle(study: Study) -> str:
    seeds = counted(len(study.all_seeds), "seed")
    names = ", ".join(study.short_names.values())
    if study.has_several_methods:
        names = f" by {names}"
    elif study.distilled[0].temperature is not None:
        names = f" at T = {names}"
    else:
        names = ""
    return (
        f"Teacher, student without it (NDS) and distilled student (DS){names}; "
        f"{seeds}, {len(study.any_table)} test examples."
    )


def _verdicts(study: Study, claims: Sequence[Claim]) -> Section:
    level = "Each verdict stands at the 5% level by itself: of claims about nothing, about one in "
    level += f"twenty would still get one. There are {len(claims)} here."
    undecidable = (
        "Undecidable means that the seeds and examples at hand cannot tell; it does not mean that "
        "there is no effect. The width of the interval says how large an effect could hide."
    )
    rules = (
        "Fixed beforehand: a difference is supported or contradicted when its 95% interval excludes"
        " 0; a trend when Page's test and the interval of its change agree; for EOD and DPD also"
        " after the chance level is taken away; classes differ beyond chance when the permutation"
        f" of seeds gives p < .05, and do not when all are within ±{NEGLIGIBLE_SHIFT:.0%} of"
        " accuracy."
    )
    warnings = []
    if len(study.all_seeds) == 1:
        warnings.append(
            "One seed: nothing can be said about other seeds, so no claim about seeds is judged. "
            "Class counts are McNemar's test of this one pair of models."
        )
    without = {arm.method: None for arm in study.distilled if arm.temperature is None}
    paragraphs = []
    if without:
        named = ", ".join(map(str, without))
        paragraphs.append(f"The claims are about T and are not judged for {named}, without one.")
    elif not claims:
        paragraphs.append("Without NDS and attributes there is no claim to judge.")
    table = claims_table(claims)
    return Section(
        "What this study says of the paper's claims",
        paragraphs,
        warnings,
        prose=[replace(table, notes=[rules, undecidable, level])] if claims else [],
    )


def _this_study(study: Study, classes: ClassWise) -> Section:
    points = [f"{name}: {value}" for name, value in study.settings.items()]
    for arms in _arms_by_seeds(study):
        points.append(arms)
    points.extend(_gaps(study) or ["No model is missing."])
    shifts = classes.detectable_shifts
    points.append(f"What these seeds can detect: {_detectable(shifts)}")
    return Section("What this study is", points=points, warnings=[_loss_warning(study)])


def _gaps(study: Study) -> list[str]:
    missing = [f"Missing: {'; '.join(study.missing)}."] if study.missing else []
    return [*missing, *(f"Left out: {reason}." for reason in study.left_out)]


def _detectable(shifts: Sequence[float]) -> str:
    if not shifts:
        return "no test over seeds is possible here."
    least, most = 100 * min(shifts), 100 * max(shifts)
    if least > 100:
        return (
            f"no shift of one class, however large; it would have to be {least:.0f} points. A class"
            " that is significant all the same is one whose seeds happen to lie close together."
        )
    upper = f"to {most:.1f} points" if most <= 100 else "points or more, for some not at all"
    return (
        f"a shift of one class by {least:.1f} {upper}, depending on temperature and reference, is "
        "found with power .8. Smaller shifts will mostly not be significant."
    )


def _arms_by_seeds(study: Study) -> Iterator[str]:
    by_seeds: dict[tuple[int, ...], list[str]] = {}
    for arm in study.arms:
        by_seeds.setdefault(study.seeds(arm), []).append(study.names[arm])
    for seeds, arms in by_seeds.items():
        word = "seed" if len(seeds) == 1 else "seeds"
        yield f"{', '.join(arms)}: {word} {', '.join(map(str, seeds))}"


def _loss_warning(study: Study) -> str:
    if study.has_several_methods:
        return (
            "The methods weigh their distillation terms by T in different ways; docs/methods.md of "
            "the platform has their formulas. Trends over T show that at once."
        )
    if study.scale_by_t2:
        return (
            "The distillation term is multiplied by T², which the paper does not print. With it, a "
            "higher T does not mean less distillation; the paper's own trends may rest on that."
        )
    return (
        "The distillation term is not multiplied by T²: its gradient shrinks about as 1/T², so a "
        "higher T also means less distillation, and trends over T show both at once."
    )


def _class_section(study: Study, classes: ClassWise) -> Section:
    pictures = [
        Picture(
            "figure1_classes",
            "Figure 1. Class accuracies of the students over T",
            class_figure(study, classes),
            "Marks are uncorrected tests, of which one in twenty is due to chance where nothing "
            "differs. What is tested is a class's accuracy relative to the overall accuracy: one "
            "with a large change may be unmarked, and one that lost may be better off than the "
            "others. The marks are on means over seeds. "
            + names_by_number(study.class_names, "class"),
        ),
        Picture(
            "figure3_counts",
            "Figure 3. Test accuracy, #SC and #TC against T",
            count_figure(study, classes),
            "Counts near the dashed line are what chance gives.",
        ),
    ]
    return Section(
        "Class by class",
        ["Which classes are better or worse off after distillation?"],
        tables=[class_counts_table(study, classes)],
        pictures=pictures,
    )


def _ranking_sections(study: Study, claims: Sequence[Claim]) -> list[Section]:
    """Returns the section of ranking where classes are many."""
    tables = ranking_tables(study)
    if not tables:
        return []
    verdicts = claims_table(claims, "ranking_verdicts", "exposure of the most frequent classes")
    return [
        Section(
            "Ranking and exposure",
            ["How high do labels stand among many classes, and which classes are shown?"],
            tables=tables,
            prose=[verdicts] if claims else [],
        )
    ]


def _methods_section(
    study: Study,
    classes: ClassWise,
    fairness: Sequence[GroupFairness],
    compared: Sequence[Compared],
) -> Section:
    pictures = [
        Picture(
            "methods_worst_class",
            "Accuracy against worst-class accuracy, by method",
            methods_figure(study, worst_class_points(study)),
            _CROSSES,
        )
    ]
    for each in fairness:
        pictures.append(
            Picture(
                f"methods_{file_stem(each.name)}",
                f"Accuracy against EOD by {each.name}, by method",
                methods_figure(study, eod_points(study, each)),
                f"{_CROSSES} Further left is fairer.",
            )
        )
    claims = [claim for each in compared for claim in each.claims.values()]
    warnings = []
    if PLAIN not in {arm.method for arm in study.distilled}:
        warnings.append(f"Plain distillation ({PLAIN}) is not there: no difference is measured.")
    verdicts = claims_table(claims, "methods_verdicts", "method against plain distillation")
    note = (
        "Holm's correction is over methods, for each metric and T by itself: not over the metrics. "
        "Undecidable: the seeds and examples at hand cannot tell."
    )
    return Section(
        "Methods side by side",
        ["What does each method change, beside plain distillation at the same temperature?"],
        warnings,
        tables=[methods_table(study, classes, fairness, compared)],
        prose=[replace(verdicts, notes=[note])] if claims else [],
        pictures=pictures,
    )


def claim_sentence(claim: Claim) -> str:
    """Returns a claim with its verdict, estimate, interval and remark."""
    digits = 2 if claim.scale == 100 else 1
    interval = claim.interval
    known = math.isfinite(interval.estimate)
    estimate = f"{claim.scale * interval.estimate:+.{digits}f}" if known else "not measured"
    limits = interval_words(interval, claim.scale, digits)
    words = f"{estimate}, {'no interval' if limits == EMPTY else limits}"
    return f"{claim.claim}: {claim.verdict} ({'; '.join(filter(None, (words, claim.remark)))})"


def _disagreement_section(study: Study) -> Section:
    arm = shown_disagreement(study)
    matrices = disagreement_matrices(study, arm)
    table = disagreement_table(study)
    if not matrices:
        return Section("Disagreement", tables=[table])
    picture = Picture(
        "figure2_disagreement",
        f"Figure 2. Where predictions differ, {study.names[arm]}",
        disagreement_figure(matrices, study.class_names, "Predictions that differ").figure(),
        "Rows: what Teacher or NDS predicts; columns: what DS predicts for the same example. The "
        "diagonal, where they agree, is left out. Mean number of examples per seed. "
        + names_by_number(study.class_names, "class"),
    )
    return Section("Disagreement", tables=[table], pictures=[picture])


def _fairness_sections(study: Study, fairness: Sequence[GroupFairness]) -> Iterator[Section]:
    if not fairness:
        yield Section(
            "Group fairness",
            ["The project names no attribute, so Tables 2 and 3 and Figures 4 and 5 are empty."],
        )
        return
    first, others = fairness[0], list(fairness[1:])
    yield _fairness_section(study, [first], 2, 4)
    if others:
        yield _fairness_section(study, others, 3, 5)
    else:
        yield Section(
            "Group fairness by further attributes",
            [f"{first.name} is the only attribute, so there is no Table 3 and no Figure 5."],
        )


def _fairness_section(
    study: Study, fairness: Sequence[GroupFairness], table: int, figure: int
) -> Section:
    names = ", ".join(each.name for each in fairness)
    tables: list[Table] = []
    for each in fairness:
        key = f"table{table}_{file_stem(each.name)}"
        tables.append(
            fairness_table(key, f"Table {table}. Group fairness by {each.name}", study, each)
        )
        if isinstance(each.attribute, str):
            tables.append(group_accuracy_table(study, each))
    picture = Picture(
        f"figure{figure}_fairness",
        f"Figure {figure}. EOD, DPD and worst-group accuracy against T, by {names}",
        fairness_figure(study, fairness),
        "Lower EOD and DPD are fairer only if groups are not worse off: look at the worst group "
        "beside them. The dash-dotted line is what DS would have if the group did not matter. "
        + names_by_number([each.name for each in fairness], "attribute"),
    )
    return Section(
        f"Group fairness by {names}",
        ["DPD holds the difference of base rates too: see the row of a classifier always right."],
        tables=tables,
        pictures=[picture],
    )


def _files() -> Section:
    return Section(
        "Beside this page",
        points=[
            "One CSV per table, in fractions rather than per cent; one PNG per figure.",
            "report.md: this page as Markdown.",
            "runs.csv: every model with all of its numbers and the run it comes from.",
            "classes.csv: every class, temperature and reference with tests, effect sizes and "
            "disagreement.",
            "docs/statistics.md of the platform says what each number means, with its source.",
        ],
    )
