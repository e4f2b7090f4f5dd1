"""What workers are given to do in the tests of executors; found by their processes by name."""

import os
import signal
import time
from pathlib import Path

import torch

from kdplatform.experiments.executors import Assignment, Outcome


def tell(assignment: Assignment) -> Outcome:
    """Says where it runs."""
    facts = {
        "process": os.getpid(),
        "threads": torch.get_num_threads(),
        "variable": os.environ["OMP_NUM_THREADS"],
        "device": assignment.device,
    }
    return Outcome(assignment.step.key, messages=tuple(f"{k}={v}" for k, v in facts.items()))


def die_the_first_time(assignment: Assignment) -> Outcome:
    """Kills its process, unless it has done so before."""
    marker = Path(assignment.folder) / assignment.step.key
    if assignment.step.seed == 0 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return tell(assignment)


def die_if_first(assignment: Assignment) -> Outcome:
    """Kills its process if its seed is 0."""
    if assignment.step.seed == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return tell(assignment)


def work_long(assignment: Assignment) -> Outcome:
    """Notes that it is at work, and that it was interrupted."""
    folder = Path(assignment.folder)
    (folder / f"{os.getpid()}.working").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / f"{os.getpid()}.interrupted").touch()
        raise
    return tell(assignment)
