"""The tables that support the paper's: disagreement, groups, classes, verdicts."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kdplatform.analysis.classwise import class_table_over_seeds
from kdplatform.analysis.disagreement import disagreement_within
from kdplatform.analysis.group_fairness import group_table
from kdplatform.predictions import Predictions
from kdplatform.reporting.report_table import (
    Row,
    Table,
    change_words,
    file_stem,
    first_columns,
    number_words,
    p_words,
    table_of,
)
from kdplatform.study.claims import Claim
from kdplatform.study.classes import ClassWise, class_disagreement
from kdplatform.study.fairness import GroupFairness
from kdplatform.study.metrics import REFERENCES
from kdplatform.study.study import Study


def disagreement_table(study: Study) -> Table:
    """Disagreement of DS with its references, and of two seeds of one arm."""
    rows = []
    for arm in study.arms:
        row = first_columns(study, arm)
        baseline = disagreement_within(study.tables(arm))
        row.numbers["between_two_seeds"] = baseline
        row.words["baseline"] = number_words(baseline, 2, 100)
        for role in REFERENCES:
            row.add_seeds(f"with_{role.label}", study.values(arm, f"disagreement/{role.value}"))
        rows.append(row)
    groups = [
        (
            "share of test examples predicted differently, %",
            {
                "arm": "",
                "with_Teacher": "DS and its teacher",
                "with_NDS": "DS and its NDS",
                "baseline": "two seeds of the arm",
            },
        ),
    ]
    return table_of(
        "table5_disagreement",
        "Table 5. Disagreement beside the noise of seeds",
        rows,
        groups,
        [
            (
                "Two seeds of one arm already disagree. Only the excess comes from the difference "
                "between the arms."
            )
        ],
    )


def group_accuracy_table(study: Study, fairness: GroupFairness) -> Table:
    """Accuracy of every group in every arm, mean over seeds, which shows levelling down."""
    by_arm = {study.names[arm]: _group_means(study.tables(arm), fairness) for arm in study.arms}
    first = next(iter(by_arm.values()))
    frame = pd.DataFrame({"attribute": fairness.name, "group": first["group"], "n": first["n"]})
    for name, groups in by_arm.items():
        frame[name] = groups["accuracy"].to_numpy()
    shown = frame.drop(columns="attribute").astype({"n": str})
    for name in by_arm:
        shown[name] = [number_words(value, 1, 100) for value in frame[name]]
    return Table(
        f"groups_{file_stem(fairness.name)}",
        f"Accuracy of every group by {fairness.name}, %",
        frame,
        shown.rename(columns={"group": ""}),
    )


def _group_means(tables: Sequence[Predictions], fairness: GroupFairness) -> pd.DataFrame:
    size = fairness.study.min_group_size
    each = [group_table(table, fairness.attribute, min_group_size=size) for table in tables]
    mean = np.mean([table["accuracy"].to_numpy(dtype=float) for table in each], axis=0)
    return each[0].assign(accuracy=mean)


def class_detail(study: Study, classes: ClassWise) -> pd.DataFrame:
    """One row per class, arm and reference for the file: accuracies, tests, disagreement."""
    parts = []
    for (arm, role), test in classes.tests.items():
        part = test.table.copy()
        part.insert(0, "arm", study.names[arm])
        part.insert(1, "reference", role.label)
        part.insert(3, "name", list(study.class_names))
        part["accuracy_sd_b"] = class_table_over_seeds(classes.accuracies[arm])["accuracy_sd"]
        part["disagreement"] = class_disagreement(study, arm, role)
        parts.append(part.rename(columns={"accuracy_a": "accuracy_reference"}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def claims_table(
    claims: Sequence[Claim], key: str = "claims", heading: str = "claim of the paper"
) -> Table:
    """Every claim with its verdict, estimate, interval, test and sample."""
    rows = []
    for claim in claims:
        interval = claim.interval
        digits = 2 if claim.scale == 100 else 4
        known = np.isfinite(interval.estimate)
        rest = {"test": claim.test, "sample": claim.sample, "remark": claim.remark}
        unit = " points" if known and claim.scale == 100 and "%" not in claim.quantity else ""
        rows.append(
            Row(
                {
                    "claim": claim.claim,
                    "verdict": claim.verdict.value,
                    "quantity": claim.quantity,
                    **interval._asdict(),
                    "p_value": claim.p_value,
                    **rest,
                },
                {
                    "claim": claim.claim,
                    "verdict": claim.verdict.value,
                    "quantity": claim.quantity,
                    "estimate": f"{change_words(interval, claim.scale, digits)}{unit}",
                    "p": p_words(claim.p_value),
                    **rest,
                },
            )
        )
    labels = {
        "claim": heading,
        "verdict": "verdict",
        "estimate": "estimate (95% interval)",
        "p": "p",
        "remark": "remark",
        "quantity": "what is estimated",
        "sample": "sample",
        "test": "test",
    }
    return table_of(key, "Verdicts", rows, [("", labels)])
