"""Figures of a sweep's run: metrics against the temperature, on an axis that says so."""

import numpy as np
import pandas as pd
import pytest

from kdplatform.reporting.over_temperature import temperature_figures

NAN = float("nan")


def row(role: str, method: str, temperature: float, mean: float, spread: float = 0.1) -> object:
    return {
        "role": role, "method": method, "temperature": temperature, "metric": "test/accuracy",
        "mean": mean, "low": mean - spread, "high": mean + spread,
    }  # fmt: skip


def test_arms_stand_at_their_temperatures_with_intervals() -> None:
    rows = [
        row("Teacher", "", NAN, 0.9, NAN),
        row("NDS", "", NAN, 0.8),
        *(row("DS", "kd", t, 0.8 + t / 100) for t in (1.0, 10.0, 40.0)),
    ]
    [(name, figure)] = temperature_figures(pd.DataFrame(rows))
    assert name == "over_T_test_accuracy"
    [axes] = figure.axes
    assert axes.get_xlabel() == "temperature T"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "10", "40"]
    curve = next(line for line in axes.lines if line.get_label() == "DS")
    assert np.asarray(curve.get_ydata()) == pytest.approx([0.81, 0.9, 1.2])
    assert {"DS", "NDS", "Teacher"} <= {str(line.get_label()) for line in axes.lines}
    bars = next(c for c in axes.collections if len(c.get_paths()) == 3)
    assert bars.get_paths()[0].vertices[:, 1] == pytest.approx([0.71, 0.91])


def test_methods_have_curves_of_their_own_and_names_in_the_legend() -> None:
    rows = [row("DS", method, t, 0.5) for method in ("kd", "dkd") for t in (1.0, 2.0)]
    [(_, figure)] = temperature_figures(pd.DataFrame(rows))
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["DS kd", "DS dkd"]


def test_arms_without_a_temperature_have_no_figure() -> None:
    assert list(temperature_figures(pd.DataFrame([row("DS", "cist", NAN, 0.5)]))) == []
