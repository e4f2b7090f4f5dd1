"""Figures show the numbers they are given."""

import io

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from kdplatform.reporting import figures
from kdplatform.reporting.drawing import DPI


def drawn(figure: Figure) -> None:
    """Draws the figure for real: layout and fonts can fail too."""
    figure.savefig(io.BytesIO(), format="png", dpi=40)


def accuracies(classes: int) -> pd.DataFrame:
    names = [f"class {number}" for number in range(classes)]
    rng = np.random.default_rng(0)
    return pd.DataFrame(rng.random((classes, 3)), index=names, columns=["Teacher", "NDS", "DS"])


def test_class_accuracies_are_drawn_one_row_per_class() -> None:
    table = accuracies(4)
    figure = figures.class_accuracy_figure(
        table, {"Teacher": [True, False, True, False]}, "title"
    ).figure()
    drawn(figure)
    [axes] = figure.axes
    by_label = {line.get_label(): line for line in axes.lines}
    assert [text.get_text() for text in axes.get_yticklabels()] == list(table.index)
    marked = by_label["DS differs from Teacher (p < .05)"]
    assert list(marked.get_ydata()) == [0, 2]
    for label in table.columns:
        np.testing.assert_array_equal(by_label[label].get_xdata(), table[label])


def test_the_spread_over_seeds_is_drawn_as_bars() -> None:
    table = accuracies(3)
    spread = table.reset_index(drop=True) / 10
    figure = figures.class_accuracy_figure(table, {}, "title", spread).figure()
    drawn(figure)
    for bars, label in zip(figure.axes[0].collections, table.columns, strict=True):
        segments = bars.get_segments()
        halves = [(segment[1][0] - segment[0][0]) / 2 for segment in segments]
        np.testing.assert_allclose(halves, table[label] / 10)


def test_of_very_many_classes_those_that_differ_most_are_drawn() -> None:
    table = accuracies(200)
    figure = figures.class_accuracy_figure(table, {"NDS": [False] * 200}, "title").figure()
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
    figure = figures.group_accuracy_figure(groups, "title").figure()
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
    figure = figures.disagreement_figure(matrices, ["circle", "square"], "title").figure()
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
    figure = figures.curves_figure(curves, "title").figure()
    drawn(figure)
    loss, accuracy = figure.axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        for line, split in zip(axes.lines, ("train", "val"), strict=True):
            assert str(line.get_label()).startswith(split)
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3])
            np.testing.assert_array_equal(line.get_ydata(), curves[f"{split}_{quantity}"])


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_figures_that_share_a_frame_show_their_own_data() -> None:
    first, second = accuracies(4).clip(0.31, 0.69), accuracies(4).clip(0.35, 0.65)
    drawings = [
        figures.class_accuracy_figure(table, {"NDS": flags}, "title")
        for table, flags in (
            (first, [True, False, False, False]),
            (second, [False, True, True, False]),
            (first, [True, False, False, False]),
        )
    ]
    once, other, again = (pixels(drawing.png()) for drawing in drawings)
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()


def test_a_shared_frame_gives_the_figure_that_is_drawn_afresh() -> None:
    counts = [pd.DataFrame([[0, count], [1, 0]]) for count in (3, 2, 3)]
    for matrix in counts:
        drawing = figures.disagreement_figure({"NDS": matrix}, ["circle", "square"], "title")
        shared = pixels(drawing.png()).astype(int)
    file = io.BytesIO()
    drawing.figure().savefig(file, dpi=DPI)
    # Both draw the spines, once below the image and once above it.
    apart = np.abs(shared - pixels(file.getvalue())).max(axis=2)
    assert (apart > 40).mean() < 0.002


def tiles(figure: Figure, rows: int, size: int = 4) -> list[list[np.ndarray]]:
    """The images of a contact sheet, without the gaps between them."""
    [axes] = figure.axes
    [image] = axes.images
    sheet = np.asarray(image.get_array())
    height, width = sheet.shape[0] // rows, sheet.shape[1] // 10
    return [
        [sheet[y * height :, x * width :][:size, :size] for x in range(10)] for y in range(rows)
    ]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_contact_sheet_shows_images_of_each_class_in_its_row(channels: int) -> None:
    labels = torch.tensor([0, 1] * 15)
    inputs = (100 * labels[:, None, None, None] + torch.arange(30)[:, None, None, None]).expand(
        30, channels, 4, 4
    )
    figure = figures.contact_sheet(inputs.to(torch.uint8), labels, ["even", "odd"], "title")
    drawn(figure)
    for row, first in zip(tiles(figure, 2), (0, 101), strict=True):
        values = [int(tile.flat[0]) for tile in row]
        assert all((tile == value).all() for tile, value in zip(row, values, strict=True))
        assert values[0] == first
        assert len(set(values)) == 10
        assert all((value - first) % 2 == 0 for value in values)


def test_a_contact_sheet_says_how_many_classes_it_has() -> None:
    inputs, labels = torch.zeros(12, 1, 2, 2, dtype=torch.uint8), torch.arange(12)
    sheet = figures.contact_sheet(inputs, labels, [f"c{i}" for i in range(12)], "samples")
    assert sheet.get_suptitle() == "samples of 10 of 12 classes"


def test_a_class_with_few_images_leaves_its_row_short() -> None:
    labels = torch.tensor([0] * 3 + [1] * 12)
    inputs = torch.zeros(15, 1, 4, 4, dtype=torch.uint8)
    figure = figures.contact_sheet(inputs, labels, ["rare", "common"], "title")
    drawn(figure)
    filled = [[bool((tile == 0).all()) for tile in row] for row in tiles(figure, 2)]
    assert [sum(row) for row in filled] == [3, 10]
    white = [bool((tile == 255).all()) for tile in tiles(figure, 2)[0][3:]]
    assert all(white)
