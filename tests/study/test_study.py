"""The parts a study is made of, and its one frame of metrics."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from kdplatform.predictions import Predictions
from kdplatform.roles import Role
from kdplatform.study.metrics import class_shift, group_metrics, model_metrics
from kdplatform.study.study import NDS, TEACHER, Arm, Grid, Study, complete_grid, distilled_arm


def test_arms_are_named_by_what_varies() -> None:
    assert distilled_arm(4).title() == "DS T=4"
    assert distilled_arm(0.25, "rld").title(with_method=True) == "DS rld T=0.25"
    both = Arm(Role.DISTILLED, "kd", (("temperature", 4.0), ("alpha", 0.5)))
    assert both.title() == "DS T=4 alpha=0.5"
    assert (TEACHER.title(with_method=True), NDS.title()) == ("Teacher", "NDS")


def test_methods_are_named_where_a_study_has_several(synthetic: Callable[..., Study]) -> None:
    one = synthetic(temperatures=(4.0,), seeds=(0,), examples=200)
    models = one.arms[distilled_arm(4.0)]
    two = Study("two", one.class_names, {**one.arms, distilled_arm(4.0, "rld"): models})
    assert list(one.names.values()) == ["Teacher", "NDS", "DS T=4"]
    assert list(two.names.values()) == ["Teacher", "NDS", "DS kd T=4", "DS rld T=4"]
    assert list(two.metrics["arm"]) == list(two.names.values())
    assert list(two.metrics["method"].iloc[2:]) == ["kd", "rld"]


def test_the_frame_has_a_row_per_model_under_the_names_of_runs(
    synthetic: Callable[..., Study],
) -> None:
    study = synthetic(temperatures=(1.0, 4.0), seeds=(0, 1), examples=400)
    frame = study.metrics
    assert len(frame) == 4 * 2
    test = study.arms[distilled_arm(4.0)][1].test
    row = frame[(frame["arm"] == "DS T=4") & (frame["seed"] == 1)].iloc[0]
    assert row["test/accuracy"] == test.accuracy
    for name, value in group_metrics(test, "texture", 30).items():
        assert row[name] == pytest.approx(value)
    assert {"disagreement/teacher", "classwise/n_sc", "test/ece"} <= set(frame.columns)
    assert frame.loc[frame["role"] == "teacher", "classwise/n_sc"].isna().all()


def test_a_run_logs_what_the_frame_has(generator: object) -> None:
    table = Predictions.of(generator.table(np.full((4, 3), 0.8), 0))  # type: ignore[attr-defined]
    logged = model_metrics(table, table, ["color"], 30, "digits")
    scores = {"test/ece", "test/brier", "test/nll", "val/calibrating_temperature"}
    assert scores | set(group_metrics(table, "color", 30)) <= set(logged)


def test_the_largest_part_without_gaps() -> None:
    assert complete_grid({1.0: [0, 1, 2], 2.0: [0, 1], 4.0: [0, 1, 2]}) == Grid(
        (1.0, 2.0, 4.0), (0, 1)
    )
    assert complete_grid({1.0: [0, 1, 2, 3], 2.0: [0], 4.0: [0, 1, 2, 3]}) == Grid(
        (1.0, 4.0), (0, 1, 2, 3)
    )
    assert complete_grid({1.0: [0, 1], 2.0: [1, 2], 4.0: [1]}) == Grid((1.0, 2.0, 4.0), (1,))
    # ten temperatures of one seed are more runs, but no test can use them
    wide = {float(t): [0, 1, 2] if t < 3 else [0] for t in range(10)}
    assert complete_grid(wide) == Grid((0.0, 1.0, 2.0), (0, 1, 2))
    assert complete_grid({}) == Grid((), ())


def test_the_class_shift_ignores_overall_accuracy() -> None:
    labels = np.repeat([0, 1], 100)

    def model(right_0: int, right_1: int) -> Predictions:
        right = np.r_[np.arange(100) < right_0, np.arange(100) < right_1]
        predicted = np.where(right, labels, 1 - labels)
        content = {"id": np.arange(200), "label": labels, "prediction": predicted}
        return Predictions.of(pd.DataFrame(content))

    assert class_shift(model(80, 80), model(40, 40)) == pytest.approx(0)
    assert class_shift(model(80, 80), model(90, 30)) == pytest.approx(0.5)
