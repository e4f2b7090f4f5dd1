"""Calibration: ECE, Brier score, negative log-likelihood, and the temperature that calibrates."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from kdplatform.predictions import FloatArray, IntArray, Logits, Predictions, Table

EQUAL_MASS_BINS = 15
# Beyond these limits the loss of a model that is always right, or always wrong, no longer changes.
TEMPERATURE_LIMITS = (0.01, 100.0)
# Logits softened at a time: they stay in the cache of the processor.
_LOGITS = 1 << 17


class Calibration(NamedTuple):
    """Calibration of one model on one table; lower is better for all three."""

    ece: float
    brier: float
    nll: float


class _Scores(NamedTuple):
    """Of every example. [examples]."""

    confidence: FloatArray  # probability of the predicted class
    brier: FloatArray
    nll: FloatArray


def check_temperature(temperature: float) -> None:
    """Refuses a temperature that cannot divide logits."""
    if not (np.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature is {temperature}; allowed: a finite number above 0")


def _inputs(table: Table) -> tuple[Logits, IntArray, IntArray]:
    checked = Predictions.of(table)
    if checked.logits is None:
        raise ValueError("prediction table lacks column 'logits'; allowed: one array per example")
    return checked.logits, checked.labels, checked.predictions


def _chunks(logits: Logits) -> Iterator[slice]:
    rows = max(1, _LOGITS // logits.shape[1])
    return (slice(start, start + rows) for start in range(0, len(logits), rows))


class _Softened(NamedTuple):
    """Some rows of logits, divided by a temperature and minus the largest logit of each row.

    Attributes:
        logits: [rows, classes]
        exponentials: [rows, classes]
        totals: sums of the exponentials. [rows]
    """

    logits: FloatArray
    exponentials: FloatArray
    totals: FloatArray

    @classmethod
    def of(cls, rows: Logits, temperature: float = 1.0) -> "_Softened":
        logits = rows.astype(float)
        if temperature != 1:
            logits /= temperature
        logits -= logits.max(axis=1, keepdims=True)
        exponentials = np.exp(logits)
        return cls(logits, exponentials, exponentials.sum(axis=1))


def probabilities(table: Table, temperature: float = 1.0) -> FloatArray:
    """Softmax of the logits over the temperature, of shape [examples, classes]."""
    check_temperature(temperature)
    softened: FloatArray = special.softmax(_inputs(table)[0].astype(float) / temperature, axis=1)
    return softened


def probability_of(table: Table, classes: npt.ArrayLike) -> FloatArray:
    """Probability that each example has a class: its own, or one of all. [examples].

    A few rows are computed at a time, so that many classes need no more memory.

    Args:
        classes: The class of every example [examples], or one class for all.

    Raises:
        ValueError: The table has no logits.
    """
    logits = _inputs(table)[0]
    chosen = np.broadcast_to(np.asarray(classes), len(logits))
    found = np.empty(len(logits))
    for rows in _chunks(logits):
        soft = _Softened.of(logits[rows])
        own = soft.exponentials[np.arange(len(soft.totals)), chosen[rows]]
        found[rows] = own / soft.totals
    return found


def _scores(table: Table, temperature: float) -> tuple[_Scores, IntArray, IntArray]:
    logits, labels, predictions = _inputs(table)
    confidence, brier, nll = (np.empty(len(labels)) for _ in range(3))
    for rows in _chunks(logits):
        z, exponentials, totals = _Softened.of(logits[rows], temperature)
        here = np.arange(len(z))
        confidence[rows] = exponentials[here, predictions[rows]] / totals
        # sum over c of (p_c - y_c)^2 = sum of p_c^2 - 2 p_label + 1
        squares = np.einsum("ij,ij->i", exponentials, exponentials) / totals**2
        brier[rows] = squares - 2 * exponentials[here, labels[rows]] / totals + 1
        nll[rows] = np.log(totals) - z[here, labels[rows]]
    return _Scores(confidence, brier, nll), labels, predictions


def example_scores(table: Table, *, temperature: float = 1.0) -> dict[str, FloatArray]:
    """Brier score and negative log-likelihood of every example: `brier` and `nll`.

    Arrays of shape [examples]. Their means, weighted if the table has weights, are those of
    `calibration`.

    Raises:
        ValueError: As `calibration`.
    """
    check_temperature(temperature)
    scores, _, _ = _scores(table, temperature)
    return {"brier": scores.brier, "nll": scores.nll}


def expected_calibration_error(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    bins: int = EQUAL_MASS_BINS,
    weights: FloatArray | None = None,
) -> float:
    """ECE over bins of equal mass: sum over bins of n_bin / n |accuracy - mean confidence|.

    Bins are cut at quantiles of the confidence (Nixon et al. 2019, arXiv 1904.01685). Equal
    confidences always share a bin, so there may be fewer bins. Bins contain equally many examples,
    whatever their weights. Accuracy, confidence and the sum over bins use the weights.

    Args:
        confidence: Probability of the predicted class. [examples]
        correct: Whether the prediction is right. [examples]
        weights: How much each example counts; None: all alike. [examples]

    Raises:
        ValueError: `bins` is below 1, there are no examples, or the arguments differ in length.

    >>> round(expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0], bins=2), 6)
    0.1
    """
    if bins < 1:
        raise ValueError(f"bins is {bins}; allowed: at least 1")
    sure, right = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if sure.shape != right.shape or sure.ndim != 1 or not len(sure):
        raise ValueError(
            f"confidence has shape {sure.shape}, correct {right.shape}; allowed: [examples], both"
        )
    bin_of = equal_mass_bins(sure, bins)
    share = np.ones(len(sure)) if weights is None else weights
    gap = np.bincount(bin_of, weights=share * (right - sure))
    return float(np.abs(gap).sum() / share.sum())


def equal_mass_bins(confidence: FloatArray, bins: int = EQUAL_MASS_BINS) -> IntArray:
    """Number of the bin of each confidence, cut at quantiles. [examples]."""
    first_of_bin = np.arange(1, bins) * len(confidence) // bins
    edges = np.unique(np.sort(confidence)[first_of_bin])
    return np.searchsorted(edges, confidence, side="right")


def calibration(
    table: Table, *, temperature: float = 1.0, bins: int = EQUAL_MASS_BINS
) -> Calibration:
    """ECE, Brier score and negative log-likelihood of a model.

    Brier score: mean over examples of the sum over classes of (p_c - y_c)^2, between 0 and 2 (Brier
    1950). NLL: mean of -log p_label, in nats. ECE: see `expected_calibration_error`.

    Args:
        temperature: Divides the logits first; `calibrating_temperature` of validation data gives
            the calibrated scores.

    Raises:
        ValueError: Logits are missing, ragged or not finite, or a class has no logit.
    """
    check_temperature(temperature)
    scores, labels, predictions = _scores(table, temperature)
    weights = Predictions.of(table).weights
    ece = expected_calibration_error(scores.confidence, predictions == labels, bins, weights)
    brier, nll = (float(np.average(each, weights=weights)) for each in (scores.brier, scores.nll))
    return Calibration(ece, brier, nll)


def calibrating_temperature(table: Table) -> float:
    """The temperature that minimises the NLL of a table (Guo et al. 2017, arXiv 1706.04599).

    Fit it on validation predictions and apply it to test predictions. The NLL is convex in 1 /
    temperature. The zero of its derivative, the mean of E_p[z] - z_label, is computed. For a model
    that is right with a margin everywhere there is no minimum, and the nearer of
    `TEMPERATURE_LIMITS` is returned.

    Raises:
        ValueError: As `calibration`.
    """
    logits, labels, _ = _inputs(table)

    def slope(inverse: float) -> float:
        total = 0.0
        for rows in _chunks(logits):
            z = logits[rows].astype(float)
            soft = _Softened.of(logits[rows], 1 / inverse)
            expected = np.einsum("ij,ij->i", soft.exponentials, z) / soft.totals
            total += float((expected - z[np.arange(len(z)), labels[rows]]).sum())
        return total / len(labels)

    coldest, hottest = TEMPERATURE_LIMITS
    if slope(1 / coldest) <= 0:
        return coldest
    if slope(1 / hottest) >= 0:
        return hottest
    log_inverse = optimize.brentq(
        lambda x: slope(float(np.exp(x))), -np.log(hottest), -np.log(coldest), xtol=1e-6
    )
    return float(np.exp(-log_inverse))
