"""Prediction files of hired and rejected people, as an auditor has them."""

import numpy as np
import pandas as pd

PEOPLE = 800


def people(model: int, *, skill: float = 1.0, against: float = 0.0) -> pd.DataFrame:
    """Predictions of one model with logits; `against` takes from the score of group b.

    The classes are `hire` and `reject`, in this order of logits. A few have no group.
    """
    shared, own = np.random.default_rng(3), np.random.default_rng(model)
    race = shared.choice(["a", "b", "c"], PEOPLE, p=[0.5, 0.4, 0.1])
    sex = shared.choice(["f", "m"], PEOPLE)
    hire = shared.random(PEOPLE) < 0.45
    score = skill * (2 * hire - 1) + own.normal(size=PEOPLE) - against * (race == "b")
    logits = np.stack([score, np.zeros(PEOPLE)], axis=1).round(4)
    return pd.DataFrame(
        {
            "id": range(PEOPLE),
            "label": np.where(hire, "hire", "reject"),
            "prediction": np.where(logits[:, 0] > 0, "hire", "reject"),
            "race": np.where(np.arange(PEOPLE) % 200 == 0, None, race),
            "sex": sex,
            "logits": [list(map(float, row)) for row in logits],
        }
    )


def weights(seed: int = 0) -> np.ndarray:
    """One weight per person."""
    return np.random.default_rng(seed).uniform(0.2, 3, PEOPLE).round(3)
