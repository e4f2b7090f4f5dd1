"""A tiny problem that trains in a fraction of a second: the class is where the image is bright."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from kdplatform.data import Dataset, Split
from kdplatform.settings.schema import TrainingConfig

sys.path.insert(0, str(Path(__file__).parent))  # for fits

CLASSES = 4
SIDE = 8


def draw_split(count: int, first_id: int) -> Split:
    generator = torch.Generator().manual_seed(first_id)
    labels = torch.arange(count) % CLASSES
    inputs = torch.randint(0, 100, (count, 3, SIDE, SIDE), generator=generator)
    for row, label in enumerate(labels.tolist()):
        inputs[row, :, 2 * label : 2 * label + 2] += 100
    ids = np.arange(first_id, first_id + count, dtype=np.int64)
    return Split(inputs.to(torch.uint8), labels, ids, pd.DataFrame(index=range(count)))


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    return Dataset(
        name="bright",
        digest="0",
        class_names=("a", "b", "c", "d"),
        attributes=(),
        train=draw_split(50, 0),
        val=draw_split(20, 1000),
        test=draw_split(20, 2000),
    )


@pytest.fixture(scope="session")
def config() -> TrainingConfig:
    return TrainingConfig(
        model="lenet5", epochs=3, batch_size=16, optimizer="adamw", learning_rate=3e-3
    )


@pytest.fixture(autouse=True)
def _one_thread(one_thread: None) -> None:
    """Tiny tensors: a second thread would only wait."""
