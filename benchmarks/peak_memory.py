"""Peak memory of one step: what it holds at most beyond what was there before."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import DeviceType

MEBIBYTE = 1 << 20


def peak_memory(step: Callable[[], object], leaves: Sequence[Tensor], device: str) -> float:
    """Returns MiB that a step holds at most, the gradients it leaves in `leaves` among them.

    On the CPU: the highest sum of what torch's allocator hands out, as its profiler records it.
    Scratch memory of a thread (a few rows) and NumPy's are not counted.
    """
    for leaf in leaves:
        leaf.grad = None
    return _on_cpu(step) if device == "cpu" else _on_cuda(step)


def _on_cuda(step: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / MEBIBYTE


def _on_cpu(step: Callable[[], object]) -> float:
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        step()
    assert profile.profiler is not None
    assert profile.profiler.kineto_results is not None
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]" and event.device_type() == DeviceType.CPU
    )
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak / MEBIBYTE
