"""Figures of a comparison between Teacher, NDS and DS."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from kdplatform.reporting.drawing import DPI, figure_names, figure_text, own_style

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.data import Inputs

# Okabe and Ito's palette, which colour-blind readers can distinguish.
COLORS = {"Teacher": "#000000", "NDS": "#E69F00", "DS": "#0072B2"}
MARKERS = {"Teacher": "s", "NDS": "o", "DS": "D"}
SIGNIFICANT = "#D55E00"

_MOST_CLASSES = 40
# Classes and images of each on a sheet of samples.
_SHEET_ROWS, _SHEET_COLUMNS = 10, 10
# Accuracies span whole tenths, so that the figures of a study share their axes.
_ACCURACY_STEP = 0.1
# Each has two images of the figure, about 5 MB.
_FRAMES_KEPT = 12
# This level gives larger files than zlib's default, in a third of the time.
_PNG_COMPRESSION = 1


class Frame:
    """The common frame of figures of one structure, and the artists that show their data.

    Attributes:
        figure: with axes, names and legend.
        moving: artists whose data change, by name.
    """

    def __init__(self, figure: Figure, moving: dict[str, Any]) -> None:
        self.figure = figure
        self.moving = moving
        # matplotlib's own methods of a canvas have no types.
        self._canvas: Any = None
        self._background: Any = None

    @own_style()
    def png(self) -> bytes:
        """Returns the figure with its current data as a PNG file; the first call lays it out."""
        artists: list[Artist] = list(self.moving.values())
        if self._canvas is None:
            self.figure.set_dpi(DPI)
            self._canvas = FigureCanvasAgg(self.figure)
            for artist in artists:
                artist.set_animated(True)
            self._canvas.draw()
            self.figure.set_layout_engine("none")
            self._background = self._canvas.copy_from_bbox(self.figure.bbox)
        renderer = self._canvas.get_renderer()
        renderer.restore_region(self._background)
        for artist in artists:
            artist.draw(renderer)
        size = self._canvas.get_width_height()
        pixels = Image.frombuffer("RGBA", size, self._canvas.buffer_rgba(), "raw", "RGBA", 0, 1)
        file = io.BytesIO()
        opaque = pixels.convert("RGB")
        opaque.save(file, format="png", compress_level=_PNG_COMPRESSION, dpi=(DPI, DPI))
        return file.getvalue()


class Drawing:
    """A figure to be drawn: a frame, and the data in it.

    matplotlib spends most of its time on text and layout. Drawings of equal structure share both:
    the first costs some 200 ms, the next ones 10 to 20.

    Args:
        build: makes the frame from the structure.
        structure: the common properties of figures that share a frame.
        show: passes the data to the moving artists.
    """

    def __init__(
        self,
        build: Callable[..., Frame],
        structure: tuple[Any, ...],
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        self._build = build
        self._structure = structure
        self._show = show

    @own_style()
    def png(self) -> bytes:
        """Returns a PNG file."""
        frame = _shared_frame(self._build, self._structure)
        self._show(frame.moving)
        return frame.png()

    @own_style()
    def figure(self) -> Figure:
        """Returns a figure of its own."""
        frame = self._build(*self._structure)
        self._show(frame.moving)
        return frame.figure


@lru_cache(maxsize=_FRAMES_KEPT)
def _shared_frame(build: Callable[..., Frame], structure: tuple[Any, ...]) -> Frame:
    return build(*structure)


def class_accuracy_figure(
    accuracies: pd.DataFrame,
    significant: Mapping[str, Sequence[bool]],
    title: str,
    spread: pd.DataFrame | None = None,
) -> Drawing:
    """Draws per-class accuracies, with the classes marked where DS differs.

    Args:
        accuracies: fractions with one row per class (index: class names) and one column per label
            of `COLORS`.
        significant: whether each class differs between DS and the arm of this label.
        spread: standard deviations over seeds, with the shape of `accuracies`.
    """
    chosen = _most_different(accuracies)
    table = accuracies.iloc[chosen]
    bars = table * 0
    if spread is not None:
        bars += spread[table.columns].to_numpy()[chosen]
    if left_out := len(accuracies) - len(table):
        title += f" ({left_out} classes that differ less not shown)"
    rows = np.arange(len(table))

    def show(moving: dict[str, Any]) -> None:
        moving["title"].set_text(figure_text(title))
        for label, values in table.items():
            places = moving[f"points {label}"].get_ydata()
            moving[f"points {label}"].set_xdata(values)
            ends = zip(values - bars[label], values + bars[label], places, strict=True)
            moving[f"bars {label}"].set_segments([[(a, y), (b, y)] for a, b, y in ends])
        for position, (label, flags) in enumerate(significant.items()):
            marked = rows[np.asarray(flags)[chosen]]
            moving[f"marks {label}"].set_data(_mark_places(position, len(marked)), marked)

    every = figure_names(list(accuracies.index), "class")
    names = tuple(every[row] for row in chosen)
    limits = _accuracy_limits(table - bars, table + bars)
    structure = (names, tuple(table.columns), tuple(significant), limits)
    return Drawing(_class_frame, structure, show)


def _class_frame(
    names: tuple[str, ...],
    labels: tuple[str, ...],
    references: tuple[str, ...],
    limits: tuple[float, float],
) -> Frame:
    rows = np.arange(len(names))
    figure = Figure(figsize=(7.5, 1.6 + 0.33 * len(rows)), layout="constrained")
    axes = figure.subplots()
    moving: dict[str, Any] = {"title": axes.set_title(" ")}
    for position, label in enumerate(labels):
        # The arms of a class are side by side, so that equal accuracies stay visible.
        places = rows + 0.22 * (position - (len(labels) - 1) / 2)
        bars = LineCollection([], colors=COLORS[label], linewidths=1)
        bars.set_in_layout(False)  # empty bars would be placed in a corner by the layout
        moving[f"bars {label}"] = axes.add_collection(bars, autolim=False)
        (moving[f"points {label}"],) = axes.plot(
            np.full(len(rows), limits[0]),
            places,
            marker=MARKERS[label],
            color=COLORS[label],
            label=label,
            markersize=5,
            linestyle="none",
            clip_on=False,
        )
    for position, label in enumerate(references):
        # These points make the layout leave room for the marks.
        (moving[f"marks {label}"],) = axes.plot(
            _mark_places(position, len(rows)),
            rows,
            linestyle="none",
            marker=MARKERS[label],
            markerfacecolor="none",
            color=SIGNIFICANT,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
            label=f"DS differs from {label} (p < .05)",
        )
    axes.set_xlim(limits)
    axes.set_yticks(rows, names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("test accuracy")
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return Frame(figure, moving)


def _mark_places(position: int, count: int) -> np.ndarray:
    """Returns the positions of the marks of a reference, right of the axes."""
    return np.full(count, 1.02 + 0.025 * position)


def group_accuracy_figure(groups: pd.DataFrame, title: str) -> Drawing:
    """Draws the accuracy of every group, one panel per attribute.

    Args:
        groups: columns attribute, group, accuracy, role (a label of `COLORS`).
    """
    panels = tuple(
        (attribute, tuple(part["group"].unique()))
        for attribute, part in groups.groupby("attribute", sort=False)
    )
    labels = tuple(groups["role"].unique())
    accuracy = groups.set_index(["attribute", "role", "group"])["accuracy"]

    def show(moving: dict[str, Any]) -> None:
        moving["title"].set_text(figure_text(title))
        for attribute, names in panels:
            for label in labels:
                values = [accuracy.get((attribute, label, name), np.nan) for name in names]
                moving[f"{attribute} {label}"].set_ydata(values)

    limits = _accuracy_limits(groups["accuracy"])
    return Drawing(_group_frame, (panels, labels, limits), show)


def _group_frame(
    attributes: tuple[tuple[str, tuple[object, ...]], ...],
    labels: tuple[str, ...],
    limits: tuple[float, float],
) -> Frame:
    figure = Figure(figsize=(1 + 4.5 * len(attributes), 4), layout="constrained")
    panels = figure.subplots(1, len(attributes), sharey=True, squeeze=False)[0]
    moving: dict[str, Any] = {"title": figure.suptitle(" ")}
    titles = figure_names([attribute for attribute, _ in attributes], "attribute")
    for axes, (attribute, names), title in zip(panels, attributes, titles, strict=True):
        for label in labels:
            (moving[f"{attribute} {label}"],) = axes.plot(
                range(len(names)),
                np.full(len(names), limits[0]),
                linestyle="none",
                marker=MARKERS[label],
                color=COLORS[label],
                label=label,
                clip_on=False,
            )
        shown = figure_names(names, "group")
        axes.set_xticks(range(len(names)), shown, rotation=60, ha="right")
        axes.set_xlabel(title)
        axes.grid(axis="y", alpha=0.3)
    panels[0].set_ylim(limits)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("test accuracy of the group")
    figure.legend(
        *panels[0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    return Frame(figure, moving)


def disagreement_figure(
    matrices: Mapping[str, pd.DataFrame], class_names: Sequence[str], title: str
) -> Drawing:
    """Draws for each label how often it predicts one class (row) and DS another (column).

    Args:
        matrices: counts [classes, classes] without diagonal, by the label compared with DS.
    """
    counts = {label: matrix.to_numpy() for label, matrix in matrices.items()}

    def show(moving: dict[str, Any]) -> None:
        moving["title"].set_text(figure_text(title))
        for label, matrix in counts.items():
            moving[label].set_data(matrix)

    largest = _rounded_up(max(1, *(int(matrix.max()) for matrix in counts.values())))
    return Drawing(_disagreement_frame, (tuple(counts), tuple(class_names), largest), show)


def _disagreement_frame(
    labels: tuple[str, ...], class_names: tuple[str, ...], largest: int
) -> Frame:
    figure = Figure(figsize=(1.5 + 5 * len(labels), 5), layout="constrained")
    panels = figure.subplots(1, len(labels), squeeze=False)[0]
    moving: dict[str, Any] = {"title": figure.suptitle(" ")}
    nothing = np.zeros((len(class_names), len(class_names)))
    for axes, label in zip(panels, labels, strict=True):
        moving[label] = axes.imshow(nothing, cmap="Blues", vmin=0, vmax=largest)
        # Drawn again on top, because the image covers half of each line.
        moving |= {f"{label} {side}": spine for side, spine in axes.spines.items()}
        _name_classes(axes, class_names)
        axes.set_ylabel(f"{label} predicts")
        axes.set_xlabel("DS predicts")
    figure.colorbar(moving[labels[0]], ax=list(panels), label="test examples", shrink=0.8)
    return Frame(figure, moving)


def curves_figure(curves: pd.DataFrame, title: str) -> Drawing:
    """Draws loss and accuracy over the epochs.

    The training loss is the objective's; the validation loss is always the cross entropy.

    Args:
        curves: one row per epoch: epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    """
    names = [f"{split}_{quantity}" for quantity in ("loss", "accuracy") for split in _SPLIT_COLORS]

    def show(moving: dict[str, Any]) -> None:
        moving["title"].set_text(figure_text(title))
        for name in names:
            # Validation may not have been measured after every epoch.
            moving[name].set_data(*curves[["epoch", name]].dropna().to_numpy().T)

    structure = (
        _limits(curves["epoch"]),
        _limits(curves[["train_loss", "val_loss"]]),
        _accuracy_limits(curves[["train_accuracy", "val_accuracy"]]),
    )
    return Drawing(_curves_frame, structure, show)


_SPLIT_COLORS = {"train": "#0072B2", "val": "#E69F00"}


def _curves_frame(
    epochs: tuple[float, float], losses: tuple[float, float], accuracies: tuple[float, float]
) -> Frame:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    moving: dict[str, Any] = {"title": figure.suptitle(" ")}
    limits = {"loss": losses, "accuracy": accuracies}
    for axes, quantity in zip(figure.subplots(1, 2), limits, strict=True):
        for split, color in _SPLIT_COLORS.items():
            label = split
            if quantity == "loss":
                label += " (objective)" if split == "train" else " (cross entropy)"
            (moving[f"{split}_{quantity}"],) = axes.plot([], [], color=color, label=label)
        axes.set_xlim(epochs)
        axes.set_ylim(limits[quantity])
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        # A place where falling and rising curves do not run.
        axes.legend(frameon=False, loc="upper right" if quantity == "loss" else "lower right")
    return Frame(figure, moving)


@own_style()
def contact_sheet(
    inputs: "Inputs", labels: "Tensor", class_names: Sequence[str], title: str
) -> Figure:
    """Draws up to ten images of each of up to ten classes, one class per row.

    Args:
        inputs: uint8 images [N, channels, height, width], one or three channels.
    """
    shown = figure_names(class_names, "class")[:_SHEET_ROWS]
    if len(shown) < len(class_names):
        title += f" of {len(shown)} of {len(class_names)} classes"
    sheet = _sheet(inputs, labels, len(shown))
    figure = Figure(figsize=(8, 0.6 + 0.75 * len(shown)), layout="constrained")
    # One image for all: axes of their own take a hundred times as long to draw.
    axes = figure.subplots()
    axes.imshow(sheet, cmap="gray", vmin=0, vmax=255)  # of one channel; colors stay
    middles = (np.arange(len(shown)) + 0.5) * len(sheet) / len(shown)
    axes.set_yticks(middles - 0.5, shown)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    figure.suptitle(figure_text(title))
    return figure


def _sheet(inputs: "Inputs", labels: "Tensor", classes: int) -> npt.NDArray[np.uint8]:
    """Returns images in rows of a class each, on white. [height, width, channels]."""
    channels, height, width = inputs.shape[1:]
    gap = 1 + max(height, width) // 16
    tile_height, tile_width = height + gap, width + gap
    sheet = np.full((classes * tile_height, _SHEET_COLUMNS * tile_width, channels), 255, np.uint8)
    for row in range(classes):
        chosen = (labels == row).nonzero().flatten()
        # Evenly spread, because neighbours in a generated dataset differ in one factor only.
        count = min(_SHEET_COLUMNS, len(chosen))
        picks = chosen[np.linspace(0, len(chosen) - 1, count).astype(int)]
        top = row * tile_height + gap // 2
        for column, image in enumerate(inputs[picks]):
            left = column * tile_width + gap // 2
            pixels = image.permute(1, 2, 0).numpy()
            sheet[top : top + height, left : left + width] = pixels
    return sheet


def _most_different(accuracies: pd.DataFrame) -> list[int]:
    """Returns the rows to draw: all, or those with the largest differences between arms."""
    if len(accuracies) <= _MOST_CLASSES:
        return list(range(len(accuracies)))
    gaps = accuracies.max(axis=1) - accuracies.min(axis=1)
    return sorted(np.argsort(-gaps.to_numpy(), kind="stable")[:_MOST_CLASSES].tolist())


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    if len(class_names) <= _MOST_CLASSES:
        shown = figure_names(class_names, "class")
        axes.set_xticks(range(len(class_names)), shown, rotation=90)
        axes.set_yticks(range(len(class_names)), shown)


def _accuracy_limits(*accuracies: pd.DataFrame | pd.Series) -> tuple[float, float]:
    """Returns limits in tenths that enclose all accuracies."""
    present = np.concatenate([np.ravel(values) for values in accuracies])
    present = present[np.isfinite(present)]
    if not len(present):
        return 0.0, 1.0
    low, high = float(present.min()), float(present.max())
    least = max(0, math.floor(low / _ACCURACY_STEP - 0.1))
    most = min(round(1 / _ACCURACY_STEP), math.ceil(high / _ACCURACY_STEP + 0.1))
    return least * _ACCURACY_STEP, max(most, least + 1) * _ACCURACY_STEP


def _limits(values: pd.DataFrame | pd.Series) -> tuple[float, float]:
    """Returns round limits that enclose all values."""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    # Steps have the magnitude of the span, so that there are few different limits.
    step = 10.0 ** math.floor(math.log10(high - low)) if high > low else 1.0
    least, most = math.floor(low / step), math.ceil(high / step)
    return least * step, max(most, least + 1) * step


def _rounded_up(count: int) -> int:
    """Returns the next number with a single digit that is not zero."""
    step: int = 10 ** (len(str(count)) - 1)
    return -(-count // step) * step
