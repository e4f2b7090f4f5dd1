"""What auditors ask of two sides beside accuracy, DPD and EOD, one row per group.

Selection and scoring rates with their impact ratios, equal opportunity, predictive parity,
calibration, and agreement of the sides against the noise between seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kdplatform.analysis.agreement import agreement_by_group
from kdplatform.analysis.decisions import (
    MIN_GROUP_SHARE,
    Decisions,
    decided,
    decisions,
    scored,
)
from kdplatform.analysis.group_calibration import calibration_by_group
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.rate_changes import RateChanges, rate_changes
from kdplatform.analysis.tables import Attribute
from kdplatform.errors import UserError, unknown_name
from kdplatform.predictions import Predictions
from kdplatform.study.fairness import Effort

_NAMES = {"accuracy": "accuracy", "selection": "selection_rate", "tpr": "tpr", "fpr": "fpr"}
_SIDES = ("A", "B")


@dataclass(frozen=True)
class GroupMeasures:
    """The measures of one attribute.

    Attributes:
        groups: one row per group. Of both sides, with `_a` and `_b`: `accuracy`; where a class is
            favourable `selection_rate`, `tpr`, `fpr`, each also with `_difference`, its `_low` and
            `_high`; `impact_ratio`, `below_four_fifths` and `precision`; with logits `ece`,
            `ece_by_chance`, and of the favourable class `mean_score`, `scoring_rate` and
            `scoring_ratio`. Beside them `attribute`, `group`, `n`, `share`, `base_rate`,
            `agreement`, `agreement_within_a`, `agreement_within_b`, `excess_disagreement` and
            `p_excess`.
        decisions: of the favourable class; None where no class is.
        scores: decisions by score; None without logits or favourable class.
    """

    groups: pd.DataFrame
    decisions: Decisions | None
    scores: Decisions | None


def favourable_class(
    positive: str | None, class_names: Sequence[str], labels: Predictions
) -> int | None:
    """Returns the number of the favourable class: the one asked for, or class 1 of two.

    Args:
        positive: its name, or its number where classes have no names.
        labels: any table of the examples.

    Raises:
        UserError: there is no such class, or not both examples of it and of others, so that no
            rate can be told.
    """
    present = np.unique(labels.labels)
    if positive is None:
        return 1 if len(class_names) == 2 and len(present) == 2 else None
    if positive not in class_names:
        raise unknown_name("positive", positive, class_names)
    number = list(class_names).index(positive)
    if len(present) < 2 or number not in present:
        found = ", ".join(class_names[label] for label in present[:3])
        raise UserError(
            f"positive={positive!r}: labels are {found}{' ...' * (len(present) > 3)}, so there is "
            "no rate of it; allowed: a class that some examples have and others have not"
        )
    return number


def group_measures(
    a: Sequence[Predictions],
    b: Sequence[Predictions],
    attribute: Attribute,
    positive: int | None,
    *,
    effort: Effort,
    min_group_size: int = MIN_GROUP_SIZE,
    min_group_share: float = MIN_GROUP_SHARE,
) -> GroupMeasures:
    """Measures the groups of one attribute under two sides.

    Args:
        a: the reference, one table per seed.
        positive: number of the favourable class; None: nothing is measured that needs one.
        effort: draws and permutations.
        min_group_size: examples that a rate needs in its denominator.
        min_group_share: share of the examples that a group needs for an impact ratio.

    Raises:
        ValueError: tables hold different examples or groups.
    """
    sides = dict(zip(_SIDES, (a, b), strict=True))
    rates = rate_changes(a, b, attribute, min_group_size=min_group_size)
    columns: dict[str, object] = {
        "attribute": rates.attribute,
        "group": list(rates.groups),
        "n": rates.n,
    }
    columns |= _rate_columns(rates, positive)

    def of(make: Callable[[Predictions, int], Predictions], number: int) -> Decisions:
        return decisions(
            {side: [make(table, number) for table in tables] for side, tables in sides.items()},
            attribute,
            draws=effort.draws,
            permutations=effort.permutations,
            min_group_size=min_group_size,
            min_group_share=min_group_share,
        )

    with_logits = all(table.logits is not None for table in (*a, *b))
    found = scores = None
    if positive is not None:
        found = of(decided, positive)
        columns |= _by_side(
            found.groups, {n: n for n in ("impact_ratio", "below_four_fifths", "precision")}
        )
        columns["share"] = found.groups.loc[found.groups["arm"] == "A", "share"].to_numpy()
        if with_logits:
            scores = of(scored, positive)
            columns |= _by_side(
                scores.groups, {"selection_rate": "scoring_rate", "impact_ratio": "scoring_ratio"}
            )
    if with_logits:
        columns |= _calibration_columns(sides, attribute, positive, min_group_size)
    columns |= _agreement_columns(a, b, attribute, min_group_size)
    return GroupMeasures(pd.DataFrame(columns), found, scores)


def _rate_columns(rates: RateChanges, positive: int | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for measure, name in _NAMES.items():
        at = 0
        if measure != "accuracy":
            if positive is None or positive not in rates.classes:
                continue
            at = int(np.searchsorted(rates.classes, positive))
        cells = rates.of(measure)
        found |= {f"{name}_a": cells.a.value[:, at], f"{name}_b": cells.b.value[:, at]}
        for end, values in zip(("", "_low", "_high"), cells.difference, strict=True):
            found[f"{name}_difference{end}"] = values[:, at]
    return found


def _by_side(frame: pd.DataFrame, names: Mapping[str, str]) -> dict[str, object]:
    return {
        f"{name}_{side.lower()}": frame.loc[frame["arm"] == side, column].to_numpy()
        for column, name in names.items()
        for side in _SIDES
    }


def _calibration_columns(
    sides: Mapping[str, Sequence[Predictions]],
    attribute: Attribute,
    positive: int | None,
    min_group_size: int,
) -> dict[str, object]:
    """Means over the seeds of every side; the base rate is that of the labels, so of both."""
    found: dict[str, object] = {}
    for side, tables in sides.items():
        each = [
            calibration_by_group(
                table, attribute, positive=positive, min_group_size=min_group_size, seed=seed
            )
            for seed, table in enumerate(tables)
        ]
        for name in ("ece", "ece_by_chance", *([] if positive is None else ["mean_score"])):
            found[f"{name}_{side.lower()}"] = np.mean(
                [frame[name].to_numpy(dtype=float) for frame in each], axis=0
            )
        if positive is not None:
            found["base_rate"] = each[0]["base_rate"].to_numpy(dtype=float)
    return found


def _agreement_columns(
    a: Sequence[Predictions], b: Sequence[Predictions], attribute: Attribute, min_group_size: int
) -> dict[str, object]:
    frame = agreement_by_group(a, b, attribute, min_group_size=min_group_size)
    names = {
        "agreement": "agreement",
        "within_a": "agreement_within_a",
        "within_b": "agreement_within_b",
        "excess_disagreement": "excess_disagreement",
        "p_value": "p_excess",
    }
    return {name: frame[column].to_numpy() for column, name in names.items()}
