"""The further measures of an audit of two sides, one row per group.

Selection and scoring rates with their impact ratios, equal opportunity, predictive parity,
calibration, and agreement of the sides against the noise between seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from kdplatform.analysis.agreement import agreement_by_group
from kdplatform.analysis.calibration import probability_of
from kdplatform.analysis.decisions import (
    DEMOGRAPHIC_PARITY_RATIO,
    METRICS,
    MIN_GROUP_SHARE,
    Decisions,
    decided,
    decisions,
    scored,
)
from kdplatform.analysis.group_calibration import calibration_by_group
from kdplatform.analysis.group_fairness import group_table
from kdplatform.analysis.group_rates import MIN_GROUP_SIZE
from kdplatform.analysis.rate_changes import Cells, rate_changes
from kdplatform.analysis.tables import Attribute
from kdplatform.errors import UserError, unknown_name
from kdplatform.predictions import FloatArray, Predictions
from kdplatform.study.fairness import Effort

_RATES = {"selection": "selection_rate", "tpr": "tpr", "fpr": "fpr"}
_DRAWS = 2000
_SIDES = ("A", "B")


@dataclass(frozen=True)
class GroupMeasures:
    """The measures of one attribute.

    Attributes:
        groups: one row per group. Columns of both sides end with `_a` and `_b`: `accuracy`; with a
            favourable class `selection_rate`, `tpr`, `fpr` (each also with `_difference`, and its
            `_low` and `_high`), `impact_ratio`, `below_four_fifths` and `precision`; with logits
            `ece` and `ece_by_chance`; with both `mean_score`, `scoring_rate` and `scoring_ratio`.
            The other columns are `attribute`, `group`, `n`, `share`, `base_rate`, `agreement`,
            `agreement_within_a`, `agreement_within_b`, `excess_disagreement` and `p_excess`.
        decisions: those of the favourable class; None if no class is favourable.
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
        positive: its name, or its number if classes have no names.
        labels: any table of these examples.

    Raises:
        UserError: the class does not exist, or no example has it, or all have it.
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
            "no rate of it; allowed: a class that some examples have and others do not"
        )
    return number


