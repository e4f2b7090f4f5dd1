"""What workers are given to do in the tests of executors; found by their processes by name."""

import os
import signal
import time
from pathlib import Path

import torch

from kdplatform.experiments.executors import Assignment, Outcome

DEADLY = 100
DEADLY_ONCE = 101


def tell(assignment: Assignment) -> Outcome:
    """Says where it runs; steps of two seeds kill their worker, one of them only once."""
    folder, seed = Path(assignment.folder), assignment.step.seed
    attempts = len(list(folder.glob(f"{seed}-*")))
    (folder / f"{seed}-{attempts}").touch()
    if seed == DEADLY or (seed == DEADLY_ONCE and attempts == 0):
        os.kill(os.getpid(), signal.SIGKILL)
    facts = {
        "process": os.getpid(),
        "threads": torch.get_num_threads(),
        "variable": os.environ["OMP_NUM_THREADS"],
        "device": assignment.device,
    }
    return Outcome(assignment.step.key, messages=tuple(f"{k}={v}" for k, v in facts.items()))


def work_long(assignment: Assignment) -> Outcome:
    """Notes that it is at work, and that it was interrupted."""
    folder = Path(assignment.folder)
    (folder / f"{os.getpid()}.working").touch()
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        (folder / f"{os.getpid()}.interrupted").touch()
        raise
    return Outcome(assignment.step.key)
