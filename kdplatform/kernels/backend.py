"""Which backend serves `kd_loss`: the library of kernels once it is loaded, else the reference."""

import contextlib
import importlib.machinery
import importlib.util
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from kdplatform.kernels import cache
from kdplatform.kernels.arguments import KDLossOutput
from kdplatform.kernels.toolchain import (
    MODULE_NAME,
    ToolchainError,
    cuda_toolkit,
    library_path,
)

MODES = ("auto", "require", "off")


@dataclass(frozen=True)
class BackendStatus:
    """What serves tensors of each device, and why.

    Attributes:
        cpu: "fused (avx512)", "fused (avx2)", "fused (plain)" or "reference".
        cuda: "fused" or "reference".
        cpu_reason: one line that says why.
        cuda_reason: one line that says why.
        library: the library that is loaded.
        architectures: CUDA architectures that it holds, such as ("8.0", "9.0").
    """

    cpu: str
    cuda: str
    cpu_reason: str
    cuda_reason: str
    library: Path | None
    architectures: tuple[str, ...]

    def serving(self, device: torch.device | str) -> str:
        """Returns the backend of this device's tensors, for a run's tag."""
        return {"cpu": self.cpu, "cuda": self.cuda}.get(torch.device(device).type, "reference")


@dataclass
class _Loaded:
    """The library of this process. `short_way` is None until there is one."""

    short_way: Callable[..., Any] | None = None
    module: ModuleType | None = None
    path: Path | None = None
    devices: frozenset[str] = frozenset()
    failure: str = "not built yet"


loaded = _Loaded()
_load_lock = threading.Lock()


def mode() -> str:
    """Returns `$KDPLATFORM_KERNELS`: "auto" (the default), "require" or "off".

    Raises:
        ValueError: any other value.
    """
    value = os.environ.get("KDPLATFORM_KERNELS", "auto")
    if value not in MODES:
        raise ValueError(f"KDPLATFORM_KERNELS: {value!r}; allowed: {', '.join(map(repr, MODES))}")
    return value


def device_architectures() -> tuple[str, ...]:
    """Returns the architectures of the CUDA devices that are visible, such as ("9.0",)."""
    if not torch.cuda.is_available():
        return ()
    capabilities = {
        torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())
    }
    return tuple(f"{major}.{minor}" for major, minor in sorted(capabilities))


def find_library() -> Path | None:
    """Returns a library that is built: with CUDA where there is a device, if possible."""
    choices: list[tuple[str, ...]] = []
    if devices := device_architectures():
        choices.append(devices)
    with contextlib.suppress(ToolchainError):
        choices.append(cuda_toolkit().architectures)
    choices.append(())
    if not devices:
        choices.reverse()
    paths = (library_path(architectures) for architectures in choices)
    return next((path for path in paths if path.exists()), None)


def load(path: Path) -> None:
    """Load a library, after which `kd_loss` uses it. Loading a second time does nothing.

    Raises:
        ImportError: the library does not fit this machine or this torch.
    """
    with _load_lock:
        if loaded.module is not None:
            return
        cache.hold(path.parent)
        loader = importlib.machinery.ExtensionFileLoader(MODULE_NAME, str(path))
        spec = importlib.util.spec_from_loader(MODULE_NAME, loader)
        assert spec is not None
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        module.set_output_type(KDLossOutput)
        loaded.module, loaded.path = module, path
        loaded.devices = frozenset({"cpu", "cuda"} if module.cuda_architectures else {"cpu"})
        loaded.short_way = module.short_way


def set_failure(reason: str) -> None:
    """Remember why there is no library, for `status`."""
    loaded.failure = reason


def status() -> BackendStatus:
    """Returns which backend serves CPU and CUDA tensors.

    Loads a library that is built already, and builds none.

    Raises:
        ValueError: `$KDPLATFORM_KERNELS` has an unknown value.
    """
    if mode() == "off":
        return _without_library("KDPLATFORM_KERNELS=off")
    if loaded.module is None:
        try:
            if path := find_library():
                load(path)
        except (ImportError, ToolchainError) as error:
            set_failure(_first_line(error))
    if loaded.module is None:
        return _without_library(loaded.failure)
    architectures = tuple(str(loaded.module.cuda_architectures).split())
    where = f"built at {loaded.path}"
    if not architectures:
        has_device = torch.cuda.is_available()
        missing = "built without CUDA" if has_device else "no CUDA device, built without CUDA"
        cuda, cuda_reason = "reference", f"{missing} (kdplatform kernels build --cuda)"
    else:
        cuda, cuda_reason = "fused", where
    cpu = f"fused ({loaded.module.cpu_body()})"
    return BackendStatus(cpu, cuda, where, cuda_reason, loaded.path, architectures)


def _without_library(reason: str) -> BackendStatus:
    return BackendStatus("reference", "reference", reason, reason, None, ())


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