class Auditor:
    """Measures two sides, attribute by attribute."""

    def __init__(
        self,
        a: Sequence[Predictions],
        b: Sequence[Predictions],
        positive: int | None,
        *,
        effort: Effort,
        min_group_size: int = MIN_GROUP_SIZE,
        min_group_share: float = MIN_GROUP_SHARE,
    ) -> None:
        """Scores every model once.

        Args:
            a: the reference, one table per seed.
            b: the other side, on the same examples.
            positive: number of the favourable class; None: measures that need one are left out.
            effort: draws and permutations.
            min_group_size: examples that a rate needs in its denominator.
            min_group_share: share of the examples that a group needs for an impact ratio.
        """
        self.sides = dict(zip(_SIDES, (a, b), strict=True))
        self.positive = positive
        self.effort, self.min_group_size, self.share = effort, min_group_size, min_group_share
        self.with_logits = all(table.logits is not None for table in (*a, *b))
        self.right = {side: [_right(table) for table in own] for side, own in self.sides.items()}
        if self.with_logits:
            self.confidence = {
                side: [probability_of(table, table.predictions) for table in own]
                for side, own in self.sides.items()
            }
        self.decided: dict[str, list[Predictions]] = {}
        self.scores: dict[str, list[FloatArray]] = {}
        if positive is not None:
            self.decided = {s: [decided(t, positive) for t in own] for s, own in self.sides.items()}
            if self.with_logits:
                self.scores = {
                    side: [probability_of(table, positive) for table in own]
                    for side, own in self.sides.items()
                }

    def measure(self, attribute: Attribute) -> GroupMeasures:
        """Measures the groups of one attribute under both sides.

        Raises:
            ValueError: tables hold different examples or groups.
        """
        a, b = self.sides["A"], self.sides["B"]
        size = self.min_group_size
        table = group_table(a[0], attribute, min_group_size=size)
        columns: dict[str, object] = {
            name: table[name].to_numpy() for name in ("attribute", "group", "n", "share")
        }
        rates = rate_changes(self.right["A"], self.right["B"], attribute, min_group_size=size)
        columns |= _cells("accuracy", rates.accuracy, 0)
        found = scores = None
        if self.positive is not None:
            rates = rate_changes(
                self.decided["A"], self.decided["B"], attribute, min_group_size=size
            )
            for measure, name in _RATES.items():
                columns |= _cells(name, rates.of(measure), 1)
            found = self._decisions(self.decided, attribute, METRICS)
            columns |= _by_side(found, ("impact_ratio", "below_four_fifths", "precision"))
            if self.scores:
                above = {
                    side: [
                        scored(table, self.positive, score)
                        for table, score in zip(own, self.scores[side], strict=True)
                    ]
                    for side, own in self.sides.items()
                }
                scores = self._decisions(above, attribute, (DEMOGRAPHIC_PARITY_RATIO,))
                renamed = _by_side(scores, ("selection_rate", "impact_ratio"))
                columns |= {
                    name.replace("selection", "scoring").replace("impact", "scoring"): values
                    for name, values in renamed.items()
                }
        if self.with_logits:
            columns |= self._calibration(attribute)
        columns |= _agreement(a, b, attribute, size)
        return GroupMeasures(pd.DataFrame(columns), found, scores)

    def _decisions(
        self,
        tables: Mapping[str, Sequence[Predictions]],
        attribute: Attribute,
        metrics: Sequence[str],
    ) -> Decisions:
        own = self.effort.for_attribute(attribute)
        return decisions(
            tables,
            attribute,
            # A deviation needs fewer draws than a quantile: these give it to 2%.
            draws=max(2, min(_DRAWS, own.draws)),
            permutations=self.effort.permutations,
            null_permutations=own.permutations,
            min_group_size=self.min_group_size,
            min_group_share=self.share,
            metrics=metrics,
        )

    def _calibration(self, attribute: Attribute) -> dict[str, object]:
        """Means over the seeds of each side; the base rate of the labels is that of both sides."""
        found: dict[str, object] = {}
        names = ["ece", "ece_by_chance", *([] if self.positive is None else ["mean_score"])]
        for side, tables in self.sides.items():
            each = [
                calibration_by_group(
                    table,
                    attribute,
                    positive=self.positive,
                    confidence=self.confidence[side][seed],
                    scores=self.scores[side][seed] if self.scores else None,
                    min_group_size=self.min_group_size,
                    seed=seed,
                )
                for seed, table in enumerate(tables)
            ]
            for name in names:
                values = [frame[name].to_numpy(dtype=float) for frame in each]
                found[f"{name}_{side.lower()}"] = np.mean(values, axis=0)
            if self.positive is not None:
                found["base_rate"] = each[0]["base_rate"].to_numpy(dtype=float)
        return found


def _right(table: Predictions) -> Predictions:
    """A table of two classes with the same accuracy, however many classes there are."""
    ones = np.ones_like(table.labels)
    return replace(table, labels=ones, predictions=table.correct.astype(np.int64), logits=None)


def _cells(name: str, cells: Cells, at: int) -> dict[str, object]:
    """A measure of both sides, and its difference with limits."""
    ends = zip(("", "_low", "_high"), cells.difference, strict=True)
    return {
        f"{name}_a": cells.a.value[:, at],
        f"{name}_b": cells.b.value[:, at],
        **{f"{name}_difference{end}": values[:, at] for end, values in ends},
    }


def _by_side(found: Decisions, names: Sequence[str]) -> dict[str, object]:
    frame = found.groups
    return {
        f"{name}_{side.lower()}": frame.loc[frame["arm"] == side, name].array
        for name in names
        for side in _SIDES
    }


def _agreement(
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
