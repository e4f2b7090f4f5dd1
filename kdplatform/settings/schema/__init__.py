"""The blocks of a project file: their fields, types and ranges.

Nothing here knows the names of datasets, models and methods. `settings.project` checks names.
"""

from kdplatform.settings.schema.conditions import AttackConfig, ConditionConfig, EvaluationConfig
from kdplatform.settings.schema.fields import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    NEUTRAL,
    Count,
    Fraction,
    Names,
    Optional,
    Positive,
    Shares,
    Temperature,
    Temperatures,
)
from kdplatform.settings.schema.project import DatasetConfig, ProjectConfig, flatten, neutral_values
from kdplatform.settings.schema.texts import integers, names, numbers, optional, parse_integers
from kdplatform.settings.schema.training import (
    AugmentationConfig,
    DistillationConfig,
    MethodConfig,
    TrainingConfig,
)
from kdplatform.settings.schema.tuning import TuningConfig

__all__ = [
    "HIGHEST_TEMPERATURE",
    "LOWEST_TEMPERATURE",
    "NEUTRAL",
    "AttackConfig",
    "AugmentationConfig",
    "ConditionConfig",
    "Count",
    "DatasetConfig",
    "DistillationConfig",
    "EvaluationConfig",
    "Fraction",
    "MethodConfig",
    "Names",
    "Optional",
    "Positive",
    "ProjectConfig",
    "Shares",
    "Temperature",
    "Temperatures",
    "TrainingConfig",
    "TuningConfig",
    "flatten",
    "integers",
    "names",
    "neutral_values",
    "numbers",
    "optional",
    "parse_integers",
]
