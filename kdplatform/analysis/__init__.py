"""Statistics of prediction tables: pure functions from tables to numbers and data frames.

The functions named here are imported when they are first used. Each module has more.

>>> import kdplatform.analysis
>>> "bootstrap_fairness" in dir(kdplatform.analysis)
True
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdplatform.analysis.agreement import agreement_by_group
    from kdplatform.analysis.bootstrap import FairnessBootstrap, bootstrap_fairness
    from kdplatform.analysis.calibration import calibrating_temperature, expected_calibration_error
    from kdplatform.analysis.classwise import class_table, class_table_over_seeds, worst_class
    from kdplatform.analysis.collapse import collapse_of
    from kdplatform.analysis.comparison import compare_classes, compare_pair
    from kdplatform.analysis.disagreement import disagreement_by_class, disagreement_matrix
    from kdplatform.analysis.effects import detectable_shift, trend_over_temperature
    from kdplatform.analysis.group_calibration import calibration_by_group
    from kdplatform.analysis.group_fairness import fairness_metrics, group_table, rates_by_class
    from kdplatform.analysis.individual_fairness import consistency, individual_unfairness
    from kdplatform.analysis.mcnemar import mcnemar_p
    from kdplatform.analysis.parity import parity_null
    from kdplatform.analysis.permutation import permute_seeds
    from kdplatform.analysis.ranking import exposure, ranking_scores
    from kdplatform.analysis.significance import (
        benjamini_hochberg,
        holm,
        mcnemar_by_class,
        welch_by_class,
    )

# By module, the public names.
_PUBLIC = {
    "agreement": ("agreement_by_group",),
    "bootstrap": (
        "FairnessBootstrap",
        "bootstrap_fairness",
    ),
    "calibration": (
        "calibrating_temperature",
        "expected_calibration_error",
    ),
    "classwise": (
        "class_table",
        "class_table_over_seeds",
        "worst_class",
    ),
    "collapse": ("collapse_of",),
    "comparison": (
        "compare_classes",
        "compare_pair",
    ),
    "disagreement": (
        "disagreement_by_class",
        "disagreement_matrix",
    ),
    "effects": (
        "detectable_shift",
        "trend_over_temperature",
    ),
    "group_calibration": ("calibration_by_group",),
    "group_fairness": (
        "fairness_metrics",
        "group_table",
        "rates_by_class",
    ),
    "individual_fairness": (
        "consistency",
        "individual_unfairness",
    ),
    "mcnemar": ("mcnemar_p",),
    "parity": ("parity_null",),
    "permutation": ("permute_seeds",),
    "ranking": (
        "exposure",
        "ranking_scores",
    ),
    "significance": (
        "benjamini_hochberg",
        "holm",
        "mcnemar_by_class",
        "welch_by_class",
    ),
}
_PLACES = {name: module for module, names in _PUBLIC.items() for name in names}
__all__ = [
    "FairnessBootstrap",
    "agreement_by_group",
    "benjamini_hochberg",
    "bootstrap_fairness",
    "calibrating_temperature",
    "calibration_by_group",
    "class_table",
    "class_table_over_seeds",
    "collapse_of",
    "compare_classes",
    "compare_pair",
    "consistency",
    "detectable_shift",
    "disagreement_by_class",
    "disagreement_matrix",
    "expected_calibration_error",
    "exposure",
    "fairness_metrics",
    "group_table",
    "holm",
    "individual_unfairness",
    "mcnemar_by_class",
    "mcnemar_p",
    "parity_null",
    "permute_seeds",
    "ranking_scores",
    "rates_by_class",
    "trend_over_temperature",
    "welch_by_class",
    "worst_class",
]


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
