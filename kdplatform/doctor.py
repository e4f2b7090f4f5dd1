"""The state of this machine: the first thing to check if something does not work."""

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import mlflow
import torch
from packaging.requirements import Requirement

from kdplatform import __version__
from kdplatform.errors import KdplatformError, MachineError, UserError
from kdplatform.experiments.store_faults import shown_store, store_errors
from kdplatform.experiments.tracking import check_store, quiet_mlflow, runs_dead_elsewhere
from kdplatform.experiments.workspace import backend_status
from kdplatform.files import home_folder, writable_folder
from kdplatform.kernels.build import BuildError, build
from kdplatform.kernels.toolchain import ToolchainError
from kdplatform.progress import changing_line
from kdplatform.redaction import redacted
from kdplatform.stores import sqlite_path

_PACKAGES = ("torch", "torchvision", "mlflow", "scipy", "fairlearn", "scikit-learn", "pydantic")
_MISSING = "not installed"
_GIB = 1024**3
# A run of another machine looks dead after RUNNING for longer than this.
_LONGEST_SECONDS = 24 * 3600


def report() -> str:
    """Returns the table that `kdplatform doctor` prints."""
    quiet_mlflow()
    folder, home = home_folder(), "KDPLATFORM_HOME"
    rows = [
        ("kdplatform", f"{__version__} in {Path(__file__).resolve().parent.parent}"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        *((name, _version(name)) for name in _PACKAGES),
        *(("too old", line) for line in older_than_required()),
        ("device", _device()),
        *_kernels(),
        ("tracking store", _checked(shown_store(), check_store)),
        *(("looks dead", line) for line in _dead_runs()),
        ("data folder", _checked(f"{folder} (writable)", partial(writable_folder, home, folder))),
        ("free disk", _free_disk(folder)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(redacted(f"{name:<{width}}  {text}") for name, text in rows)


def _dead_runs() -> list[str]:
    """Returns the runs of other machines that have been RUNNING for so long that they look dead."""
    try:
        check_store()
        path = sqlite_path(mlflow.get_tracking_uri())
        with store_errors():
            # MLflow would create the file if it were queried.
            made = path is None or path.exists()
            return runs_dead_elsewhere(_LONGEST_SECONDS) if made else []
    except KdplatformError:
        return []  # said of the store itself


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return _MISSING


def older_than_required() -> list[str]:
    """Returns one line for each dependency that is missing or older than the package allows."""
    lines = []
    for text in requires("kdplatform") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found == _MISSING or not requirement.specifier.contains(found, prereleases=True):
            allowed = f"{requirement.specifier or 'any'}"
            lines.append(f"{requirement.name} {found}; allowed: {allowed}")
    return lines


def _device() -> str:
    cores = f"cpu ({os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads)"
    if not torch.cuda.is_available():
        return f"{cores}; no CUDA device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{cores}; cuda: {', '.join(names)}"


def _kernels() -> Iterator[tuple[str, str]]:
    try:
        kernels = backend_status()
    except KdplatformError as error:
        yield ("loss kernel", str(error))
        return
    yield ("loss on cpu", f"{_named(kernels.cpu)}: {kernels.cpu_reason}")
    yield ("loss on cuda", f"{_named(kernels.cuda)}: {kernels.cuda_reason}")


def _named(backend: str) -> str:
    """Returns a backend's name for users. To them a reference is the model compared with."""
    return "PyTorch" if backend == "reference" else backend


def _checked(text: str, check: Callable[[], object]) -> str:
    """Returns the text, or the error of the check."""
    try:
        check()
    except KdplatformError as error:
        return str(error)
    return text


def _free_disk(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return f"{shutil.disk_usage(existing).free / _GIB:.1f} GiB at {existing}"


def kernel_status() -> str:
    """Returns which backend serves CPU and CUDA tensors, why, and for which architectures."""
    kernels = backend_status()
    lines = [
        f"cpu            {_named(kernels.cpu)}: {kernels.cpu_reason}",
        f"cuda           {_named(kernels.cuda)}: {kernels.cuda_reason}",
    ]
    if kernels.architectures:
        lines.append(f"architectures  {', '.join(kernels.architectures)}")
    return "\n".join(lines)


def build_kernels(cuda: bool, architectures: str | None) -> None:
    """Builds the loss kernels before their first use.

    Args:
        architectures: of CUDA, such as `8.0,9.0`; None: see `toolchain.cuda_toolkit`.

    Raises:
        UserError: an architecture is invalid.
        MachineError: a tool is missing or the build failed.
    """
    chosen = None if architectures is None else tuple(architectures.split(","))
    try:
        with changing_line() as shown:
            library = build(cuda or chosen is not None, shown, chosen)
    except (BuildError, ToolchainError) as error:
        raise MachineError(str(error)) from None
    except ValueError as error:
        raise UserError(str(error)) from None
    print(f"built: {library}")
