"""The report of a study: the findings, the groups, the classes, and every verdict."""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from kdplatform.analysis.tables import listed
from kdplatform.reporting.changed_examples import gallery_of
from kdplatform.reporting.chapters import examples_chapter, findings_chapter, methods_and_caveats
from kdplatform.reporting.classes_chapter import class_frame, classes_of_pair
from kdplatform.reporting.data_chapter import data_chapter
from kdplatform.reporting.gallery import Gallery, Shown
from kdplatform.reporting.group_tables import group_counts_table
from kdplatform.reporting.groups_chapter import groups_of_pair
from kdplatform.reporting.page import Page, Section
from kdplatform.reporting.pairs import Pair, study_pairs
from kdplatform.reporting.report import PAGE as PAGE
from kdplatform.reporting.report import Report as Report
from kdplatform.reporting.report import with_distinct_keys
from kdplatform.reporting.report import write_report as write_report
from kdplatform.reporting.report_table import interval_words
from kdplatform.reporting.support_tables import class_detail
from kdplatform.reporting.tables import EMPTY
from kdplatform.reporting.verdict_chapters import (
    claims_chapter,
    curves_chapter,
    not_judged,
    verdicts_chapter,
)
from kdplatform.roles import Role
from kdplatform.study.claims import Claim, counted, judge
from kdplatform.study.classes import ClassWise
from kdplatform.study.fairness import Effort, GroupFairness
from kdplatform.study.findings import study_findings
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.methods import compare_methods
from kdplatform.study.ranking_changes import judge_exposure
from kdplatform.study.study import Study

DEFAULT_EFFORT = Effort()
_NO_PREVIEWS: Mapping[str, Shown] = MappingProxyType({})


def build_report(
    study: Study,
    effort: Effort = DEFAULT_EFFORT,
    previews: Mapping[str, Shown] = _NO_PREVIEWS,
) -> Report:
    """Computes the whole report from a study's predictions.

    Args:
        previews: logged previews of examples, by id.
    """
    classes = ClassWise(study)
    fairness = [GroupFairness(study, attribute, effort) for attribute in study.attributes]
    groups = GroupWise(study)
    claims = judge(study, classes, {each.name: each for each in fairness})
    # Intersections of attributes are in their own tables.
    single = [each for each in fairness if isinstance(each.attribute, str)]
    compared = compare_methods(study, single) if study.has_several_methods else []
    of_methods = [claim for each in compared for claim in each.claims.values()]
    of_exposure = judge_exposure(study)
    findings = study_findings(classes, groups, fairness)
    pairs = study_pairs(study, classes, groups)
    sections = [
        findings_chapter(findings, _one_seed(study)),
        data_chapter(study.any_table, study.attributes, study.class_names, study.min_group_size),
        _groups(study, pairs, groups),
        _classes(study, pairs),
        curves_chapter(study, classes, groups, single, compared),
        examples_chapter(_galleries(study, pairs, previews)),
        verdicts_chapter(study, classes, fairness, of_methods, of_exposure),
        claims_chapter(study, classes, claims),
        methods_and_caveats(list(_facts(study)), list(_caveats(study, classes)), _FILES),
    ]
    page = Page(
        f"Study {study.name}", _subtitle(study), with_distinct_keys(sections), "Report of a study"
    )
    frames = {table.key: table.frame for table in page.tables()}
    frames |= {"runs": study.metrics, "classes": class_detail(study, classes)}
    gaps = [*_gaps(study), *not_judged(study, claims)]
    if groups.tests:
        frames["group_shifts"] = groups.table()
    return Report(page, frames, claims, [*of_methods, *of_exposure], gaps, findings, groups)


def _groups(study: Study, pairs: Sequence[Pair], groups: GroupWise) -> Section:
    title = "Groups"
    if not study.attributes:
        return Section(title, ["The project names no attribute, so no group is compared."])
    parts = [
        Section(
            pair.title, parts=list(groups_of_pair(pair, study.attributes, study.min_group_size))
        )
        for pair in pairs
    ]
    lead = ["Which groups are better or worse off after distillation?"]
    counts = [Section("", tables=[group_counts_table(groups)])] if groups.tests else []
    chosen = Section("", parts=parts, switch="Compare")
    return Section(title, [*lead, *_others(study, pairs)], parts=[*counts, chosen])


