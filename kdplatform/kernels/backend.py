"""Which backend serves `kd_loss`: the library of kernels, or the reference in PyTorch.

`build.ensure_built` determines it once per process, and it does not change afterwards.
"""

import contextlib
import importlib.machinery
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kdplatform.kernels import cache
from kdplatform.kernels.interface import check_operators
from kdplatform.kernels.modes import mode
from kdplatform.kernels.toolchain import (
    MODULE_NAME,
    ToolchainError,
    build_key,
    cache_folder,
    covers,
    library_path,
)


class KDLossOutput(NamedTuple):
    """What `kd_loss` returns.

    Attributes:
        loss: the value to call `backward` on.
        kl: KL divergence without its weight, detached, reduced like the loss.
        ce: cross entropy without its weight, detached, reduced like the loss.
    """

    loss: Tensor
    kl: Tensor
    ce: Tensor

    @property
    def backend(self) -> str:
        """The backend that computed it, named as in `BackendStatus`."""
        device = self.loss.device.type
        if device == "cpu" and "cpu" in loaded.devices and self.loss.dtype is torch.float64:
            return "fused (plain)"
        return status().serving(device)


@dataclass(frozen=True)
class BackendStatus:
    """The backend of each device, and the reason.

    Attributes:
        cpu: "fused (avx512)", "fused (avx2)", "fused (plain)", "fused" or "reference".
        cuda: "fused" or "reference".
        cpu_reason: one line with the reason.
        cuda_reason: one line with the reason.
        library: the library that is loaded, or that the first call would load.
        architectures: the library's CUDA architectures, such as ("8.0", "9.0").
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
    """The backend of this process.

    Attributes:
        settled: whether the choice is made. It is final.
        direct_call: `kd_loss` of plain tensors and numbers in C++; None without a library.
        failure: the reason if there is no library.
    """

    settled: bool = False
    direct_call: Callable[..., Any] | None = None
    module: ModuleType | None = None
    path: Path | None = None
    devices: frozenset[str] = frozenset()
    failure: str = ""


loaded = _Loaded()


def device_architectures() -> tuple[str, ...]:
    """Returns the architectures of the CUDA devices that are visible, such as ("9.0",)."""
    if not torch.cuda.is_available():
        return ()
    capabilities = {
        torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())
    }
    return tuple(f"{major}.{minor}" for major, minor in sorted(capabilities))


def find_library() -> Path | None:
    """Returns a complete library; with a device present, one with CUDA if there is one.

    With CUDA it is the one for exactly the visible devices, or else the one for the fewest
    architectures that runs on them. No compiler is needed to find it.

    Raises:
        ToolchainError: another user could have written it.
    """
    for path in _choices(device_architectures()):
        if problem := cache.untrusted(path):
            raise ToolchainError(problem)
        if cache.record_of(path) is not None:
            return path
    return None


def _choices(devices: tuple[str, ...]) -> Iterator[Path]:
    """Yields the libraries that would serve, the best first. They need not be there."""
    yield library_path(devices)  # without devices, the one without CUDA
    for path, architectures in _cuda_libraries():
        if covers(architectures, devices):
            yield path
    if devices:
        yield library_path(())


def _cuda_libraries() -> list[tuple[Path, tuple[str, ...]]]:
    """Returns the libraries with CUDA of these sources and this torch, fewest architectures first.

    The folder's name is the key of everything that a build depends on. With the architectures of
    its record, the key can be made again and compared.
    """
    found = []
    for folder in cache_folder().glob("cuda-*"):
        architectures = cache.recorded_architectures(folder)
        if architectures and build_key(architectures) == folder.name:
            found.append((library_path(architectures), architectures))
    return sorted(found, key=lambda each: (len(each[1]), each[1]))


def load(path: Path) -> None:
    """Load a library. From then on `kd_loss` uses it.

    Raises:
        ImportError: the library does not fit this machine or this torch.
    """
    cache.hold(path.parent)
    loader = importlib.machinery.ExtensionFileLoader(MODULE_NAME, str(path))
    spec = importlib.util.spec_from_loader(MODULE_NAME, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    check_operators()
    module.set_output_type(KDLossOutput)
    loaded.module, loaded.path = module, path
    loaded.devices = frozenset({"cpu", "cuda"} if module.cuda_architectures else {"cpu"})
    loaded.direct_call = module.direct_call


def status() -> BackendStatus:
    """Returns which backend serves CPU and CUDA tensors. Loads and builds nothing.

    Before the first call of `kd_loss` it reports what that call will find.

    Raises:
        ValueError: `$KDPLATFORM_KERNELS` has an unknown value.
    """
    chosen = mode()
    if loaded.module is not None:
        assert loaded.path is not None
        cpu, architectures = f"fused ({loaded.module.cpu_body()})", loaded.module.cuda_architectures
        return _with_library(cpu, loaded.path, f"built at {loaded.path}", architectures.split())
    if loaded.settled:
        return _without_library(loaded.failure)
    if chosen == "off":
        return _without_library("KDPLATFORM_KERNELS=off")
    try:
        path = find_library()
    except ToolchainError as error:
        return _without_library(str(error))
    if path is None:
        return _without_library("not built yet; the first call builds it")
    record = cache.record_of(path) or {}
    reason = f"built at {path}; the first call loads it"
    return _with_library("fused", path, reason, record.get("architectures", []))


def _with_library(cpu: str, path: Path, reason: str, architectures: list[str]) -> BackendStatus:
    if architectures:
        built = reason.replace("built at", f"built for CUDA {', '.join(architectures)} at", 1)
        cuda_reason = built if device_architectures() else f"no CUDA device; {built}"
        return BackendStatus(cpu, "fused", reason, cuda_reason, path, tuple(architectures))
    return BackendStatus(cpu, "reference", reason, _why_without_cuda(), path, ())


def _why_without_cuda() -> str:
    """Returns why a library without CUDA serves, and which libraries with CUDA there are."""
    devices, there = device_architectures(), ""
    with contextlib.suppress(ToolchainError):  # the sources may have changed since it was loaded
        there = "; ".join(
            f"there is a library for CUDA {', '.join(architectures)} at {path}"
            for path, architectures in _cuda_libraries()
            if not cache.untrusted(path) and cache.record_of(path) is not None
        )
    if not devices:
        advice = "built without CUDA (kdplatform kernels build --cuda)"
        return f"no CUDA device; {there}" if there else f"no CUDA device, {advice}"
    advice = f"kdplatform kernels build --cuda --architectures {','.join(devices)}"
    return f"built without CUDA {', '.join(devices)} ({advice})" + (f"; {there}" if there else "")


def _without_library(reason: str) -> BackendStatus:
    return BackendStatus("reference", "reference", reason, reason, None, ())
