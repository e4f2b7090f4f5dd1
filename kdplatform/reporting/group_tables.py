"""Tables of the groups that changed."""

from kdplatform.reporting.report_table import (
    Table,
    first_columns,
    p_words,
    table_of,
)
from kdplatform.study.groupwise import GroupWise
from kdplatform.study.metrics import GROUP_REFERENCES


def group_counts_table(groups: GroupWise) -> Table:
    """How many groups of each arm changed against Teacher and NDS, and how many by chance."""
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
