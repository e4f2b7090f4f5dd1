"""Synthetic studies: predictions whose biases are known, without any training."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

from kdplatform.roles import Role
from kdplatform.study.study import NDS, TEACHER, Arm, Model, Study, distilled_arm, scored_model

CLASSES = ("circle", "square", "star", "tee")
COLORS = ("red", "green", "blue")
SEEDS = (0, 1, 2, 3, 4)
TEMPERATURES = (1.0, 2.0, 4.0, 7.0, 10.0, 20.0)

# From role and temperature (0: Teacher or NDS) to the accuracy of every class and group.
Accuracy = Callable[[Role, float], np.ndarray]


def no_effect(role: Role, temperature: float) -> np.ndarray:
    """The accuracy of every arm alike. [classes, groups]"""
    return np.full((len(CLASSES), len(COLORS)), 0.8)


class Generator:
    """Makes prediction tables of one set of examples."""

    def __init__(self, examples: int = 1200) -> None:
        rng = np.random.default_rng(5)
        self.labels = np.arange(examples) % len(CLASSES)
        self.colors = rng.integers(0, len(COLORS), examples)
        self.textures = rng.integers(0, 2, examples)

    def table(
        self, accuracy: np.ndarray, seed: int, *, margin: float = 3.0, spread: float = 0.01
    ) -> pd.DataFrame:
        """A model that is right at the rates given, which vary a little from seed to seed."""
        rng = np.random.default_rng(seed)
        rates = np.clip(accuracy + rng.normal(0, spread, accuracy.shape), 0, 1)
        right = rng.random(len(self.labels)) < rates[self.labels, self.colors]
        step = rng.integers(1, len(CLASSES), len(self.labels))
        prediction = np.where(right, self.labels, (self.labels + step) % len(CLASSES))
        logits = rng.normal(0, 0.3, (len(self.labels), len(CLASSES)))
        logits[np.arange(len(prediction)), prediction] += margin
        return pd.DataFrame(
            {
                "id": np.arange(len(self.labels)),
                "label": self.labels,
                "prediction": logits.argmax(axis=1),
                "logits": list(logits.astype(np.float32)),
                "color": np.array(COLORS)[self.colors],
                "texture": np.array(["dots", "rain"])[self.textures],
            }
        )


def make_study(
    accuracy: Accuracy = no_effect,
    seeds: Sequence[int] = SEEDS,
    temperatures: Sequence[float] = TEMPERATURES,
    *,
    examples: int = 1200,
    spread: float = 0.01,
    **settings: object,
) -> Study:
    generator = Generator(examples)
    arms: dict[Arm, Mapping[int, Model]] = {}
    every = [TEACHER, NDS, *(distilled_arm(t) for t in temperatures)]
    for number, arm in enumerate(every):
        rates = accuracy(arm.role, arm.temperature or 0.0)
        arms[arm] = {
            seed: scored_model(
                f"run {arm.title()} {seed}",
                generator.table(rates, 1000 * number + seed, spread=spread),
                1.5,
            )
            for seed in seeds
        }
    attributes = settings.pop("attributes", ("color", "texture"))
    return Study("synthetic", CLASSES, arms, attributes, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def synthetic() -> Callable[..., Study]:
    """Makes a study from the accuracies of every role, temperature, class and group."""
    return make_study


@pytest.fixture(scope="session")
def generator() -> Generator:
    """Makes single tables."""
    return Generator()
