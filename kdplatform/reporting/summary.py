"""What `teacher`, `student`, `distill` and `sweep` print: the arms of a study side by side."""

from collections.abc import Mapping, Sequence

from kdplatform.analysis.tables import Attribute, attribute_name
from kdplatform.reporting.tables import EMPTY, percent, text_table
from kdplatform.roles import Role
from kdplatform.study.classes import ClassWise
from kdplatform.study.metrics import ACCURACY, REFERENCES, fairness_metric, group_notes
from kdplatform.study.study import TEACHER, Arm, Study

# How the ensemble's row is named beside its teachers'.
TOGETHER = "Teachers together"
_COUNTS = tuple(f"n_{name}" for name in REFERENCES.values())
_DIFFERS = "n_tc, n_sc: classes whose accuracy differs from Teacher and NDS at p < .05"


def arms_text(classes: ClassWise, members: Study | None = None) -> str:
    """Returns the table of a study whose students are of one kind, a row per role.

    Args:
        members: the several teachers of one student, each a row before the one of them together.
    """
    study = classes.study
    rows = _member_rows(members)
    rows += [
        [
            _name(arm, members) or arm.role.label,
            *_cells(study, arm),
            *(_count(classes, arm, role) for role in REFERENCES),
        ]
        for arm in study.arms
    ]
    seeds = study.seeds(list(study.arms)[-1])
    if study.distilled:
        return _text(study, rows, seeds, _COUNTS, _arms_reading(classes, study.distilled[0]))
    return _text(study, [row[: -len(_COUNTS)] for row in rows], seeds, (), [])


def sweep_text(classes: ClassWise, seeds: Sequence[int], members: Study | None = None) -> str:
    """Returns the table of a study over temperatures, a row per arm.

    Args:
        seeds: those that were asked for; arms that lack some are named.
        members: as `arms_text`.
    """
    study = classes.study
    rows = _member_rows(members)
    for arm in study.arms:
        counts = [_sweep_count(classes, arm, role) for role in REFERENCES]
        name = _name(arm, members) or study.names[arm]
        rows.append([name, *_cells(study, arm), *counts])
    lines = [
        f"{study.names[arm].removeprefix('DS ')} has seeds {','.join(map(str, own))} alone"
        for arm in study.distilled
        if len(own := study.seeds(arm)) < len(seeds)
    ]
    return _text(study, rows, seeds, _COUNTS, [*lines, *_sweep_reading(classes)])


def _member_rows(members: Study | None) -> list[list[str]]:
    if members is None:
        return []
    return [
        [members.names[arm], *_cells(members, arm), *[EMPTY] * len(REFERENCES)]
        for arm in members.arms
    ]


def _name(arm: Arm, members: Study | None) -> str:
    """Returns how the ensemble is named beside its teachers; nothing for other arms."""
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


def _count(classes: ClassWise, arm: Arm, role: Role) -> str:
    if (arm, role) not in classes.tests:
        return EMPTY
    counts = classes.tests[arm, role].counts
    return f"{counts.significant} of {counts.tested}"


def _sweep_count(classes: ClassWise, arm: Arm, role: Role) -> str:
    """Returns the count over seeds; the mean of single pairs where there are no seeds to test."""
    if classes.over_seeds(arm, role) is not None:
        return _count(classes, arm, role)
    pairs = classes.study.values(arm, f"classwise/n_{REFERENCES[role]}")
    return f"{pairs.mean():.3g} (McNemar)" if len(pairs) else EMPTY


def _arms_reading(classes: ClassWise, arm: Arm) -> list[str]:
    tests = [classes.tests[arm, role] for role in REFERENCES if (arm, role) in classes.tests]
    if not tests:
        return []
    test = "exact McNemar test of this one pair of models"
    if tests[0].permutation is not None:
        test = "Welch's test over the seeds"
    chance = f"{tests[0].counts.expected_by_chance:.1f}"
    lines = [_DIFFERS, f"({test}); chance alone gives about {chance}"]
    if TEACHER not in classes.study.arms:
        lines.append("n_tc needs the teacher's test predictions, which are not there")
    elif (arm, Role.TEACHER) not in classes.tests:
        lines.append("n_tc needs a teacher per seed: one shared teacher has no spread")
    return lines


def _sweep_reading(classes: ClassWise) -> list[str]:
    distilled = classes.study.distilled
    if not distilled:
        return []
    tests = [classes.over_seeds(arm, role) for arm in distilled for role in REFERENCES]
    chance = [test.counts.expected_by_chance for test in tests if test is not None]
    lines = [_DIFFERS]
    if chance:
        lines.append(f"(Welch's test over the seeds); chance alone gives about {max(chance):.1f}")
    if None in tests:
        lines.append("(McNemar): exact test of each pair of models, mean over seeds; where there")
        lines.append("is one seed, or one teacher for all, no test over seeds is possible")
    return lines
