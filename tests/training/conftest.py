"""A tiny problem that trains in a fraction of a second: the class is where the image is bright."""

import sys
from pathlib import Path

import pytest

from kdplatform.data import Dataset
from kdplatform.settings.schema import TrainingConfig

sys.path.insert(0, str(Path(__file__).parent))  # for fits

from fits import draw_split


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
