"""All verdicts of a study with their tests: tables of all arms, methods, and the paper's claims."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from kdplatform.reporting.charts import Chart
from kdplatform.reporting.condition_tables import conditions_table
from kdplatform.reporting.curves_chapter import (
    accuracy_curves,
    count_curves,
    fairness_curves,
    group_count_curves,
    method_changes,
    methods_points,
    worst_class_interval,
)
from kdplatform.reporting.drawing import names_by_number
from kdplatform.reporting.figures import disagreement_figure
from kdplatform.reporting.method_tables import methods_table
from kdplatform.reporting.page import Picture, Section
from kdplatform.reporting.ranking_tables import ranking_tables
from kdplatform.reporting.report_table import Table, file_stem
from kdplatform.reporting.study_figures import (
    class_figure,
    disagreement_matrices,
    shown_disagreement,
)
from kdplatform.reporting.study_tables import (
    class_counts_table,
    fairness_table,
    individual_table,
)
from kdplatform.reporting.support_tables import (
    claims_table,
    disagreement_table,
    group_accuracy_table,
)
from kdplatform.study.claims import Claim
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.methods import PLAIN, Compared
from kdplatform.study.study import Study
from kdplatform.study.verdicts import NEGLIGIBLE_SHIFT, Verdict

_CROSSES = (
    "Crosses are 95% intervals. Numbers are temperatures. Arms are paired by seed, so arms with "
    "overlapping crosses may still differ. The table has the differences."
)


def curves_chapter(
    study: Study,
    classes: ClassWise,
    groups: GroupWise,
    fairness: Sequence[GroupFairness],
    compared: Sequence[Compared],
) -> Section:
    """Curves over T or methods, and methods side by side.

    Args:
        fairness: of single attributes.
        compared: methods compared with plain distillation; empty if there is one method.
    """
    charts = [accuracy_curves(study), count_curves(study, classes)]
    if groups.tests:
        charts.append(group_count_curves(study, groups))
    for number, each in enumerate(fairness):
        charts.append(fairness_curves(study, each, "figure4" if number == 0 else "figure5"))
    parts = []
    if study.has_several_methods:
        parts.append(_methods(study, classes, fairness, compared))
    over = "methods" if study.has_several_methods else "T"
    lead = []
    if len(study.distilled) == 1:
        lead = ["There is only one arm of distilled students, so every curve is a single point."]
    return Section(f"Curves over {over}", lead, charts=charts, parts=parts)


def _methods(
    study: Study,
    classes: ClassWise,
    fairness: Sequence[GroupFairness],
    compared: Sequence[Compared],
) -> Section:
    charts: list[Chart] = []
    if any(each.reference is not None for each in compared):
        charts.append(method_changes(study, fairness, compared))
    charts.append(
        methods_points(
            study,
            "methods_worst_class",
            "Accuracy against worst-class accuracy, by method",
            worst_class_interval(study),
            "worst-class accuracy",
            _CROSSES,
        )
    )
    for each in fairness:
        charts.append(
            methods_points(
                study,
                f"methods_{file_stem(each.name)}",
                f"Accuracy against EOD by {each.name}, by method",
                partial(each.interval, metric="eod"),
                f"EOD ({each.name})",
                f"{_CROSSES} Further left is fairer.",
            )
        )
    warnings = []
    if PLAIN not in {arm.method for arm in study.distilled}:
        warnings.append(
            f"The study has no plain distillation ({PLAIN}), so no difference is measured."
        )
    return Section(
        "Methods side by side",
        [
            (
                "What does each method change in comparison with plain distillation at the same "
                "temperature?"
            )
        ],
        warnings,
        tables=[methods_table(study, classes, fairness, compared)],
        charts=charts,
    )


def verdicts_chapter(
    study: Study,
    classes: ClassWise,
    fairness: Sequence[GroupFairness],
    of_methods: Sequence[Claim],
    of_exposure: Sequence[Claim] = (),
) -> Section:
    """The folded tables of all arms with their tests: Tables 1 to 5, methods, ranking, conditions.

    Args:
        of_exposure: verdicts on which classes fill the top places.
    """
    parts = [
        Section("Classes", tables=[class_counts_table(study, classes)]),
        *_fairness(study, fairness),
        Section(
            "Individual fairness",
            ["Do similar examples get similar predictions?"],
            tables=[individual_table(study)],
        ),
        _disagreement(study),
    ]
    if of_methods:
        verdicts = claims_table(of_methods, "methods_verdicts", "method against plain distillation")
        note = (
            "Holm's correction is over methods, separately for each metric and T. Undecided: these "
            "seeds and examples show no difference in either direction."
        )
        parts.append(Section("Methods", prose=[replace(verdicts, notes=[note])]))
    parts += [*_ranking(study, of_exposure), *_conditions(study)]
    return Section("Every verdict and its test", parts=parts, folded=True)


def _ranking(study: Study, claims: Sequence[Claim]) -> Iterator[Section]:
    """Yields the section of ranking, if there are many classes."""
    tables = ranking_tables(study)
    if tables:
        key, heading = "ranking_verdicts", "exposure of the most frequent classes"
        yield Section(
            "Ranking and exposure",
            ["How high do labels rank among many classes, and which classes are shown?"],
            tables=tables,
            prose=[claims_table(claims, key, heading)] if claims else [],
        )


def _conditions(study: Study) -> Iterator[Section]:
    if (table := conditions_table(study)) is not None:
        yield Section("Under conditions", ["Who stays right when images change?"], tables=[table])


def _fairness(study: Study, fairness: Sequence[GroupFairness]) -> Iterator[Section]:
    if not fairness:
        yield Section(
            "Group fairness", ["The project names no attribute, so Tables 2 and 3 are empty."]
        )
        return
    for number, each in enumerate(fairness):
        table = 2 if number == 0 else 3
        key = f"table{table}_{file_stem(each.name)}"
        title = f"Table {table}. Group fairness by {each.name}"
        tables: list[Table] = [fairness_table(key, title, study, each)]
        if isinstance(each.attribute, str):
            tables.append(group_accuracy_table(study, each))
        yield Section(f"Group fairness by {each.name}", tables=tables)
    if len(fairness) == 1:
        yield Section("", [f"{fairness[0].name} is the only attribute, so there is no Table 3."])


def _disagreement(study: Study) -> Section:
    arm = shown_disagreement(study)
    matrices = disagreement_matrices(study, arm)
    pictures = []
    if matrices:
        drawn = disagreement_figure(matrices, study.class_names, "Predictions that differ")
        pictures.append(
            Picture(
                "figure2_disagreement",
                f"Figure 2. Where predictions differ, {study.names[arm]}",
                drawn.figure(),
                "Rows: prediction of Teacher or NDS; columns: prediction of DS for the same "
                "example. The diagonal, where they agree, is left out. Numbers are means over "
                f"seeds of examples. {names_by_number(study.class_names, 'class')}",
            )
        )
    return Section("Disagreement", tables=[disagreement_table(study)], pictures=pictures)


def claims_chapter(study: Study, classes: ClassWise, claims: Sequence[Claim]) -> Section:
    """The verdicts on the paper's claims, with the figure of the classes."""
    title = "The paper's claims"
    paragraphs = [
        "Claims of Mohammadshahi and Ioannou (TMLR 2025) on class bias and fairness over T.",
        *not_judged(study, claims),
    ]
    pictures = [
        Picture(
            "figure1_classes",
            "Figure 1. Class accuracies of the students over T",
            class_figure(study, classes),
            "Marks show uncorrected tests: if nothing differs, one test in twenty still gets a "
            "mark. The test uses a class's accuracy relative to the overall accuracy. A class with "
            "a large change may therefore be unmarked, and a class that lost may be better off "
            "than the others. The marks are on means over seeds. "
            + names_by_number(study.class_names, "class"),
        )
    ]
    if not claims:
        return Section(title, paragraphs, pictures=pictures, folded=True)
    tally = Counter(claim.verdict for claim in claims)
    return Section(
        title,
        paragraphs,
        prose=[replace(claims_table(claims), notes=_claim_notes(len(claims)))],
        pictures=pictures,
        tally=[(verdict.value, tally[verdict]) for verdict in Verdict],
        folded=True,
    )


def not_judged(study: Study, claims: Sequence[Claim]) -> list[str]:
    """Names the methods whose claims are not judged, with the reason."""
    without = dict.fromkeys(arm.method for arm in study.distilled if arm.temperature is None)
    if without:
        named = ", ".join(map(str, without))
        return [f"The claims are about T, so they are not judged for {named}, which has no T."]
    return [] if claims else ["Without NDS and attributes no claim can be judged."]


def _claim_notes(number: int) -> list[str]:
    return [
        "The rules were fixed beforehand. A claim about a difference is decided if its 95% "
        "interval excludes 0. A claim about a trend is decided if Page's test and the interval of "
        "the change agree. For EOD and DPD this must also hold after the chance level is taken "
        "away. Classes differ beyond chance if the permutation of seeds gives p < .05, and do not "
        f"if all are within ±{NEGLIGIBLE_SHIFT:.0%} of accuracy.",
        "Undecided means that these seeds and examples show neither direction. It does not mean "
        "that there is no effect. The width of the interval shows how large an effect could hide.",
        "Each verdict has its own 5% level. If no effect existed, about one claim in twenty would "
        f"still be decided. There are {number} claims here.",
    ]
