"""Backends to test: the reference, and the fused library where a compiler can build it."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from kdplatform.kernels import BackendStatus, kd_loss, status
from kdplatform.kernels.backend import loaded

sys.path.insert(0, str(Path(__file__).parent))  # for loss_problems


@pytest.fixture(scope="session")
def fused_library() -> BackendStatus:
    """The library of kernels, which the first call builds if need be and loads."""
    logits = torch.zeros(1, 2)
    if kd_loss(logits, logits, temperature=1.0, alpha=1.0).backend == "reference":
        pytest.skip(f"no kernels: {status().cpu_reason}")
    return status()


@pytest.fixture
def use_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls go to PyTorch whatever is loaded."""
    nothing = {"settled": True, "direct_call": None, "module": None, "devices": frozenset()}
    for name, value in nothing.items():
        monkeypatch.setattr(loaded, name, value)


@pytest.fixture(params=["reference", "fused"])
def each_backend(request: pytest.FixtureRequest) -> str:
    """Runs a test once for each backend."""
    if "torch._dynamo" in sys.modules:
        # A compiled call takes the backend for a constant; it is one outside of these tests.
        torch.compiler.reset()
    request.getfixturevalue("use_reference" if request.param == "reference" else "fused_library")
    return request.param


@pytest.fixture
def use_body(fused_library: BackendStatus) -> Iterator[Callable[[str], None]]:
    """Chooses a body of the CPU kernels by name, for one test."""
    module = loaded.module
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
