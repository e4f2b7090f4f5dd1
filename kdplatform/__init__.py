"""Knowledge distillation whose effect on class bias and fairness is measured."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdplatform.experiments.compare import compare
    from kdplatform.kernels import KDLossOutput, kd_loss
    from kdplatform.reporting.comparison_result import ComparisonResult

    __version__: str

__all__ = ["ComparisonResult", "KDLossOutput", "__version__", "compare", "kd_loss"]

# Imported when asked for: `import kdplatform` stays free of torch, pandas and MLflow.
_PLACES = {
    "ComparisonResult": "kdplatform.reporting.comparison_result",
    "KDLossOutput": "kdplatform.kernels",
    "compare": "kdplatform.experiments.compare",
    "kd_loss": "kdplatform.kernels",
}


def __getattr__(name: str) -> object:
    if name in _PLACES:
        value: object = getattr(import_module(_PLACES[name]), name)
        globals()[name] = value
        return value
    if name == "__version__":
        from kdplatform.version import installed_version

        return installed_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
