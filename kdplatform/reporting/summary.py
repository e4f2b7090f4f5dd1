"""The printed summary of `teacher`, `student`, `distill` and `sweep`: the arms of a study."""

from collections.abc import Mapping, Sequence

from kdplatform.analysis.tables import Attribute, attribute_name
from kdplatform.reporting.count_lines import Test, arms_reading, sweep_reading
from kdplatform.reporting.findings_text import led_by_findings
from kdplatform.reporting.tables import EMPTY, percent, text_table
from kdplatform.study.classes import ClassWise
from kdplatform.study.findings import study_findings
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import (
    ACCURACY,
    GROUP_REFERENCES,
    REFERENCES,
    fairness_metric,
    group_notes,
)
from kdplatform.study.study import TEACHER, Arm, Study

# Name of the ensemble's row beside those of its teachers.
TOGETHER = "Teachers together"


def arms_text(classes: ClassWise, groups: GroupWise, members: Study | None = None) -> str:
    """Returns the findings and the table of a study with one kind of students.

    Args:
        members: the several teachers of one student; each has a row before that of all together.
    """
    study = classes.study
    findings = study_findings(classes, groups)
    rows = _member_rows(members, len(_counts(study)))
    rows += [
        [
            _name(arm, members) or arm.role.label,
            *_cells(study, arm),
            *(_count(test) for test in _tests(classes, groups, arm)),
        ]
        for arm in study.arms
    ]
    seeds = study.seeds(list(study.arms)[-1])
    if not study.distilled:
        rows = [row[: len(row) - len(_counts(study))] for row in rows]
        return led_by_findings(findings, _text(study, rows, seeds, (), []))
    reading = arms_reading(classes, groups, study.distilled[0])
    return led_by_findings(findings, _text(study, rows, seeds, _counts(study), reading))


def sweep_text(
    classes: ClassWise, groups: GroupWise, seeds: Sequence[int], members: Study | None = None
) -> str:
    """Returns the findings and the table of a study over temperatures, a row per arm.

    Args:
        seeds: the requested seeds; arms that lack some are named.
        members: as in `arms_text`.
    """
    study = classes.study
    rows = _member_rows(members, len(_counts(study)))
    for arm in study.arms:
        counts = [
            _sweep_count(study, arm, name, test)
            for name, test in zip(_counts(study), _over_seeds(classes, groups, arm), strict=True)
        ]
        rows.append([_name(arm, members) or study.names[arm], *_cells(study, arm), *counts])
    lines = [
        f"{study.names[arm].removeprefix('DS ')} has seeds {','.join(map(str, own))} alone"
        for arm in study.distilled
        if len(own := study.seeds(arm)) < len(seeds)
    ]
    reading = [*lines, *sweep_reading(classes, groups)]
    return led_by_findings(
        study_findings(classes, groups), _text(study, rows, seeds, _counts(study), reading)
    )


def _counts(study: Study) -> list[str]:
    """Returns the headings of the counts of classes, and of groups if there are any."""
    classes = [f"n_{name}" for name in REFERENCES.values()]
    return [*classes, *(f"n_{name}" for name in GROUP_REFERENCES.values() if study.attributes)]


def _tests(classes: ClassWise, groups: GroupWise, arm: Arm) -> list[Test | None]:
    """Returns the tests of an arm in the order of `_counts`."""
    of_classes = [classes.tests.get((arm, role)) for role in REFERENCES]
    of_groups = [groups.tests.get((arm, role)) for role in REFERENCES]
    return [*of_classes, *(of_groups if classes.study.attributes else [])]


def _over_seeds(classes: ClassWise, groups: GroupWise, arm: Arm) -> list[Test | None]:
    of_classes = [classes.over_seeds(arm, role) for role in REFERENCES]
    of_groups = [groups.over_seeds(arm, role) for role in REFERENCES]
    return [*of_classes, *(of_groups if classes.study.attributes else [])]


def _member_rows(members: Study | None, counts: int) -> list[list[str]]:
    """Returns a row per teacher, with an empty cell for each count."""
    if members is None:
        return []
    return [[members.names[arm], *_cells(members, arm), *[EMPTY] * counts] for arm in members.arms]


def _name(arm: Arm, members: Study | None) -> str:
    """Returns the name of the ensemble beside its teachers; empty for other arms."""
    return TOGETHER if members is not None and arm == TEACHER else ""


def _text(
    study: Study,
    rows: Sequence[Sequence[str]],
    seeds: Sequence[int],
    counts: Sequence[str],
    reading: Sequence[str],
) -> str:
    spread = f"mean ± standard deviation of {len(seeds)} seeds"
    return "\n".join(
        [
            text_table(["", *_columns(study.attributes), *counts], rows),
            f"in %, test split, {spread if len(seeds) > 1 else f'seed {seeds[0]}'}",
            *group_notes(study.any_table, study.attributes, study.min_group_size),
            *reading,
        ]
    )


def _columns(attributes: Sequence[Attribute]) -> Mapping[str, str]:
    """Returns the columns of a table: heading and name of the metric."""
    columns = {"accuracy": ACCURACY}
    for attribute in attributes:
        for metric in ("dpd", "eod"):
            heading = f"{metric.upper()} {attribute_name(attribute)}"
            columns[heading] = fairness_metric(attribute, metric)
    return columns


def _cells(study: Study, arm: Arm) -> list[str]:
    """Returns per cent, mean and standard deviation over seeds."""
    metrics = _columns(study.attributes).values()
    return [percent(study.values(arm, name).tolist()) for name in metrics]


def _count(test: Test | None) -> str:
    return EMPTY if test is None else f"{test.counts.significant} of {test.counts.tested}"


def _sweep_count(study: Study, arm: Arm, heading: str, test: Test | None) -> str:
    """Returns the count over seeds; the mean over single pairs if there is no test over seeds."""
    if test is not None:
        return _count(test)
    room = "groupwise" if heading.removeprefix("n_") in GROUP_REFERENCES.values() else "classwise"
    pairs = study.values(arm, f"{room}/{heading}")
    return f"{pairs.mean():.3g} (McNemar)" if len(pairs) else EMPTY
