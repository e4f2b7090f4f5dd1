"""The findings: at most seven sentences that a fixed rule makes from the verdicts.

The rule does not depend on the numbers. Warnings come first, then what got worse, then what got
better, each with the strongest evidence first. The last sentence says what is undecided, the change
that could have hidden, and what would show it. Strength is the estimate divided by the half width
of its interval. If there are more than seven sentences, the strongest about groups, about classes
and about metrics stay. A group within a class, or an intersection, is reported only if its group as
a whole is not.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from kdplatform.analysis.comparison import ClassComparison
from kdplatform.analysis.group_cells import GROUP, INTERSECTION, WITHIN_CLASS
from kdplatform.analysis.intervals import Interval
from kdplatform.analysis.tables import INTERSECTION as JOINED
from kdplatform.analysis.tables import listed
from kdplatform.study.class_verdicts import class_p_family, class_verdicts
from kdplatform.study.classes import ClassWise
from kdplatform.study.evidence import Evidence, study_evidence
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.groups import BETTER, NOT_MEASURED, UNDECIDED, WORSE
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.planning import what_would_decide
from kdplatform.study.warnings import collapse_warnings, unmeasured_attributes

WARNING = "warning"
MOST = 7
_MOST_WARNINGS = 2


@dataclass(frozen=True)
class Finding:
    """One sentence on what was found.

    Attributes:
        kind: "warning", "worse", "better" or "undecided".
        strength: the estimate divided by the half width of its interval; 0 without an estimate.
        topic: "group", "class" or "metric"; empty for warnings and for undecided results.
        subject: what the finding is about, such as `sex f`.
        between: the comparison, as in `Evidence`.
        numbers: plain values by name, such as `estimate`, `low`, `high`, `n`, `p_family`.
    """

    kind: str
    sentence: str
    strength: float = 0.0
    topic: str = ""
    subject: str = ""
    between: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


def make_findings(evidence: Sequence[Evidence], warnings: Sequence[str] = ()) -> list[Finding]:
    """Returns at most seven findings in reading order.

    Args:
        evidence: of one comparison, or of every arm of a study against each reference.
        warnings: such as that a model predicts only one class.
    """
    found = _merged([each for own in evidence for each in _told(own)], len(evidence))
    undecided = _undecided(evidence)
    shown = _warnings(warnings)
    room = MOST - len(shown) - len(undecided)
    worse, better = (
        sorted((f for f in found if f.kind == kind), key=lambda f: -f.strength)
        for kind in (WORSE, BETTER)
    )
    # Improvements get a third of the sentences, even if there are many losses.
    for_better = min(len(better), max(room // 3, room - len(worse)))
    several = len(evidence) > 1
    shown += _first(worse, room - for_better, several)
    shown += _first(better, for_better, several)
    return [*shown, *undecided]


def study_findings(
    classes: ClassWise, groups: GroupWise, fairness: Sequence[GroupFairness] = ()
) -> list[Finding]:
    """Returns what was found in a study: every distilled arm against its teacher and its NDS.

    Args:
        fairness: as in `evidence.study_evidence`.
    """
    evidence = study_evidence(classes, groups, fairness)
    study = classes.study
    return make_findings(evidence, [*unmeasured_attributes(study), *collapse_warnings(study)])


def _warnings(warnings: Sequence[str]) -> list[Finding]:
    if len(warnings) > _MOST_WARNINGS:
        more = f"{len(warnings) - 1} further warnings: {' '.join(warnings[1:])}"
        warnings = [warnings[0], more]
    return [Finding(WARNING, sentence) for sentence in warnings]


def _first(findings: Sequence[Finding], most: int, several: bool) -> list[Finding]:
    """Returns the strongest findings, at least one of every topic, in the order of strength.

    The last sentence says how many more there are.

    Args:
        several: whether they are about several comparisons.
    """
    best = {finding.topic: number for number, finding in reversed(list(enumerate(findings)))}
    kept = sorted(best.values())[:most]
    kept += [number for number in range(len(findings)) if number not in kept][: most - len(kept)]
    shown, left = [findings[number] for number in sorted(kept)], len(findings) - len(kept)
    if shown and left > 0:
        where = "In all comparisons, " if several else ""
        more = f" {where}{left} more got {shown[-1].kind}."
        shown[-1] = replace(shown[-1], sentence=shown[-1].sentence + more)
    return shown


# ---- what is decided


def _told(evidence: Evidence) -> Iterator[Finding]:
    for change in evidence.metrics:
        if change.verdict in (WORSE, BETTER):
            inner = "; ".join(filter(None, [_limits(change.interval), change.remark]))
            words = f"{_points(change.a)} to {_points(change.b)}% ({inner})"
            yield _finding(
                evidence, "metric", change.what, change.verdict, words, change.interval, {}
            )
    if evidence.groups is not None:
        yield from _of_groups(evidence, evidence.groups.table)
    if evidence.classes is not None:
        yield from _of_classes(evidence, evidence.classes)


def _of_groups(evidence: Evidence, table: pd.DataFrame) -> Iterator[Finding]:
    decided = table[table["verdict"].isin([WORSE, BETTER])]
    whole = {
        (row["attribute"], row["group"], row["verdict"])
        for row in decided[decided["kind"] == GROUP].to_dict("records")
    }
    for row in decided.to_dict("records"):
        if row["kind"] == GROUP or not whole & set(_parts(row)):
            interval = Interval(row["difference"], row["low"], row["high"])
            only_a, only_b = (f"{row[name]:.4g}" for name in ("only_a", "only_b"))
            first, second = evidence.names
            counts = f"{only_a} examples only {first} gets right, {only_b} only {second}"
            if max(evidence.seeds) > 1:
                counts = f"a mean of {counts}"
            values = f"{_points(row['value_a'])} to {_points(row['value_b'])}%"
            words = f"{values} ({_limits(interval)}; {_family_p(row)}; {counts})"
            numbers = {str(k): float(v) for k, v in row.items() if isinstance(v, float | int)}
            verdict = str(row["verdict"])
            yield _finding(evidence, "group", cell_name(row), verdict, words, interval, numbers)


def _parts(row: Mapping[Hashable, object]) -> Iterator[tuple[object, object, object]]:
    """The whole groups that contain a cell, with the cell's verdict."""
    attributes, groups = [str(row["attribute"])], [str(row["group"])]
    if row["kind"] == INTERSECTION:
        attributes, groups = attributes[0].split(JOINED), groups[0].split(JOINED)
    yield from ((a, g, row["verdict"]) for a, g in zip(attributes, groups, strict=False))


