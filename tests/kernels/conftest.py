"""Backends to test: the reference, and the fused library where a compiler can build it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from kdplatform.kernels import backend as backends
from kdplatform.kernels.build import BuildError, build
from kdplatform.kernels.toolchain import ToolchainError

sys.path.insert(0, str(Path(__file__).parent))  # for loss_problems


@pytest.fixture(scope="session")
def fused_library() -> backends.BackendStatus:
    """The library of kernels, built if need be and loaded."""
    try:
        backends.load(backends.find_library() or build())
    except (BuildError, ToolchainError) as error:
        pytest.skip(f"no kernels: {error}")
    return backends.status()


@pytest.fixture
def use_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls go to PyTorch whatever is loaded."""
    monkeypatch.setattr(backends.loaded, "short_way", None)
    monkeypatch.setattr(backends.loaded, "devices", frozenset())


@pytest.fixture(params=["reference", "fused"])
def each_backend(request: pytest.FixtureRequest) -> str:
    """Runs a test once for each backend."""
    if request.param == "reference":
        request.getfixturevalue("use_reference")
    else:
        request.getfixturevalue("fused_library")
    return request.param


@pytest.fixture
def use_body(fused_library: backends.BackendStatus) -> Iterator[Callable[[str], None]]:
    """Chooses a body of the CPU kernels by name, for one test."""
    module = backends.loaded.module
    best = module.cpu_body()

    def choose(name: str) -> None:
        if not module.set_cpu_body(name):
            pytest.skip(f"this CPU has no {name}")

    yield choose
    module.set_cpu_body(best)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread, for tests whose work is small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
