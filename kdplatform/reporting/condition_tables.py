"""How the models of a study fare under conditions, beside the test split as it is."""

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
    """Returns a row per arm: accuracy as it is and under each condition; None without any.

    Numbers under a condition are those that the runs logged.
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
            "Per cent, mean ± standard deviation over seeds; of #SC the mean over pairs of models. "
            "The whole report under a condition: report with its name as condition.",
            "An attack's accuracy is an upper bound: a stronger attack may lower it. Images change "
            "by the same noise for every model, and attacks begin at the same places.",
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
