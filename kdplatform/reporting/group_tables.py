"""Tables of the groups that changed."""

import pandas as pd

from kdplatform.analysis.group_cells import WITHIN_CLASS
from kdplatform.analysis.intervals import Interval
from kdplatform.reporting.report_table import (
    Table,
    change_words,
    first_columns,
    number_words,
    p_words,
    table_of,
)
from kdplatform.study.findings import cell_name
from kdplatform.study.groups import GroupComparison
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import GROUP_REFERENCES

_MOST_SHOWN = 40


def group_shift_table(groups: GroupComparison, names: tuple[str, str] = ("A", "B")) -> Table:
    """Every group with its change: whole groups and intersections, then what is decided in classes.

    The file has all cells.

    Args:
        names: of the sides.
    """
    frame = groups.table
    whole = frame[frame["kind"] != WITHIN_CLASS]
    within = frame[(frame["kind"] == WITHIN_CLASS) & frame["verdict"].isin(["worse", "better"])]
    chosen = pd.concat([whole, within.sort_values("p_family", kind="stable").head(_MOST_SHOWN)])
    rows = []
    for row in chosen.to_dict("records"):
        change = Interval(row["difference"], row["low"], row["high"])
        rows.append(
            {
                "group": cell_name(row),
                "n": str(row["n"]),
                f"{names[0]}, %": number_words(row["value_a"], 2, 100),
                f"{names[1]}, %": number_words(row["value_b"], 2, 100),
                f"{names[1]} minus {names[0]}": change_words(change),
                f"only {names[0]}": number_words(row["only_a"], 0),
                f"only {names[1]}": number_words(row["only_b"], 0),
                "p": p_words(row["p_value"]),
                "p, Holm": p_words(row["p_holm"]),
                "p, max-t": p_words(row["p_max"]),
                "detectable": number_words(row["detectable"], 1, 100),
                "verdict": row["verdict"],
            }
        )
    hidden = len(frame) - len(chosen)
    notes = [
        f"Accuracy of every group. only {names[0]}, only {names[1]}: examples that one side alone "
        "gets right, of several seeds the mean. Detectable: the change in points that is found "
        "with power .8, - where none is. Holm and max-t are over all cells tested.",
        *([f"{hidden} further cells, groups within classes, are in the file."] if hidden else []),
    ]
    return Table(
        "group_shifts", "Groups: who got worse, who better", frame, pd.DataFrame(rows), notes=notes
    )


def group_counts_table(groups: GroupWise) -> Table:
    """How many groups of each arm changed against Teacher and NDS, beside chance."""
    study, rows = groups.study, []
    for arm in study.distilled:
        row = first_columns(study, arm)
        for role, name in GROUP_REFERENCES.items():
            test = groups.tests.get((arm, role))
            if test is None:
                continue
            counts = test.counts
            key = f"n_{name}"
            row.numbers |= {
                key: counts.significant,
                f"{key}_tested": counts.tested,
                f"{key}_expected": counts.expected_by_chance,
                f"{key}_bh": counts.significant_bh,
                f"{key}_holm": counts.significant_holm,
                f"{key}_global_p": test.global_p,
                f"{key}_test": test.shifts.test,
            }
            row.words |= {
                key: f"{counts.significant} of {counts.tested}",
                f"{key}_expected": f"{counts.expected_by_chance:.2g}",
                f"{key}_holm": str(counts.significant_holm),
                f"{key}_global_p": p_words(test.global_p),
            }
        rows.append(row)
    columns = [("", {"arm": "", "seeds": "seeds", "accuracy": "accuracy"})]
    for role, name in GROUP_REFERENCES.items():
        key = f"n_{name}"
        own = {
            key: key,
            f"{key}_expected": "by chance",
            f"{key}_holm": "Holm",
            f"{key}_global_p": "global p",
        }
        columns.append((f"against {role.label}", own))
    return table_of(
        "groups_changed",
        "Groups that changed",
        rows,
        columns,
        [
            "Groups of single attributes whose accuracy changed at p < .05: paired t test over "
            "seeds, McNemar's for one pair. Global p: the smallest family-wise p of them."
        ],
    )
