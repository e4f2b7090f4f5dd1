"""The chapter on classes: their changes, sorted, with intervals and Holm's correction."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from kdplatform.analysis.classwise import class_table_over_seeds
from kdplatform.analysis.intervals import LEVEL, Interval
from kdplatform.reporting.charts import Dots, Look, Panel, Points
from kdplatform.reporting.page import Section
from kdplatform.reporting.pairs import Pair
from kdplatform.reporting.report_table import Row, Table, change_words, p_words, table_of
from kdplatform.reporting.tables import EMPTY
from kdplatform.study.groups import UNDECIDED

# Up to this many names are written beside their marks. With more, a name appears under the pointer.
_MOST_NAMED = 60
_SEARCHED = 12
_UNKNOWN = float("nan")


def classes_of_pair(pair: Pair, frame: pd.DataFrame) -> Section:
    """Returns the figure and the table of all classes of a pair.

    Args:
        frame: a row per class: `class`, `n`, `accuracy_a`, `accuracy_b`, `difference` and, if
            classes were tested, its limits and p-values.
    """
    ordered = frame.iloc[np.argsort(frame["difference"].fillna(np.inf), kind="stable")]
    rows = ordered[ordered["n"] > 0].to_dict("records")
    key = pair.stem("class_changes")
    names = [pair.class_names[int(row["class"])] for row in rows]
    verdicts = [_verdict(row) for row in rows]
    table = _table(pair, key, rows, names, verdicts)
    return Section(
        pair.title,
        charts=[_chart(pair, key, rows, names, verdicts)] if rows else [],
        tables=[table],
    )


def class_frame(pair: Pair) -> pd.DataFrame:
    """A row per class: its tests, or only its accuracies if it cannot be tested."""
    if pair.test is not None:
        return pair.test.table
    a, b = (class_table_over_seeds(list(side), len(pair.class_names)) for side in (pair.a, pair.b))
    return a[["class", "n"]].assign(
        accuracy_a=a["accuracy"],
        accuracy_b=b["accuracy"],
        difference=b["accuracy"] - a["accuracy"],
    )


def _verdict(row: Mapping[Hashable, Any]) -> str:
    """The verdict on a class, from its p-value over all tested classes."""
    p_value = row.get("p_holm", _UNKNOWN)
    if not math.isfinite(p_value):
        return "no test"
    if p_value >= LEVEL:
        return UNDECIDED
    return "better" if row["difference"] > 0 else "worse"


_LOOKS = {
    "worse": (Look.WORSE, "worse, also after Holm"),
    "better": (Look.BETTER, "better, also after Holm"),
    UNDECIDED: (Look.UNSURE, "not after Holm"),
    "no test": (Look.UNSURE, "not tested"),
}


def _chart(
    pair: Pair,
    key: str,
    rows: Sequence[Mapping[Hashable, Any]],
    names: Sequence[str],
    verdicts: Sequence[str],
) -> Dots:
    series = []
    for verdict, (look, name) in _LOOKS.items():
        if verdict not in verdicts:
            continue
        own = [verdict == other for other in verdicts]
        columns = ("difference", "difference_low", "difference_high")
        value, low, high = (
            [
                float(row.get(c, _UNKNOWN)) if mine else _UNKNOWN
                for row, mine in zip(rows, own, strict=True)
            ]
            for c in columns
        )
        words = [
            f"n {int(row['n'])}, Holm p {p_words(row.get('p_holm', _UNKNOWN))}" for row in rows
        ]
        series.append(Points(name, look, value, low, high, words))
    many = len(rows) > _MOST_NAMED
    how = (
        "Classes are ordered from the largest loss to the largest gain"
        if many
        else "Largest loss first"
    )
    return Dots(
        key,
        f"Accuracy of every class, in points: {pair.title}",
        f"{how}. Marks have 95% intervals, which are not corrected for the number of classes.",
        names,
        [Panel("difference, points", series)],
        pictured=pair.leads,
        by_rank=many,
        zero=True,
    )


def _table(
    pair: Pair,
    key: str,
    rows: Sequence[Mapping[Hashable, Any]],
    names: Sequence[str],
    verdicts: Sequence[str],
) -> Table:
    made = []
    for row, name, verdict in zip(rows, names, verdicts, strict=True):
        limits = (row.get(f"difference_{end}", _UNKNOWN) for end in ("low", "high"))
        change = Interval(row["difference"], *limits)
        numbers = {"class": int(row["class"]), "name": name}
        numbers |= {str(column): value for column, value in row.items()} | {"verdict": verdict}
        words = {
            "name": name,
            "n": str(int(row["n"])),
            "a": _percent(row["accuracy_a"]),
            "b": _percent(row["accuracy_b"]),
            "change": change_words(change, digits=1),
            "verdict": verdict,
        }
        for column in ("p_value", "p_holm", "p_max_t"):
            words[column] = p_words(row.get(column, _UNKNOWN))
        made.append(Row(numbers, words))
    columns = {
        "name": "class",
        "n": "n",
        "a": "A, %",
        "b": "B, %",
        "change": "B minus A, points (95% interval)",
        "verdict": "after Holm",
        "p_value": "p",
        "p_holm": "Holm p",
    }
    if any("p_max_t" in row for row in rows):
        columns["p_max_t"] = "max-|t| p"
    table = table_of(key, f"Every class: {pair.title}", made, [("", columns)], _notes(pair))
    search = "Find a class" if len(rows) > _SEARCHED else ""
    return replace(table, search=search, chart=key if search else "")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if math.isfinite(value) else EMPTY


def _notes(pair: Pair) -> list[str]:
    notes = [pair.sides + "."]
    if pair.test is None:
        return [*notes, "Classes are not tested, because one side has no spread over seeds."]
    counts = pair.test.counts
    notes.append(
        f"{counts.significant} of {counts.tested} classes have p < .05; chance alone gives "
        f"{counts.expected_by_chance:.1f}. After Holm's correction over the classes "
        f"{counts.significant_holm} are left."
    )
    if pair.test.permutation is None:
        notes.append(
            "The test is McNemar's exact test of this one pair of models. It says nothing about "
            "other seeds."
        )
    else:
        notes.append(
            "The test is Welch's test over seeds of class accuracy divided by overall accuracy. A "
            "class may therefore lose points and still be better off than the others."
        )
    return notes
