"""What a wheel holds beside the package: files of the top of the repository."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Where they lie in a wheel; `kdplatform/shipped.py` finds them in both places.
_SHIPPED = {
    "csrc": "kdplatform/csrc",
    "projects": "kdplatform/projects",
    "MLproject": "kdplatform/starter_files/MLproject",
    "python_env.yaml": "kdplatform/starter_files/python_env.yaml",
}


class ShippedFiles(BuildHookInterface[Any]):
    """Adds the files to a wheel; an editable install reads those of the clone."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before a wheel is built."""
        if version != "editable":
            build_data["force_include"] |= _SHIPPED
