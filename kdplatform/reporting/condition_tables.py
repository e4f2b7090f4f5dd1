"""The accuracies of a study's models under conditions, beside those on the unchanged test split."""

import re

from kdplatform.analysis.tables import attribute_name
from kdplatform.reporting.report_table import Row, Table, first_columns, table_of
from kdplatform.roles import Role
from kdplatform.study.metrics import (
    ACCURACY,
    REFERENCES,
    WORST_CLASS_ACCURACY,
    condition_metric,
    fairness_metric,
)
from kdplatform.study.study import Arm, Study

_NAME = re.compile(re.escape(condition_metric("\0", ACCURACY)).replace("\0", "([^/]+)"))


def conditions_of(study: Study) -> tuple[str, ...]:
    """Returns the conditions that models of a study were measured under, sorted."""
    found = (_NAME.fullmatch(str(name)) for name in study.metrics.columns)
    return tuple(sorted(name[1] for name in found if name))


def conditions_table(study: Study) -> Table | None:
    """Returns a row per arm: accuracy without and under each condition; None without conditions.

    Numbers under a condition come from the runs' logged metrics.
    """
    conditions = conditions_of(study)
    if not conditions:
        return None
    single = [each for each in study.attributes if isinstance(each, str)]
    measured = {
        "accuracy": ACCURACY,
        "worst class": WORST_CLASS_ACCURACY,
        **{f"EOD {attribute_name(each)}": fairness_metric(each, "eod") for each in single},
        "#SC (McNemar)": f"classwise/n_{REFERENCES[Role.STUDENT]}",
    }
    rows = [_row(study, arm, conditions, measured) for arm in study.arms]
    groups = [("as it is", {"arm": "", "seeds": "seeds", "accuracy": "accuracy"})]
    for condition in conditions:
        columns = {condition_metric(condition, name): word for word, name in measured.items()}
        groups.append((f"under {condition}", columns))
    return table_of(
        "conditions",
        "Accuracy and fairness under conditions",
        rows,
        groups,
        [
            "Values are per cent, mean ± standard deviation over seeds; #SC is the mean over pairs "
            "of models. For the whole report under a condition, run report with the condition's "
            "name.",
            "The accuracy under an attack is an upper bound, because a stronger attack may lower "
            "it. For every model the noise is the same, and attacks begin at the same images.",
        ],
    )


def _row(study: Study, arm: Arm, conditions: tuple[str, ...], measured: dict[str, str]) -> Row:
    row = first_columns(study, arm)
    for condition in conditions:
        for name in measured.values():
            metric = condition_metric(condition, name)
            digits, scale = (1, 1.0) if name.startswith("classwise/") else (2, 100.0)
            row.add_seeds(metric, study.values(arm, metric), digits, scale)
    return row
