import numpy as np
import pandas as pd
import pytest
from scipy import special
from sklearn.metrics import log_loss

from kdplatform.analysis.calibration import (
    calibrating_temperature,
    calibration,
    expected_calibration_error,
    probabilities,
)


def table(logits, labels):
    logits = np.asarray(logits, dtype=np.float32)
    return pd.DataFrame(
        {
            "id": range(len(labels)),
            "label": labels,
            "prediction": logits.argmax(axis=1),
            "logits": list(logits),
        }
    )


def calibrated_model(n=20_000, classes=5, seed=0):
    """A model whose probabilities are true: labels are drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    noise = rng.gumbel(size=logits.shape)
    return logits, (logits + noise).argmax(axis=1)


def test_scores_of_a_small_table_by_hand():
    p = np.array([[0.8, 0.2], [0.6, 0.4]])
    scores = calibration(table(np.log(p), [0, 1]), bins=2)
    assert scores.nll == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2, rel=1e-6)
    assert scores.brier == pytest.approx((2 * 0.2**2 + 2 * 0.6**2) / 2, rel=1e-6)
    assert scores.ece == pytest.approx((0.2 + 0.6) / 2, rel=1e-6)


def test_nll_equals_sklearn():
    logits, labels = calibrated_model(n=500)
    scores = calibration(table(logits, labels))
    assert scores.nll == pytest.approx(log_loss(labels, special.softmax(logits, 1)), rel=1e-5)


def test_calibrated_model_has_ece_near_zero_and_temperature_one():
    data = table(*calibrated_model())
    assert calibration(data).ece < 0.02
    assert calibrating_temperature(data) == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("factor", [0.3, 3.0])
def test_temperature_undoes_a_scaling_of_the_logits(factor):
    logits, labels = calibrated_model()
    scaled = table(logits * factor, labels)
    temperature = calibrating_temperature(scaled)
    assert temperature == pytest.approx(factor, rel=0.03)
    assert calibration(scaled, temperature=temperature).ece < 0.02 < calibration(scaled).ece


def test_model_without_an_error_calibrates_at_the_coldest_temperature():
    assert calibrating_temperature(table([[2, 0], [0, 2]], [0, 1])) == 0.01


def test_model_that_is_always_wrong_calibrates_at_the_hottest_temperature():
    assert calibrating_temperature(table([[2, 0], [0, 2]], [1, 0])) == 100.0


def test_equal_confidences_share_a_bin_whatever_their_order():
    confidence, correct = np.full(10, 0.7), np.array([1] * 7 + [0] * 3)
    assert expected_calibration_error(confidence, correct, bins=5) == pytest.approx(0.0, abs=1e-12)


def test_bins_hold_equal_mass():
    # one bin per value: the gaps of .1 and -.1 do not cancel
    confidence, correct = [0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9], [1, 1, 0, 1, 1, 1, 1, 0]
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(0.2)


def test_probabilities_sum_to_one_and_soften_with_temperature():
    data = table([[4.0, 0.0, 0.0]], [0])
    np.testing.assert_allclose(probabilities(data, 2.0).sum(axis=1), 1.0)
    assert probabilities(data, 10.0)[0, 0] < probabilities(data)[0, 0]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_bad_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature is"):
        calibration(table([[1, 0]], [0]), temperature=temperature)


def test_label_without_a_logit_is_refused():
    with pytest.raises(ValueError, match="class 2 has no logit"):
        calibration(table([[1, 0]], [2]))


@pytest.mark.parametrize(("confidence", "correct"), [([0.5, 0.5], [1]), ([], []), ([[0.5]], [[1]])])
def test_calibration_errors_need_as_many_of_both(confidence, correct):
    with pytest.raises(ValueError, match="allowed: \\[examples\\], both"):
        expected_calibration_error(confidence, correct)
