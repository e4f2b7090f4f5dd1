"""Random numbers: every purpose has its own generator, derived from the run's seed.

A run uses randomness for the initial weights, for the order and augmentation of its data, and for
the model's own draws (dropout). A method has its own stream. The generation of a dataset has its
own seed, in the dataset's configuration.

A teacher and the students of the same seed share no stream. The plain student (NDS) and the
distilled students (DS) of the same seed share all streams. They start from the same weights and see
the same batches, so a difference between them is paired and comes from the distillation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch

from kdplatform.roles import Role

# These numbers enter every stream: a changed number changes all results.
_FAMILIES = {Role.TEACHER: 0, Role.STUDENT: 1, Role.DISTILLED: 1}


class Purpose(IntEnum):
    """The purpose of random numbers; part of the stream's key."""

    INITIALISATION = 0
    DATA_ORDER = 1
    MODEL_NOISE = 2
    METHOD = 3
    UNLABELED_ORDER = 4


def derived_seed(seed: int, role: Role, purpose: Purpose, rank: int = 0) -> int:
    """Returns the 64-bit seed of one stream of a run.

    Streams of different seed, purpose, family of roles or rank are independent (numpy's
    SeedSequence). Rank 0 has the stream of a single process.
    """
    own = (rank,) if rank else ()
    sequence = np.random.SeedSequence(seed, spawn_key=(_FAMILIES[role], int(purpose), *own))
    return int(sequence.generate_state(1, np.uint64)[0])


@contextmanager
def global_generators_seeded(
    seed: int, role: Role, purpose: Purpose, device: torch.device | None = None
) -> Iterator[None]:
    """Seeds torch's global generators (CPU, and `device`) for a block, then restores them.

    It is for code that takes no generator: layers that initialise themselves, and dropout.
    """
    on_cuda = device is not None and device.type == "cuda"
    devices = [device] if on_cuda else []
    stream = derived_seed(seed, role, purpose)
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(stream)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(stream)
        yield
