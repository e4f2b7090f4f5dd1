"""The version of the platform: pyproject.toml has it, and an installation writes it down."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Returns the version that is installed, or that none is."""
    try:
        return version("kdplatform")
    except PackageNotFoundError:
        return "unknown (not installed)"