def _classes(study: Study, pairs: Sequence[Pair]) -> Section:
    parts = [classes_of_pair(pair, class_frame(pair)) for pair in pairs]
    lead = ["Which classes are better or worse off after distillation?"]
    return Section("Classes", [*lead, *_others(study, pairs)], parts=parts, switch="Compare")


def _galleries(
    study: Study, pairs: Sequence[Pair], previews: Mapping[str, Shown]
) -> list[tuple[str, Gallery]]:
    """The galleries of the leading arm, first against the teacher."""
    leading = sorted((p for p in pairs if p.leads), key=lambda p: p.names[0] != Role.TEACHER.label)
    return [(pair.title, gallery_of(pair, study.attributes, previews)) for pair in leading]


def _others(study: Study, pairs: Sequence[Pair]) -> list[str]:
    """Says which arms the page does not show."""
    shown = {pair.names[1] for pair in pairs}
    absent = [study.names[arm] for arm in study.distilled if study.names[arm] not in shown]
    if not pairs:
        return ["The study has neither Teacher nor NDS, so nothing is compared."]
    if not absent:
        return []
    return [f"Not shown here: {listed(absent)}; group_shifts.csv and classes.csv have every arm."]


def _one_seed(study: Study) -> list[str]:
    if len(study.all_seeds) != 1:
        return []
    return [
        "There is one seed. Nothing can be said about other seeds, so no claim about seeds is "
        "judged. Class counts come from McNemar's test of this one pair of models."
    ]


def _facts(study: Study) -> Iterator[str]:
    yield from (f"{name}: {value}" for name, value in study.settings.items())
    yield from _arms_by_seeds(study)
    yield from _gaps(study) or ["No model is missing."]
    for arm, models in study.arms.items():
        runs = ", ".join(model.run_id for _, model in sorted(models.items()) if model.run_id)
        if runs:
            yield f"Runs of {study.names[arm]}, by seed: {runs}"


def _caveats(study: Study, classes: ClassWise) -> Iterator[str]:
    yield f"What these seeds can detect: {_detectable(classes.detectable_shifts)}"
    yield _loss_warning(study)
    yield (
        "DPD contains the difference of base rates. Tables 2 and 3 therefore have a row for a "
        "classifier that is always right."
    )
    yield "docs/statistics.md of the platform explains each number and names its source."


_FILES = (
    "One CSV per table, in fractions instead of per cent, and one PNG per figure.",
    "report.md: this page as Markdown; report.tex as LaTeX, if it was requested.",
    "runs.csv: every model with all of its numbers and the run it comes from.",
    "group_shifts.csv: every group, arm and reference with its change and tests.",
    "classes.csv: every class, arm and reference with tests, effect sizes and disagreement.",
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


def _gaps(study: Study) -> list[str]:
    missing = [f"Missing: {'; '.join(study.missing)}."] if study.missing else []
    return [*missing, *(f"Left out: {reason}." for reason in study.left_out)]


def _detectable(shifts: Sequence[float]) -> str:
    if not shifts:
        return "no test over seeds is possible here."
    least, most = 100 * min(shifts), 100 * max(shifts)
    if least > 100:
        return (
            f"no shift of a single class, because it would have to be {least:.0f} points. If a "
            "class is still significant, its seeds happen to be close together."
        )
    upper = f"to {most:.1f} points" if most <= 100 else "points or more, for some not at all"
    return (
        f"a shift of one class by {least:.1f} {upper}, depending on temperature and reference, "
        "with power .8. Smaller shifts will mostly not be significant."
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
            "The methods weight their distillation terms by T in different ways, which affects "
            "trends over T. docs/methods.md of the platform has the formulas."
        )
    if study.scale_by_t2:
        return (
            "The distillation term is multiplied by T², so a higher T does not mean less "
            "distillation. The paper does not print this factor; without it, less distillation may "
            "explain its trends."
        )
    return (
        "The distillation term is not multiplied by T². Its gradient shrinks about as 1/T², so a "
        "higher T also means less distillation. Trends over T therefore mix both effects."
    )


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
        f"Teacher, student without a teacher (NDS) and distilled student (DS){names}; {seeds}, "
        f"{len(study.any_table)} test examples."
    )