def cell_name(row: Mapping[Hashable, object]) -> str:
    """Names a row of a table of group shifts: `sex f`, or `sex f within class dog`."""
    name = f"{row['attribute']} {row['group']}"
    return f"{name} within class {row['label']}" if row["kind"] == WITHIN_CLASS else name


def _of_classes(evidence: Evidence, classes: ClassComparison) -> Iterator[Finding]:
    verdicts, p_values = class_verdicts(classes), class_p_family(classes)
    table = classes.table[verdicts != UNDECIDED]
    for row in table.to_dict("records"):
        number = int(row["class"])
        interval = Interval(row["difference"], row["difference_low"], row["difference_high"])
        verdict, p_family = str(verdicts[number]), float(p_values[number])
        name = evidence.class_names[number] if evidence.class_names else str(number)
        which = "Holm" if "p_max_t" not in row else "family-wise"
        words = (
            f"{_points(row['accuracy_a'])} to {_points(row['accuracy_b'])}% ({_limits(interval)}; "
            f"{which} p {_p(p_family)})"
        )
        numbers = {"n": float(row["n"]), "p_family": p_family}
        yield _finding(evidence, "class", f"class {name}", verdict, words, interval, numbers)


def _finding(
    evidence: Evidence,
    topic: str,
    subject: str,
    verdict: str,
    words: str,
    interval: Interval,
    numbers: Mapping[str, float],
) -> Finding:
    half = (interval.high - interval.low) / 2
    strength = abs(interval.estimate) / half if half > 0 else 0.0
    return Finding(
        verdict,
        f"{subject} got {verdict}: {words}.",
        strength,
        topic,
        subject,
        evidence.between,
        {**numbers, **interval._asdict()},
    )


