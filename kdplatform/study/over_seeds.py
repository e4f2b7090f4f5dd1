"""The arms of a study over their seeds: means, deviations and intervals.

The pages of a tracking store show single runs. This file combines runs over seeds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kdplatform.analysis.group_fairness import group_table
from kdplatform.analysis.intervals import mean_over_seeds
from kdplatform.predictions import FloatArray
from kdplatform.study.classes import ClassWise
from kdplatform.study.metrics import compared_names
from kdplatform.study.study import Arm, Study


def arm_statistics(study: Study, arms: Sequence[Arm] | None = None) -> pd.DataFrame:
    """Returns one row per arm and metric, with its statistics over the seeds of the arm.

    Args:
        arms: the arms to return; None: all.

    Returns:
        Columns `arm`, `role`, `method`, `temperature`, `metric`, `seeds`, `mean`, `sd` (n - 1 in
        the denominator), `low` and `high` (95% t-interval over seeds). Values are fractions, not
        per cent. They are NaN if there is only one seed.
    """
    names = [name for name in compared_names(study.attributes) if name in study.metrics]
    rows = [
        {**_of_arm(study, arm), "metric": name, **_over_seeds(study.values(arm, name))}
        for arm in (study.arms if arms is None else arms)
        for name in names
    ]
    return pd.DataFrame(rows)


def class_statistics(classes: ClassWise) -> pd.DataFrame:
    """Returns one row per arm and class: its accuracy over the seeds, as in `arm_statistics`."""
    study = classes.study
    rows = [
        {
            **_of_arm(study, arm),
            "class": number,
            "name": name,
            "n": int(accuracies.n[number]),
            **_over_seeds(accuracies.accuracy[:, number]),
        }
        for arm, accuracies in classes.accuracies.items()
        for number, name in enumerate(study.class_names)
    ]
    return pd.DataFrame(rows)


def group_statistics(study: Study) -> pd.DataFrame:
    """Returns one row per arm and group: its accuracy over the seeds, as in `arm_statistics`."""
    rows = []
    for arm in study.arms:
        for attribute in study.attributes:
            tables = [
                group_table(table, attribute, min_group_size=study.min_group_size)
                for table in study.tables(arm)
            ]
            accuracies = np.stack([table["accuracy"].to_numpy(dtype=float) for table in tables])
            for number, row in enumerate(tables[0].to_dict("records")):
                rows.append(
                    {
                        **_of_arm(study, arm),
                        **{name: row[name] for name in ("attribute", "group", "n")},
                        **_over_seeds(accuracies[:, number]),
                    }
                )
    return pd.DataFrame(rows)


def _of_arm(study: Study, arm: Arm) -> dict[str, object]:
    return {
        "arm": study.names[arm],
        "role": arm.role.label,
        "method": arm.method or "",
        "temperature": arm.temperature,
    }


def _over_seeds(values: FloatArray | Sequence[float]) -> dict[str, float]:
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    interval = mean_over_seeds(known)
    return {
        "seeds": len(known),
        "mean": interval.estimate,
        "sd": float(known.std(ddof=1)) if len(known) > 1 else np.nan,
        "low": interval.low,
        "high": interval.high,
    }
