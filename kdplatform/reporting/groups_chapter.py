"""The chapter on groups: their rates under both sides by attribute, with intervals and parity."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from kdplatform.analysis.group_cells import GROUP
from kdplatform.analysis.intervals import Interval
from kdplatform.analysis.rate_changes import MEASURES, Cells, Limits, RateChanges, rate_changes
from kdplatform.analysis.tables import Attribute
from kdplatform.reporting.charts import Dots, Level, Look, Panel, Points
from kdplatform.reporting.class_rates import ClassRates
from kdplatform.reporting.page import Section
from kdplatform.reporting.pairs import Pair
from kdplatform.reporting.report_table import (
    Row,
    Table,
    change_words,
    file_stem,
    p_words,
    table_of,
)
from kdplatform.reporting.tables import EMPTY
from kdplatform.study.findings import cell_name
from kdplatform.study.groups import GroupComparison

_MOST_CELLS = 300
_SEARCHED = 12

_LINES = (
    "Marks have 95% intervals. The vertical lines show parity: the value that every group of a "
    "side would have if groups did not matter."
)


def groups_of_pair(
    pair: Pair,
    attributes: Sequence[Attribute],
    min_group_size: int,
    positive: int | None = None,
) -> Iterator[Section]:
    """Yields the changes of groups, then a section per attribute; intersections are folded.

    Args:
        positive: number of the class whose rates are shown first; None: class 1 of two.
    """
    if pair.groups is not None:
        yield Section("", tables=[_shifts(pair, pair.groups, whole=True)])
    crossed = []
    for attribute in attributes:
        changes = rate_changes(pair.a, pair.b, attribute, min_group_size=min_group_size)
        part = _attribute(pair, changes, positive, of_attribute=isinstance(attribute, str))
        if isinstance(attribute, str):
            yield part
        else:
            crossed.append(part)
    if pair.groups is not None:
        inner = _shifts(pair, pair.groups, whole=False)
        if not inner.frame.empty:
            yield Section(
                "Intersections, and groups within classes",
                ["The change of every smaller cell; for a group within a class that of the TPR."],
                tables=[inner],
                parts=crossed,
                folded=True,
            )


def _shifts(pair: Pair, groups: GroupComparison, *, whole: bool) -> Table:
    """The paired change of every group, or of every smaller cell, with the smallest p first."""
    chosen = groups.table[(groups.table["kind"] == GROUP) == whole]
    if whole:
        order = np.argsort(chosen["difference"].fillna(np.inf), kind="stable")
    else:
        order = np.lexsort((chosen["p_value"].fillna(2), chosen["p_family"].fillna(2)))
    chosen = chosen.iloc[order]
    shown = chosen.head(_MOST_CELLS)
    rows = [Row({}, _shift_words(row)) for row in shown.to_dict("records")]
    columns = {
        "name": "group",
        "n": "n",
        "a": "A, %",
        "b": "B, %",
        "change": "B minus A, points (95% interval)",
        "verdict": "verdict",
        "only": "right in A only, in B only",
        "p_value": "p",
        "p_family": "family-wise p",
        "detectable": "detectable",
    }
    notes = [pair.sides + ". Values are accuracies."]
    if whole:
        counts = groups.counts
        notes.append(
            f"{counts.significant} of {counts.tested} groups have p < .05; chance alone gives "
            f"{counts.expected_by_chance:.1f}. After Holm's correction over all tested cells "
            f"{counts.significant_holm} are left."
        )
    notes.append(
        "Verdict: worse or better if the family-wise p is below .05 and the interval excludes 0. "
        "Detectable: the change, in points, that the test would find with power .8."
    )
    if len(chosen) > len(shown):
        notes.append(f"{len(chosen) - len(shown)} further cells are in the file.")
    made = table_of(
        pair.stem("group_shifts" if whole else "cell_shifts"),
        f"Who got worse, who got better: {pair.title}" if whole else f"Every cell: {pair.title}",
        rows,
        [("", columns)],
        notes,
    )
    search = "Find a group" if len(shown) > _SEARCHED else ""
    return replace(made, frame=chosen, search=search)


def _shift_words(row: Mapping[Hashable, Any]) -> dict[str, str]:
    detectable, only = float(row["detectable"]), (float(row["only_a"]), float(row["only_b"]))
    return {
        "name": cell_name(row),
        "n": str(int(row["n"])),
        "a": _percent(float(row["value_a"])),
        "b": _percent(float(row["value_b"])),
        "change": change_words(Interval(row["difference"], row["low"], row["high"]), digits=1),
        "verdict": str(row["verdict"]),
        "only": f"{only[0]:.4g}, {only[1]:.4g}" if np.isfinite(only).all() else EMPTY,
        "p_value": p_words(row["p_value"]),
        "p_family": p_words(row["p_family"]),
        "detectable": "none" if detectable > 1 else _percent(detectable),
    }


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else EMPTY


def _attribute(
    pair: Pair, changes: RateChanges, positive: int | None, *, of_attribute: bool
) -> Section:
    stem = file_stem(changes.attribute)
    binary = len(changes.classes) == 2
    order = _by_difference(changes.accuracy)
    classes = changes.classes.tolist()
    shown = classes.index(positive) if positive in classes else min(1, len(classes) - 1)
    column = shown if binary else None
    measures = list(MEASURES) if binary else ["accuracy"]
    what = "Rates" if binary else "Accuracy"
    chart = Dots(
        pair.stem(f"groups_{stem}"),
        f"{what} by {changes.attribute}: {pair.title}",
        _LINES + (f" Rates are of class {_class(pair, changes, shown)}." if binary else ""),
        [changes.groups[row] for row in order],
        [_panel(pair, changes, measure, order, column) for measure in measures],
        pictured=pair.leads and of_attribute,
    )
    rates = None
    # Intersections have many cells with few examples, so their changes are in the table of cells.
    if not binary and of_attribute:
        names = [_class(pair, changes, place) for place in range(len(changes.classes))]
        rates = ClassRates(
            pair.stem(f"rates_{stem}"),
            f"One class against the rest, by {changes.attribute}: {pair.title}",
            pair.names,
            names,
            changes,
            shown if positive is not None else 0,
        )
    return Section(
        f"By {changes.attribute}",
        charts=[chart] if changes.measured.sum() > 1 else [],
        tables=[_table(pair, changes, order, measures, stem, column)] if binary else [],
        rates=rates,
    )


def _class(pair: Pair, changes: RateChanges, place: int) -> str:
    number = int(changes.classes[place])
    return pair.class_names[number] if number < len(pair.class_names) else str(number)


def _by_difference(accuracy: Cells) -> list[int]:
    """The groups, from the largest loss on; unmeasured groups come last."""
    change = accuracy.difference.value[:, 0]
    return [int(row) for row in np.argsort(np.nan_to_num(change, nan=np.inf), kind="stable")]


def _column(cells: Cells | Limits, column: int | None) -> int:
    value = cells.a.value if isinstance(cells, Cells) else cells.value
    return 0 if column is None or value.shape[1] == 1 else column


def _panel(
    pair: Pair, changes: RateChanges, measure: str, order: Sequence[int], column: int | None
) -> Panel:
    cells, whole = changes.of(measure), changes.overall[measure]
    at = _column(cells, column)
    looks = (Look.REFERENCE, Look.OTHER)
    series, levels = [], []
    for name, look, own, all_of in zip(
        pair.names, looks, (cells.a, cells.b), (whole.a, whole.b), strict=True
    ):
        value, low, high = ([float(v[row, at]) for row in order] for v in own)
        series.append(Points(name, look, value, low, high))
        levels.append(
            Level(f"parity, {name}", look, float(all_of.value[0, _column(all_of, column)]))
        )
    return Panel(MEASURES[measure], series, levels)


def _table(
    pair: Pair,
    changes: RateChanges,
    order: Sequence[int],
    measures: Sequence[str],
    stem: str,
    column: int | None,
) -> Table:
    rows = []
    for group in order:
        row = Row(
            {"group": changes.groups[group], "n": int(changes.n[group])},
            {"group": changes.groups[group], "n": str(changes.n[group])},
        )
        for measure in measures:
            _add(row, measure, changes.of(measure), group, column)
        rows.append(row)
    columns = [
        (
            f"{MEASURES[measure]}, %",
            {f"{measure}_a": "A", f"{measure}_b": "B", measure: "B minus A (95% interval)"},
        )
        for measure in measures
    ]
    notes = [pair.sides + ". Differences are in points."]
    small = [changes.groups[row] for row in order if not changes.measured[row]]
    if small:
        notes.append(f"Too small to be measured: {', '.join(small)}.")
    if not pair.paired:
        notes.append("The models of the sides are not paired, so differences have no interval.")
    elif len(pair.a) == 1:
        notes.append("One model on each side: intervals say nothing about other seeds.")
    return table_of(
        pair.stem(f"groups_{stem}"),
        f"Rates by {changes.attribute}: {pair.title}",
        rows,
        [("", {"group": "", "n": "n"}), *columns],
        notes,
    )


def _add(row: Row, measure: str, cells: Cells, group: int, column: int | None) -> None:
    at = _column(cells, column)
    for side, own in (("a", cells.a), ("b", cells.b)):
        value, low, high = (float(each[group, at]) for each in own)
        row.numbers |= Interval(value, low, high).columns(f"{measure}_{side}")
        row.words[f"{measure}_{side}"] = _percent(value)
    change = Interval(*(float(each[group, at]) for each in cells.difference))
    row.numbers |= change.columns(f"{measure}_difference")
    row.words[measure] = change_words(change, digits=1)
