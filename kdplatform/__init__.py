"""Knowledge distillation whose effect on class bias and fairness is measured."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdplatform.kernels import KDLossOutput, kd_loss

    __version__: str

__all__ = ["KDLossOutput", "__version__", "kd_loss"]


def __getattr__(name: str) -> object:
    # Imported when asked for: `import kdplatform` stays free of torch.
    if name in ("KDLossOutput", "kd_loss"):
        from kdplatform import kernels

        value: object = getattr(kernels, name)
        globals()[name] = value
        return value
    if name == "__version__":
        # pyproject.toml has it, and whatever installs the package writes it down.
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("kdplatform")
        except PackageNotFoundError:
            return "unknown (not installed)"
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
