"""What formulas of losses are written with a second time: numpy, float64, row by row."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def kl(p: Array, q: Array) -> Array:
    """KL of each row; a class of p = 0 adds nothing."""
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return (p * np.log(ratio)).sum(1)


def ce(z: Array, y: Any, smoothing: float = 0.0) -> Array:
    log_q = np.log(softmax(z))
    return -(1 - smoothing) * log_q[np.arange(len(y)), y] - smoothing * log_q.mean(1)


def kd(s: Array, t: Array, y: Any, temperature: Any = 4, alpha: Any = 0.8) -> Array:
    """Plain distillation; temperature and alpha are numbers, or [B, 1] and [B]."""
    term = kl(softmax(t / temperature), softmax(s / temperature))
    return alpha * np.ravel(temperature) ** 2 * term + (1 - alpha) * ce(s, y)
