"""Audit measures of a comparison: verdicts, the four-fifths rule, measures by group."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kdplatform.analysis.decisions import (
    DEMOGRAPHIC_PARITY_RATIO,
    EQUAL_OPPORTUNITY,
    FOUR_FIFTHS,
    PREDICTIVE_PARITY,
    Decisions,
)
from kdplatform.analysis.tables import Attribute, attribute_name, listed
from kdplatform.reporting.comparison_rows import A, B, verdict_row
from kdplatform.reporting.report_table import Row, Table, file_stem, number_words, p_words, table_of
from kdplatform.reporting.tables import EMPTY
from kdplatform.study.fairness import Effort
from kdplatform.study.measures import Auditor, GroupMeasures
from kdplatform.study.study import Study

_METRICS = {
    DEMOGRAPHIC_PARITY_RATIO: ("demographic parity ratio", 1.0),
    EQUAL_OPPORTUNITY: ("equal opportunity difference", 100.0),
    PREDICTIVE_PARITY: ("predictive parity difference", 100.0),
}
FOUR_FIFTHS_TABLE = "four_fifths"
_SCORING = "demographic parity ratio of scores"


@dataclass(frozen=True)
class Measures:
    """The measures of all attributes.

    Attributes:
        rows: metrics with their verdicts, for the table of differences.
        groups: every group with all of its measures.
        tables: the four-fifths rule, and measures by group, in words.
        notes: how to read them.
        assumed: which class is taken as favourable, if its name was not given and is no number.
    """

    rows: Sequence[Row]
    groups: pd.DataFrame
    tables: Sequence[Table]
    notes: Sequence[str]
    assumed: str = ""


def measures_of(
    study: Study,
    attributes: Sequence[Attribute],
    positive: int | None,
    effort: Effort,
    min_group_share: float,
    *,
    chosen: bool,
) -> Measures:
    """Measures the groups of attributes under both sides of a comparison.

    Args:
        attributes: those with two groups or more that can be measured.
        positive: number of the favourable class; None: measures that need one are left out.
        min_group_share: share of the examples that a group needs for an impact ratio.
        chosen: whether the user named the favourable class.
    """
    if not attributes:
        return Measures([], pd.DataFrame(), [], [])
    auditor = Auditor(
        study.tables(A),
        study.tables(B),
        positive,
        effort=effort,
        min_group_size=study.min_group_size,
        min_group_share=min_group_share,
    )
    found = {attribute: auditor.measure(attribute) for attribute in attributes}
    groups = pd.concat([each.groups for each in found.values()], ignore_index=True)
    favourable = None if positive is None else study.class_names[positive]
    assumed = "" if favourable is None or chosen else _assumed(favourable, study.class_names)
    tables = [*_rule_table(found, favourable), *_group_tables(found)]
    rows = [row for name, each in found.items() for row in _rows(attribute_name(name), each)]
    notes = list(_notes(study, found, positive, min_group_share))
    return Measures(rows, groups, tables, notes, assumed)


def _assumed(favourable: str, class_names: Sequence[str]) -> str:
    if class_names in (("0", "1"), ("False", "True")):
        return ""
    [other] = [name for name in class_names if name != favourable]
    return (
        f"{favourable} is taken as the favourable class, because it is the second of two classes; "
        f"--positive {other} takes the other"
    )


def _rows(name: str, measures: GroupMeasures) -> Iterator[Row]:
    if measures.decisions is not None:
        for metric, (label, scale) in _METRICS.items():
            yield _row(f"{label}, {name}", measures.decisions, metric, scale)
    if measures.scores is not None:
        yield _row(f"{_SCORING}, {name}", measures.scores, DEMOGRAPHIC_PARITY_RATIO, 1.0)


def _row(what: str, found: Decisions, metric: str, scale: float) -> Row:
    a, b = (found.bootstrap.interval(side, metric).estimate for side in ("A", "B"))
    return verdict_row(what, metric, a, b, found.compare("B", "A", metric).change, scale)


def _notes(
    study: Study,
    found: dict[Attribute, GroupMeasures],
    positive: int | None,
    min_group_share: float,
) -> Iterator[str]:
    if positive is None:
        yield (
            "Selection rates, impact ratios, equal opportunity and predictive parity are not "
            "measured; --positive names the favourable class."
        )
        return
    yield (
        f"Favourable class: {study.class_names[positive]}. Selection rate: share with this "
        "prediction. Demographic parity ratio: the lowest over the highest selection rate. Equal "
        "opportunity: spread of the TPR. Predictive parity: spread of the precision."
    )
    for attribute, each in found.items():
        assert each.decisions is not None
        if each.decisions.left_out:
            yield (
                f"{attribute_name(attribute)}: {listed(each.decisions.left_out)} "
                f"{'has' if len(each.decisions.left_out) == 1 else 'have'} less than "
                f"{100 * min_group_share:g}% of the examples and no impact ratio; "
                "--min_group_share 0 counts them."
            )
        by_arm = [f"precision_{side}" for side in "ab"]
        measured = each.groups["selection_rate_a"].notna()
        few = each.groups[measured & each.groups[by_arm].isna().any(axis=1)]["group"]
        if len(few):
            yield (
                f"{attribute_name(attribute)}: predictive parity leaves out {listed(list(few))} "
                f"(a side selects fewer than {study.min_group_size})."
            )
    if any(each.scores is not None for each in found.values()):
        yield "Scoring rate: share above the model's median score of the favourable class."


# ---- tables


def _rule_table(found: dict[Attribute, GroupMeasures], favourable: str | None) -> Iterator[Table]:
    """The four-fifths rule of every attribute and side; nothing without a favourable class."""
    rows = []
    for each in found.values():
        for what, own in (("selection", each.decisions), ("score", each.scores)):
            if own is not None:
                rows += [_rule_row(what, row) for row in own.rule.to_dict("records")]
    if not rows:
        return
    notes = [
        f"Below {FOUR_FIFTHS:g}: the rate is less than four fifths of the highest group's, which "
        "counts as a sign of adverse impact. By chance: share of simulated audits of groups of "
        "these sizes that find such a group although all have the same rate. p: of the lowest "
        "ratio, by permuting groups. A flag that chance often gives says little by itself."
    ]
    columns = {
        "attribute": "attribute",
        "side": "side",
        "rate": "rate",
        "ratio": "lowest impact ratio",
        "group": "group",
        "below": f"below {FOUR_FIFTHS:g}",
        "chance": "by chance, %",
        "p": "p",
    }
    title = f"Impact ratios of {favourable}: the four-fifths rule"
    yield table_of(FOUR_FIFTHS_TABLE, title, rows, [("", columns)], notes)


def _rule_row(what: str, row: Mapping[Hashable, Any]) -> Row:
    ratio, chance, p_value = row["impact_ratio"], row["chance_of_below"], row["p_value"]
    known = np.isfinite(ratio)
    return Row(
        {
            "attribute": row["attribute"],
            "side": row["arm"],
            "rate": what,
            "lowest_impact_ratio": ratio,
            "group": row["group"],
            "below_four_fifths": row["below"],
            "chance_of_below": chance,
            "p_value": p_value,
            "permutations": row["permutations"],
        },
        {
            "attribute": str(row["attribute"]),
            "side": str(row["arm"]),
            "rate": what,
            "ratio": number_words(ratio, 3),
            "group": str(row["group"]) or EMPTY,
            "below": str(row["below"]) or ("none" if known else EMPTY),
            "chance": number_words(chance, 1, 100),
            "p": p_words(p_value),
        },
    )


# By column of the groups' frame without its side: heading, digits, scale.
_SHOWN = {
    "selection_rate": ("selection rate, %", 1, 100.0),
    "impact_ratio": ("impact ratio", 3, 1.0),
    "precision": ("precision, %", 1, 100.0),
    "scoring_rate": ("scoring rate, %", 1, 100.0),
    "mean_score": ("mean score, %", 1, 100.0),
    "ece": ("ECE", 4, 1.0),
    "ece_by_chance": ("ECE by chance", 4, 1.0),
}
_OF_BOTH = {
    "base_rate": ("base rate, %", 1, 100.0),
    "agreement": ("A and B agree, %", 1, 100.0),
}
_WITHIN = {
    "agreement_within_a": ("A's seeds agree, %", 1, 100.0),
    "agreement_within_b": ("B's seeds agree, %", 1, 100.0),
    "excess_disagreement": ("disagreement beyond seeds, %", 1, 100.0),
}


def _group_tables(found: dict[Attribute, GroupMeasures]) -> Iterator[Table]:
    """One table of groups per attribute."""
    for attribute, each in found.items():
        frame = each.groups
        headings = [("", {"group": "", "n": "n"})]
        words = pd.DataFrame({"group": frame["group"], "n": frame["n"].astype(str)})
        for name, (heading, digits, scale) in _SHOWN.items():
            if f"{name}_a" in frame:
                headings.append((heading, {f"{name}_{side}": side.upper() for side in "ab"}))
                for side in "ab":
                    column = frame[f"{name}_{side}"]
                    words[f"{name}_{side}"] = [number_words(v, digits, scale) for v in column]
        both = {n: _OF_BOTH[n] for n in _OF_BOTH if n in frame}
        both |= {n: shown for n, shown in _WITHIN.items() if frame[n].notna().any()}
        for name, (_, digits, scale) in both.items():
            words[name] = [number_words(v, digits, scale) for v in frame[name]]
        columns = {name: heading for name, (heading, _, _) in both.items()}
        if frame["p_excess"].notna().any():
            words["p"] = list(map(p_words, frame["p_excess"]))
            columns["p"] = "p"
        headings.append(("", columns))
        rows = [
            Row(_by_name(numbers), _by_name(shown))
            for numbers, shown in zip(
                frame.to_dict("records"), words.to_dict("records"), strict=True
            )
        ]
        notes = []
        if "p" in columns:
            notes.append(
                "Disagreement beyond seeds: the disagreement of a model of A with one of B, minus "
                "that of two seeds of one side. p comes from permuting seeds between the sides."
            )
        yield table_of(
            f"measures_{file_stem(attribute_name(attribute))}",
            f"Measures by {attribute_name(attribute)}",
            rows,
            headings,
            notes,
        )


def _by_name(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in row.items()}
