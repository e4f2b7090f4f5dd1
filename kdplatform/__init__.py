"""Knowledge distillation whose effect on class bias and fairness is measured."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdplatform.experiments.compare import compare
    from kdplatform.experiments.studies import load_study
    from kdplatform.kernels import KDLossOutput, kd_loss
    from kdplatform.predictions import Predictions
    from kdplatform.reporting.comparison_result import ComparisonResult
    from kdplatform.study.study import Study

    __version__: str

__all__ = [
    "ComparisonResult",
    "KDLossOutput",
    "Predictions",
    "Study",
    "__version__",
    "compare",
    "kd_loss",
    "load_study",
]

# Imported when asked for: `import kdplatform` stays free of torch, pandas and MLflow.
_PLACES = {
    "ComparisonResult": "kdplatform.reporting.comparison_result",
    "KDLossOutput": "kdplatform.kernels",
    "compare": "kdplatform.experiments.compare",
    "kd_loss": "kdplatform.kernels",
    "load_study": "kdplatform.experiments.studies",
    "Predictions": "kdplatform.predictions",
    "Study": "kdplatform.study.study",
}
# Packages that load when they are first named: `kdplatform.analysis.holm`.
_ROOMS = ("analysis", "kernels", "study")


def __getattr__(name: str) -> object:
    if name in _PLACES:
        value: object = getattr(import_module(_PLACES[name]), name)
        globals()[name] = value
        return value
    if name == "__version__":
        from kdplatform.version import installed_version

        return installed_version()
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