def _merged(findings: Sequence[Finding], comparisons: int) -> list[Finding]:
    """For each reference, subject and direction, the finding with the strongest evidence."""
    if comparisons < 2:
        return list(findings)
    by_subject: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in findings:
        reference = finding.between.partition(" against ")[2]
        by_subject.setdefault((reference, finding.subject, finding.kind), []).append(finding)
    shown = []
    for same in by_subject.values():
        best = max(same, key=lambda finding: finding.strength)
        sentence = f"{best.between}: {best.sentence}"
        if len(same) > 1:
            others = [finding.between.partition(" against ")[0] for finding in same]
            sentence += f" The same holds in {len(same)} arms: {listed(others)}."
        shown.append(replace(best, sentence=sentence))
    return shown


# ---- what is not decided


def _undecided(evidence: Sequence[Evidence]) -> list[Finding]:
    """One sentence on all that is undecided, and what would decide it."""
    kinds = {GROUP: "groups", INTERSECTION: "intersections", WITHIN_CLASS: "groups within classes"}
    open_, all_ = dict.fromkeys(kinds.values(), 0), dict.fromkeys(kinds.values(), 0)
    open_["classes"] = all_["classes"] = 0
    metrics = [change for each in evidence for change in each.metrics]
    unclear = [change.what for change in metrics if change.verdict == UNDECIDED]
    absent = [change.what for change in metrics if change.verdict == NOT_MEASURED]
    for each in evidence:
        if each.groups is not None:
            measured = each.groups.table[each.groups.table["p_value"].notna()]
            for kind, name in kinds.items():
                own = measured[measured["kind"] == kind]["verdict"]
                all_[name] += len(own)
                open_[name] += int((own == UNDECIDED).sum())
        if each.classes is not None:
            tested = int(each.classes.table["p_value"].notna().sum())
            all_["classes"] += tested
            open_["classes"] += tested - len(list(_of_classes(each, each.classes)))
    parts = [f"{open_[name]} of {all_[name]} {name}" for name in all_ if open_[name]]
    one_pair = bool(evidence) and all(max(each.seeds) == 1 for each in evidence)
    limited = "Each side is one model: the findings hold for these models, not for other seeds."
    if len(evidence) > 1 and unclear:
        parts.append(f"{len(unclear)} of {len(metrics) - len(absent)} metrics")
    else:
        parts += unclear
    words = []
    if parts:
        words += [f"Undecided: {', '.join(parts)}.", what_would_decide(evidence)]
    if absent:
        words.append(f"Not measured: {listed(list(dict.fromkeys(absent)))}.")
    if one_pair:
        words.append(limited)
    sentence = " ".join(filter(None, words))
    return [Finding(UNDECIDED, sentence)] if sentence else []


# ---- words


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _limits(interval: Interval) -> str:
    if not np.isfinite(interval).all():
        return f"{100 * interval.estimate:+.1f}, no interval"
    low, high = _points(interval.low), _points(interval.high)
    return f"{100 * interval.estimate:+.1f}, {low} to {high}"


def _family_p(row: Mapping[Hashable, float]) -> str:
    name = "Holm" if row["p_family"] == row["p_holm"] else "family-wise"
    return f"{name} p {_p(row['p_family'])}"


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"= {value:.3f}".replace("0.", ".", 1)
