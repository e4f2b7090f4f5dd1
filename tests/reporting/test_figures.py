"""Figures show the numbers they are given."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from kdplatform.reporting import figures


def drawn(figure: Figure) -> None:
    """Draws the figure for real: layout and fonts can fail too."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def accuracies(classes: int) -> pd.DataFrame:
    names = [f"class {number}" for number in range(classes)]
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.random((classes, 3)), index=names, columns=["Teacher", "NDS", "DS"])


def test_class_accuracies_are_drawn_one_row_per_class() -> None:
    table = accuracies(4)
    figure = figures.class_accuracy_figure(table, {"Teacher": [True, False, True, False]}, "title")
    drawn(figure)
    [axes] = figure.axes
    by_label = {line.get_label(): line for line in axes.lines}
    assert [text.get_text() for text in axes.get_yticklabels()] == list(table.index)
    marked = by_label["DS differs from Teacher (p < .05)"]
    assert list(marked.get_ydata()) == [0, 2]
    points = [container.lines[0].get_xdata() for container in axes.containers]
    for label, values in zip(table.columns, points, strict=True):
        np.testing.assert_array_equal(values, table[label])


def test_the_spread_over_seeds_is_drawn_as_bars() -> None:
    table = accuracies(3)
    spread = table / 10
    figure = figures.class_accuracy_figure(table, {}, "title", spread)
    drawn(figure)
    for container, label in zip(figure.axes[0].containers, table.columns, strict=True):
        [segments] = (bars.get_segments() for bars in container.lines[2])
        halves = [(segment[1][0] - segment[0][0]) / 2 for segment in segments]
        np.testing.assert_allclose(halves, spread[label])


def test_of_very_many_classes_those_that_differ_most_are_drawn() -> None:
    table = accuracies(200)
    figure = figures.class_accuracy_figure(table, {"NDS": [False] * 200}, "title")
    drawn(figure)
    [axes] = figure.axes
    shown = [text.get_text() for text in axes.get_yticklabels()]
    gaps = (table.max(axis=1) - table.min(axis=1)).sort_values(ascending=False)
    assert set(shown) == set(gaps.index[:40])
    assert shown == [name for name in table.index if name in shown]
    assert "160 classes that differ less not shown" in axes.get_title()


def test_every_attribute_has_a_panel_with_its_groups() -> None:
    groups = pd.DataFrame(
        [
            (attribute, group, value, role)
            for role, value in (("Teacher", 0.9), ("DS", 0.5))
            for attribute, names in (("color", ["red", "blue"]), ("texture", ["dots"]))
            for group in names
        ],
        columns=["attribute", "group", "accuracy", "role"],
    )
    figure = figures.group_accuracy_figure(groups, "title")
    drawn(figure)
    color, texture = figure.axes
    assert [text.get_text() for text in color.get_xticklabels()] == ["red", "blue"]
    assert [text.get_text() for text in texture.get_xticklabels()] == ["dots"]
    assert {line.get_label(): list(line.get_ydata()) for line in color.lines} == {
        "Teacher": [0.9, 0.9],
        "DS": [0.5, 0.5],
    }


@pytest.mark.parametrize("counts", [[[0, 3], [1, 0]], [[0, 0], [0, 0]]])
def test_disagreement_is_drawn_on_one_scale(counts: list[list[int]]) -> None:
    matrices = {"Teacher": pd.DataFrame(counts), "NDS": pd.DataFrame([[0, 7], [0, 0]])}
    figure = figures.disagreement_figure(matrices, ["circle", "square"], "title")
    drawn(figure)
    images = [axes.images[0] for axes in figure.axes[:2]]
    np.testing.assert_array_equal(images[0].get_array(), counts)
    assert [image.get_clim() for image in images] == [(0, 7), (0, 7)]
    assert figure.axes[0].get_ylabel() == "Teacher predicts"


def test_curves_are_drawn_over_the_epochs() -> None:
    curves = pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "train_loss": [3.0, 2.0, 1.0],
            "val_loss": [3.5, 2.5, 2.0],
            "train_accuracy": [0.1, 0.2, 0.3],
            "val_accuracy": [0.1, 0.15, 0.2],
        }
    )
    figure = figures.curves_figure(curves, "title")
    drawn(figure)
    loss, accuracy = figure.axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for line, split in zip(axes.lines, ("train", "val"), strict=True):
            assert str(line.get_label()).startswith(split)
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), curves[f"{split}_{quantity}"])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contact_sheet_shows_images_of_each_class_in_its_row(channels: int) -> None:
    labels = torch.tensor([0, 1] * 15)
    inputs = (100 * labels[:, None, None, None] + torch.arange(30)[:, None, None, None]).expand(
        30, channels, 4, 4
    )
    figure = figures.contact_sheet(inputs.to(torch.uint8), labels, ["even", "odd"], "title")
    drawn(figure)
    rows = np.array(figure.axes).reshape(2, 10)
    for row, first in zip(rows, (0, 101), strict=True):
        values = [int(np.asarray(axes.images[0].get_array()).flat[0]) for axes in row]
        assert values[0] == first
        assert len(set(values)) == 10
        assert all((value - first) % 2 == 0 for value in values)


def test_a_class_with_few_images_leaves_its_row_short() -> None:
    labels = torch.tensor([0] * 3 + [1] * 12)
    inputs = torch.zeros(15, 1, 2, 2, dtype=torch.uint8)
    figure = figures.contact_sheet(inputs, labels, ["rare", "common"], "title")
    drawn(figure)
    rows = np.array(figure.axes).reshape(2, 10)
    assert [sum(bool(axes.images) for axes in row) for row in rows] == [3, 10]
