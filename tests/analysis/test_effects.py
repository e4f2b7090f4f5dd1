import numpy as np
import pandas as pd
import pytest
from scipy import stats

from kdplatform.analysis.classwise import ArmAccuracies
from kdplatform.analysis.effects import (
    class_detectable_shift,
    detectable_shift,
    power_of_shift,
    trend_over_temperature,
)


def test_detectable_shift_is_found_with_the_power_asked_for():
    rng = np.random.default_rng(0)
    shift = detectable_shift(1.0, 5, 5)
    a, b = rng.normal(0, 1, (5, 20_000)), rng.normal(shift, 1, (5, 20_000))
    assert np.mean(stats.ttest_ind(a, b).pvalue < 0.05) == pytest.approx(0.8, abs=0.01)
    # Welch's degrees of freedom cost a little
    welch = np.mean(stats.ttest_ind(a, b, equal_var=False).pvalue < 0.05)
    assert 0.76 < welch < 0.8


@pytest.mark.parametrize(("alpha", "power"), [(0.05, 0.8), (0.001, 0.99), (0.05, 0.1)])
@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_power_of_the_detectable_shift_is_the_power(alpha, power, seeds):
    shift = detectable_shift(0.3, seeds, seeds, alpha=alpha, power=power)
    assert power_of_shift(shift, 0.3, seeds, seeds, alpha) == pytest.approx(power)


def test_power_without_a_shift_is_the_level():
    assert power_of_shift(0.0, 1.0, 5, 5, 0.05) == pytest.approx(0.05)


def arms(deviation=0.02):
    rng = np.random.default_rng(4)
    values = 0.7 + rng.normal(0, deviation, (2, 5, 400))
    classes = np.arange(400)
    return [ArmAccuracies(classes, classes, np.ones(400), v, v.mean(axis=1)) for v in values]


@pytest.mark.parametrize("normalisation", ["ratio", "difference"])
def test_class_shift_uses_the_classes_deviation_in_accuracy_points(normalisation):
    shift = class_detectable_shift(*arms(), normalisation=normalisation)
    assert shift == pytest.approx(detectable_shift(0.02, 5, 5), rel=0.05)


def test_class_shift_is_undefined_without_variance():
    assert np.isnan(class_detectable_shift(*arms(deviation=0.0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"deviation": 0.0, "seeds_a": 5, "seeds_b": 5}, "deviation is 0.0"),
        ({"deviation": 1.0, "seeds_a": 1, "seeds_b": 5}, "seeds_a is 1"),
        ({"deviation": 1.0, "seeds_a": 5, "seeds_b": 5, "power": 0.01}, "power is 0.01"),
    ],
)
def test_bad_planning_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        detectable_shift(**arguments)


def runs(slope, temperatures=(1, 2, 3, 5, 10), seeds=5, noise=0.1):
    rng = np.random.default_rng(5)
    return pd.DataFrame(
        [
            {"temperature": t, "seed": s, "eod": slope * t + rng.normal(0, noise)}
            for s in range(seeds)
            for t in temperatures
        ]
    )


def test_trend_equals_pages_test_of_scipy():
    data = runs(-0.05)
    grid = data.pivot(index="seed", columns="temperature", values="eod").to_numpy()
    result = trend_over_temperature(data, "eod")
    assert result.p_decreasing == pytest.approx(stats.page_trend_test(-grid).pvalue)
    assert result.p_increasing == pytest.approx(stats.page_trend_test(grid).pvalue)
    assert result.p_value == pytest.approx(2 * result.p_decreasing)
    assert result.method == "exact"
    assert result.spearman < -0.5


def test_trend_does_not_depend_on_the_order_of_runs():
    data = runs(0.02)
    shuffled = data.sample(frac=1, random_state=1)
    assert trend_over_temperature(data, "eod") == trend_over_temperature(shuffled, "eod")


def test_no_trend_is_rarely_called_one():
    rng = np.random.default_rng(6)
    p = []
    for _ in range(200):
        data = runs(0.0, temperatures=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
        data["eod"] = rng.normal(size=len(data))
        p.append(trend_over_temperature(data, "eod").p_value)
    interval = stats.binomtest(int(np.sum(np.array(p) < 0.05)), 200).proportion_ci(0.99)
    assert interval.low < 0.05 < interval.high


def test_seeds_without_every_temperature_are_dropped_and_listed():
    data = runs(-0.05)
    missing = (data["seed"] == 3) & (data["temperature"] == 10)
    result = trend_over_temperature(data[~missing], "eod")
    assert result.dropped_seeds == (3,)
    assert result.seeds == (0, 1, 2, 4)


@pytest.mark.parametrize(("seeds", "temperatures"), [(1, (1, 2, 3)), (5, (1, 2))])
def test_too_little_data_gives_no_test_and_says_why(seeds, temperatures):
    result = trend_over_temperature(runs(1.0, temperatures, seeds), "eod")
    assert np.isnan(result.p_value)
    assert "no test" in result.note


def test_value_that_never_changes_has_no_trend():
    result = trend_over_temperature(runs(0.0, noise=0.0), "eod")
    assert result.p_value == 1.0
    assert result.spearman == 0.0


def test_bad_runs_are_refused():
    with pytest.raises(ValueError, match="runs lack column 'dpd'"):
        trend_over_temperature(runs(0.0), "dpd")
    with pytest.raises(ValueError, match=r"temperature 1\.0, seed 0\.0 occurs twice"):
        trend_over_temperature(pd.concat([runs(0.0), runs(0.0)]), "eod")


def test_a_temperature_that_is_not_known_is_refused():
    runs = pd.DataFrame({"temperature": [1, 2, np.nan], "seed": 0, "value": [1.0, 2.0, 3.0]})
    with pytest.raises(ValueError, match="temperature is nan; allowed: finite"):
        trend_over_temperature(runs, "value")
