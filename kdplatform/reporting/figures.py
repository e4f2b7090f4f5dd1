"""Figures of a comparison between Teacher, NDS and DS."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

if TYPE_CHECKING:
    from torch import Tensor

    from kdplatform.data import Inputs

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLORS = {"Teacher": "#000000", "NDS": "#E69F00", "DS": "#0072B2"}
MARKERS = {"Teacher": "s", "NDS": "o", "DS": "D"}
SIGNIFICANT = "#D55E00"

_MOST_CLASSES = 40


def class_accuracy_figure(
    accuracies: pd.DataFrame,
    significant: Mapping[str, Sequence[bool]],
    title: str,
    spread: pd.DataFrame | None = None,
) -> Figure:
    """Draws per-class accuracies, with the classes marked where DS differs.

    Args:
        accuracies: one row per class, index the class names, one column per label of `COLORS`,
            fractions.
        significant: which classes differ between DS and the arm of this label.
        spread: standard deviations over seeds, shaped as `accuracies`.
    """
    chosen = _most_different(accuracies)
    table = accuracies.iloc[chosen]
    figure = Figure(figsize=(7.5, 1.6 + 0.33 * len(table)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(table))
    for position, label in enumerate(accuracies.columns):
        # The arms of a class lie beside each other, so that equal accuracies stay visible.
        offset = 0.22 * (position - (len(accuracies.columns) - 1) / 2)
        error = None if spread is None else spread[label].iloc[chosen]
        axes.errorbar(
            table[label],
            rows + offset,
            xerr=error,
            fmt=MARKERS[label],
            color=COLORS[label],
            label=label,
            markersize=5,
            linewidth=1,
        )
    for position, (label, flags) in enumerate(significant.items()):
        marked = rows[np.asarray(flags)[chosen]]
        (marks,) = axes.plot(
            np.full(len(marked), 1.02 + 0.025 * position),
            marked,
            linestyle="none",
            marker=MARKERS[label],
            markerfacecolor="none",
            color=SIGNIFICANT,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
            label=f"DS differs from {label} (p < .05)",
        )
        # Without points its extent is unknown, and the layout would leave a gap for it.
        marks.set_in_layout(len(marked) > 0)
    axes.set_yticks(rows, [str(name) for name in table.index])
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("test accuracy")
    axes.grid(axis="x", alpha=0.3)
    left_out = len(accuracies) - len(table)
    axes.set_title(
        title + (f" ({left_out} classes that differ less not shown)" if left_out else "")
    )
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def group_accuracy_figure(groups: pd.DataFrame, title: str) -> Figure:
    """Draws the accuracy of every group, one panel per attribute.

    Args:
        groups: columns attribute, group, accuracy, role (a label of `COLORS`).
    """
    attributes = list(dict.fromkeys(groups["attribute"]))
    figure = Figure(figsize=(1 + 4.5 * len(attributes), 4), layout="constrained")
    panels = figure.subplots(1, len(attributes), sharey=True, squeeze=False)[0]
    for axes, attribute in zip(panels, attributes, strict=True):
        part = groups[groups["attribute"] == attribute]
        names = list(dict.fromkeys(part["group"]))
        for label, rows in part.groupby("role", sort=False):
            values = rows.set_index("group")["accuracy"].reindex(names)
            axes.plot(
                range(len(names)),
                values,
                linestyle="none",
                marker=MARKERS[str(label)],
                color=COLORS[str(label)],
                label=str(label),
            )
        axes.set_xticks(range(len(names)), [str(n) for n in names], rotation=60, ha="right")
        axes.set_xlabel(attribute)
        axes.grid(axis="y", alpha=0.3)
    panels[0].yaxis.set_major_formatter(PercentFormatter(1))
    panels[0].set_ylabel("test accuracy of the group")
    figure.suptitle(title)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def disagreement_figure(
    matrices: Mapping[str, pd.DataFrame], class_names: Sequence[str], title: str
) -> Figure:
    """Draws for each label how often it predicts one class (row) where DS predicts another.

    Args:
        matrices: counts [classes, classes] without diagonal, by the label compared with DS.
    """
    figure = Figure(figsize=(1.5 + 5 * len(matrices), 5), layout="constrained")
    panels = figure.subplots(1, len(matrices), squeeze=False)[0]
    largest = max(1, *(int(matrix.to_numpy().max()) for matrix in matrices.values()))
    image = None
    for axes, (label, matrix) in zip(panels, matrices.items(), strict=True):
        image = axes.imshow(matrix.to_numpy(), cmap="Blues", vmin=0, vmax=largest)
        _name_classes(axes, class_names)
        axes.set_ylabel(f"{label} predicts")
        axes.set_xlabel("DS predicts")
    assert image is not None
    figure.colorbar(image, ax=list(panels), label="test examples", shrink=0.8)
    figure.suptitle(title)
    return figure


def curves_figure(curves: pd.DataFrame, title: str) -> Figure:
    """Draws loss and accuracy over the epochs.

    The training loss is the objective's; the validation loss is always the cross entropy.

    Args:
        curves: one row per epoch: epoch, train_loss, val_loss, train_accuracy, val_accuracy.
    """
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, color in (("train", "#0072B2"), ("val", "#E69F00")):
            label = split
            if quantity == "loss":
                label += " (objective)" if split == "train" else " (cross entropy)"
            # Validation may not have been looked at after every epoch.
            drawn = curves[["epoch", f"{split}_{quantity}"]].dropna()
            axes.plot(*drawn.to_numpy().T, color=color, label=label)
        axes.set_xlabel("epoch")
        axes.set_ylabel(quantity)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title)
    return figure


def contact_sheet(
    inputs: "Inputs", labels: "Tensor", class_names: Sequence[str], title: str
) -> Figure:
    """Draws up to ten images of each of up to ten classes, one class per row.

    Args:
        inputs: uint8 images [N, channels, height, width], one or three channels.
    """
    shown = list(class_names)[:10]
    figure = Figure(figsize=(8, 0.6 + 0.75 * len(shown)), layout="constrained")
    panels = figure.subplots(len(shown), 10, squeeze=False)
    for row, name in enumerate(shown):
        chosen = (labels == row).nonzero().flatten()
        # Evenly spread, because neighbours in a generated dataset differ in one factor only.
        picks = chosen[np.linspace(0, len(chosen) - 1, min(10, len(chosen))).astype(int)]
        for column, axes in enumerate(panels[row]):
            axes.axis("off")
            if column < len(picks):
                pixels = inputs[picks[column]].permute(1, 2, 0).numpy()
                axes.imshow(pixels, cmap=None if pixels.shape[-1] == 3 else "gray")
        panels[row][0].text(
            -0.15, 0.5, name, ha="right", va="center", transform=panels[row][0].transAxes
        )
    figure.suptitle(title)
    return figure


def _most_different(accuracies: pd.DataFrame) -> list[int]:
    """Returns the rows to draw: all, or those where the arms lie furthest apart."""
    if len(accuracies) <= _MOST_CLASSES:
        return list(range(len(accuracies)))
    gaps = accuracies.max(axis=1) - accuracies.min(axis=1)
    return sorted(np.argsort(-gaps.to_numpy(), kind="stable")[:_MOST_CLASSES].tolist())


def _name_classes(axes: Axes, class_names: Sequence[str]) -> None:
    if len(class_names) <= _MOST_CLASSES:
        axes.set_xticks(range(len(class_names)), class_names, rotation=90)
        axes.set_yticks(range(len(class_names)), class_names)
